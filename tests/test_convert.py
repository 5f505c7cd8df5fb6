"""Kernels and biases in the layouts of others: element by element, and by what Keras 2.15 computed with them."""

import itertools
import re
from math import prod
from pathlib import Path

import numpy as np
import pytest
from layer_cases import assert_close, golden
from oracle import Case

import localconv
from localconv.convert import LAYOUTS, convert, convert_bias

OUTPUTS, KERNELS = {1: (5,), 2: (3, 4), 3: (2, 3, 2)}, {1: (3,), 2: (2, 3), 3: (1, 2, 2)}
CHANNELS, FILTERS = 2, 5

# Where each library keeps the weight of position p, tap t, channel c and filter f, written out.
# `k` taps in all, of which t is at `tap` along the axes.
PLACES = {
    "rows": lambda p, flat, t, tap, c, f, k: (flat, t * CHANNELS + c, f),
    "rows_channels_first": lambda p, flat, t, tap, c, f, k: (flat, c * k + t, f),
    "torch": lambda p, flat, t, tap, c, f, k: (flat, t * CHANNELS + c, f),
    "torch_snippet": lambda p, flat, t, tap, c, f, k: (0, f, c, *p, t),
    "jax": lambda p, flat, t, tap, c, f, k: (f, c * k + t, *p),
    "jax_channels_last": lambda p, flat, t, tap, c, f, k: (*p, c * k + t, f),
    "flax": lambda p, flat, t, tap, c, f, k: (*p, c * k + t, f),
    "torch_conv2d_local": lambda p, flat, t, tap, c, f, k: (*p, f, c, *tap),
    "chainer": lambda p, flat, t, tap, c, f, k: (f, *p, c, *tap),
    "lasagne": lambda p, flat, t, tap, c, f, k: (f, c, *[-1 - n for n in tap], *p),
    "lasagne_correlation": lambda p, flat, t, tap, c, f, k: (f, c, *tap, *p),
    "megengine": lambda p, flat, t, tap, c, f, k: (0, *p, c, *tap, f),
}
SHAPES = {
    "rows": lambda out, size: (prod(out), prod(size) * CHANNELS, FILTERS),
    "torch_snippet": lambda out, size: (1, FILTERS, CHANNELS, *out, prod(size)),
    "torch_conv2d_local": lambda out, size: (*out, FILTERS, CHANNELS, *size),
    "jax": lambda out, size: (FILTERS, CHANNELS * prod(size), *out),
    "flax": lambda out, size: (*out, CHANNELS * prod(size), FILTERS),
    "chainer": lambda out, size: (FILTERS, *out, CHANNELS, *size),
    "lasagne": lambda out, size: (FILTERS, CHANNELS, *size, *out),
    "megengine": lambda out, size: (1, *out, CHANNELS, *size, FILTERS),
}
SHAPES["lasagne_correlation"] = SHAPES["lasagne"]
SHAPES |= {"rows_channels_first": SHAPES["rows"], "torch": SHAPES["rows"], "jax_channels_last": SHAPES["flax"]}


def stored(layout, rank):
    """A kernel in a layout, every number in it another one."""
    out, size = OUTPUTS[rank], KERNELS[rank]
    array = np.full(SHAPES[layout](out, size), -1.0)
    numbers = itertools.count()
    for p in np.ndindex(out):
        flat = int(np.ravel_multi_index(p, out))
        for (t, tap), c, f in itertools.product(enumerate(np.ndindex(size)), range(CHANNELS), range(FILTERS)):
            array[PLACES[layout](p, flat, t, tap, c, f, prod(size))] = next(numbers)
    return array


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("source", "target"), list(itertools.product(PLACES, PLACES)))
def test_kernels(source, target, rank):
    kernel = stored(source, rank)
    before = kernel.copy()
    result = convert(kernel, source, target, KERNELS[rank], output_size=OUTPUTS[rank])
    np.testing.assert_array_equal(result, stored(target, rank))
    np.testing.assert_array_equal(kernel, before)


def test_every_layout_is_tested():
    keras = {name for name in LAYOUTS if name.startswith("keras")}
    assert set(LAYOUTS) == set(PLACES) | keras
    assert keras == {f"keras_{n}{tail}" for n in (1, 2, 3) for tail in ("", "_channels_first")}


def by_definition(x, weight_of, out, size, strides, before, filters):
    """A correlation of NCHW images, by what its weights are: `weight_of` (position, tap, channel, filter)."""
    y = np.zeros((len(x), filters, *out))
    for p, tap, c, f in itertools.product(np.ndindex(out), np.ndindex(size), range(x.shape[1]), range(filters)):
        pixel = [n * s - b + t for n, s, b, t in zip(p, strides, before, tap, strict=True)]
        if all(0 <= n < length for n, length in zip(pixel, x.shape[2:], strict=True)):
            y[(slice(None), f, *p)] += x[(slice(None), c, *pixel)] * weight_of(p, tap, c, f)
    return y


def test_layers_of_chainer_and_torch():
    """Which have strides and no padding, or some."""
    rng = np.random.default_rng(0)
    x, size, out = rng.integers(-4, 5, (2, 3, 7, 6)).astype(float), (3, 2), (3, 3)
    theirs = rng.integers(-4, 5, (5, *out, 3, *size)).astype(float)
    expected = by_definition(x, lambda p, tap, c, f: theirs[(f, *p, c, *tap)], out, size, (2, 2), (0, 0), 5)
    local = np.moveaxis(theirs, 0, 2)
    for layout, kernel in (("chainer", theirs), ("torch_conv2d_local", local)):
        rows = convert(kernel, layout, "rows_channels_first", size)
        y = localconv.local_conv2d(x, rows, size, (2, 2), data_format="channels_first")
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("size", [(3, 3), (2, 5), (1, 4)])
def test_layers_of_lasagne(size):
    """Convolutions: a tap is multiplied with the pixel on its other side. 'same' is Keras's, with half of the window in
    front, which for an even one is the larger half.
    """
    rng = np.random.default_rng(1)
    x, out = rng.integers(-4, 5, (2, 3, 5, 6)).astype(float), (5, 6)
    theirs = rng.integers(-4, 5, (4, 3, *size, *out)).astype(float)

    def flipped(p, tap, c, f):
        return theirs[(f, c, *[k - 1 - t for k, t in zip(size, tap, strict=True)], *p)]

    before = [k // 2 for k in size]
    rows = convert(theirs, "lasagne", "rows_channels_first", size)
    y = localconv.local_conv2d(x, rows, size, data_format="channels_first", padding="same")
    np.testing.assert_array_equal(y, by_definition(x, flipped, out, size, (1, 1), before, 4))
    rows = convert(theirs, "lasagne_correlation", "rows_channels_first", size)
    y = localconv.local_conv2d(x, rows, size, data_format="channels_first", padding="same")
    plain = by_definition(x, lambda p, tap, c, f: theirs[(f, c, *tap, *p)], out, size, (1, 1), before, 4)
    np.testing.assert_array_equal(y, plain)


def test_depthwise_layers_of_lasagne():
    """channelwise=True: a weight without the axis of channels."""
    rng = np.random.default_rng(2)
    x, theirs = rng.integers(-4, 5, (2, 3, 4, 4)).astype(float), rng.integers(-4, 5, (3, 3, 3, 4, 4)).astype(float)
    rows = convert(theirs[:, None], "lasagne_correlation", "rows_channels_first", (3, 3))
    y = localconv.local_conv2d(x, rows, 3, data_format="channels_first", padding="same", groups=3)
    for channel in range(3):
        one = by_definition(
            x[:, [channel]], lambda p, tap, c, f, at=channel: theirs[(at, *tap, *p)], (4, 4), (3, 3), (1, 1), (1, 1), 1
        )
        np.testing.assert_array_equal(y[:, [channel]], one)


@pytest.mark.parametrize("groups", [1, 2])
def test_layers_of_megengine(groups):
    """An axis for the groups, and filters of a group last."""
    rng = np.random.default_rng(3)
    x, size, out = rng.integers(-4, 5, (2, 4, 6, 5)).astype(float), (3, 2), (3, 2)
    theirs = rng.integers(-4, 5, (groups, *out, 4 // groups, *size, 6 // groups)).astype(float)
    expected = np.concatenate(
        [
            by_definition(part, lambda p, tap, c, f, w=w: w[(*p, c, *tap, f)], out, size, (2, 2), (1, 0), 6 // groups)
            for part, w in zip(np.split(x, groups, 1), theirs, strict=True)
        ],
        1,
    )
    rows = convert(theirs, "megengine", "rows_channels_first", size)
    padding = [(1, 0), (0, 0)]
    y = localconv.local_conv2d(x, rows, size, (2, 2), data_format="channels_first", padding=padding, groups=groups)
    np.testing.assert_array_equal(y, expected)
    back = convert(rows, "rows_channels_first", "megengine", size, output_size=out, groups=groups)
    np.testing.assert_array_equal(back, theirs)
    np.testing.assert_array_equal(convert(theirs, "megengine", "megengine", size, groups=groups), theirs)


LAYERS = [case for rank in (1, 2, 3) for case in golden(f"local{rank}d")]


@pytest.mark.parametrize("number", range(len(LAYERS)))
def test_kernels_of_keras(number):
    """What Keras computed with a kernel is what `localconv` computes with its rows; and back to what Keras stored."""
    case = LAYERS[number]
    arguments, kernel = case["arguments"], case["weights"][0]
    first = arguments.get("data_format") == "channels_first"
    rank = case["x"].ndim - 2
    name = f"keras_{arguments.get('implementation', 1)}" + "_channels_first" * first
    size = arguments["kernel_size"]
    size = (size,) * rank if isinstance(size, int) else tuple(size)
    spatial, channels = (
        (case["x"].shape[2:], case["x"].shape[1]) if first else (case["x"].shape[1:-1], case["x"].shape[-1])
    )
    window = {"strides": arguments.get("strides", 1), "padding": arguments.get("padding", "valid")}
    rows = convert(kernel, name, "rows", size, input_size=spatial, channels=channels, **window)
    x = np.moveaxis(case["x"], 1, -1) if first else case["x"]
    function = getattr(localconv, f"local_conv{rank}d")
    output = case["y"].shape[2:] if first else case["y"].shape[1:-1]
    y = function(x, rows, size, window["strides"], data_format="channels_last", padding=window["padding"])
    y = np.moveaxis(y, -1, 1) if first else y
    if len(case["weights"]) > 1:
        bias = convert_bias(case["weights"][1], name, "torch", output)
        y = y + (bias if first else np.moveaxis(bias, 0, -1))
    if arguments.get("activation") in (None, "linear"):
        assert_close(y, case["y"])
    np.testing.assert_array_equal(
        convert(rows, "rows", name, size, input_size=spatial, **window),
        convert(kernel, name, name, size, input_size=spatial, channels=channels, **window),
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("ending", ["", "_channels_first"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_dense_and_sparse_kernels(rank, ending, padding):
    """Keras's implementations 2 and 3 from what they are: a matrix between inputs and outputs, each flattened in the
    data format's order, of which the second keeps the elements that connect a pair, output by output. Of integers.
    """
    first, size, strides = ending != "", (2, 3, 2)[:rank], (2, 1, 2)[:rank]
    spatial = (5, 4, 3)[:rank]
    case = Case(f"local_conv{rank}d", spatial, size, 2, CHANNELS, FILTERS, strides=strides, padding=padding)
    axes = [(CHANNELS, *spatial), (FILTERS, *case.out)] if first else [(*spatial, CHANNELS), (*case.out, FILTERS)]
    where = np.zeros((*spatial, *case.out), bool)
    for position in np.ndindex(case.out):
        for tap in np.ndindex(size):
            pixel = tuple(int(axis[p, t]) for axis, p, t in zip(case.taps, position, tap, strict=True))
            if all(0 <= n < length for n, length in zip(pixel, spatial, strict=True)):
                where[(*pixel, *position)] = True
    moved = np.expand_dims(where, (0, rank + 1) if first else (rank, 2 * rank + 1))
    connected = np.broadcast_to(moved, (*axes[0], *axes[1]))
    rng = np.random.default_rng(rank)
    dense = rng.integers(-8, 9, connected.shape) * connected
    matrix = dense.reshape(prod(axes[0]), -1)
    sparse = matrix.T[connected.reshape(matrix.shape).T]
    x = rng.integers(-8, 9, (2, *axes[0])).astype(float)
    expected = (x.reshape(2, -1) @ matrix).reshape(2, *axes[1])
    window = {"input_size": spatial, "strides": strides, "padding": padding}
    stored = {f"keras_2{ending}": dense, f"keras_3{ending}": sparse}
    rows = [convert(array, name, f"rows{ending}", size, channels=CHANNELS, **window) for name, array in stored.items()]
    np.testing.assert_array_equal(rows[0], rows[1])
    data_format = "channels_first" if first else "channels_last"
    y = getattr(localconv, case.function)(
        x, rows[0].astype(float), size, strides, data_format=data_format, padding=padding
    )
    np.testing.assert_array_equal(y, expected)
    for name, array in stored.items():
        np.testing.assert_array_equal(convert(rows[0], f"rows{ending}", name, size, **window), array)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_biases(rank):
    out = OUTPUTS[rank]
    by_filter = np.arange(float(FILTERS * prod(out))).reshape(FILTERS, *out)
    by_position = np.moveaxis(by_filter, 0, -1)
    forms = {"torch": by_filter, "torch_snippet": by_filter[None], "flax": by_position, "keras_1": by_position}
    forms["keras_2_channels_first"] = by_filter.reshape(by_position.shape)
    for (source, given), (target, expected) in itertools.product(forms.items(), forms.items()):
        np.testing.assert_array_equal(convert_bias(given, source, target, out), expected)
        shared = np.arange(float(FILTERS))
        np.testing.assert_array_equal(convert_bias(shared, source, target, out), shared)


ROWS = np.zeros((12, 12, 5))
WRONG = {
    "source": (lambda: convert(ROWS, "keras", "rows", (2, 3)), ValueError, "source must be one of rows, .* 'keras'"),
    "target": (lambda: convert(ROWS, "rows", 1, (2, 3)), TypeError, "target must be a string, got 1"),
    "kernel_size": (lambda: convert(ROWS, "rows", "jax", 3), TypeError, "kernel_size must be"),
    "no kernel_size": (lambda: convert(ROWS, "rows", "jax", ()), ValueError, "kernel_size must have at least one axis"),
    "taps": (lambda: convert(ROWS, "rows", "rows", (5, 1)), ValueError, r"kernel must have .* 5 taps, got shape \(12"),
    "axes": (lambda: convert(ROWS[0], "rows", "jax", (2, 3)), ValueError, "kernel must have the axes 'P tc f'"),
    "size": (
        lambda: convert(ROWS, "rows", "jax", (2, 3), output_size=(3, 3)),
        ValueError,
        r"kernel must have .*output_size=\(3, 3\), got shape \(12, 12, 5\)",
    ),
    "no size": (lambda: convert(ROWS, "rows", "jax", (2, 3)), ValueError, "output_size or input_size must be given"),
    "sizes": (
        lambda: convert(ROWS, "rows", "jax", (2, 3), output_size=(2, 6), input_size=(4, 6)),
        ValueError,
        r"output_size must be \(3, 4\)",
    ),
    "input": (lambda: convert(ROWS, "rows", "keras_2", (2, 3)), ValueError, "input_size must be given for the target"),
    "small": (
        lambda: convert(ROWS, "rows", "jax", (2, 3), input_size=(1, 1)),
        ValueError,
        "input_size must be large enough",
    ),
    "channels": (
        lambda: convert(ROWS[0, 0], "keras_3", "rows", (2, 3), input_size=(4, 6)),
        ValueError,
        "channels must be given",
    ),
    "sparse": (
        lambda: convert(ROWS[0, 0], "keras_3", "rows", (2, 3), input_size=(4, 6), channels=2),
        ValueError,
        "kernel must have shape",
    ),
    "dense": (
        lambda: convert(ROWS, "keras_2", "rows", (2, 3), input_size=(4, 6)),
        ValueError,
        "kernel must have 6 axes",
    ),
    "layout": (
        lambda: convert(np.zeros((3, 4, 5, 2, 2, 3)), "torch_snippet", "rows", (2, 3)),
        ValueError,
        r"kernel must have the axes '1 f c p t' of 'torch_snippet', .* which fits 'torch_conv2d_local', 'chainer'$",
    ),
    "groups": (
        lambda: convert(ROWS, "rows", "megengine", (2, 3), output_size=(3, 4), groups=2),
        ValueError,
        "groups must divide the 5 filters of the kernel, got 2",
    ),
    "other groups": (
        lambda: convert(np.zeros((1, 3, 4, 2, 2, 3, 5)), "megengine", "rows", (2, 3), groups=2),
        ValueError,
        r"with 6 taps and groups=2, got shape \(1, 3, 4, 2, 2, 3, 5\)",
    ),
    "no groups": (
        lambda: convert(np.zeros((0, 3, 4, 2, 2, 3, 5)), "megengine", "rows", (2, 3)),
        ValueError,
        "kernel must have the axes 'g p c k o'",
    ),
    "groups of text": (lambda: convert(ROWS, "rows", "megengine", (2, 3), groups="2"), TypeError, "groups must be"),
    "objects": (lambda: convert([[None]], "rows", "jax", (2, 3)), TypeError, "kernel must be a plain array"),
    "masked": (
        lambda: convert(np.ma.zeros((12, 12, 5)), "rows", "jax", (2, 3)),
        TypeError,
        "kernel must be a plain array",
    ),
    "bias": (lambda: convert_bias(ROWS, "jax", "torch"), ValueError, "source must have a bias, which 'jax' has not"),
    "bias size": (
        lambda: convert_bias(ROWS, "torch", "flax", (3, 3)),
        ValueError,
        "bias must have the axes 'f p' of 'torch'",
    ),
    "bias axes": (
        lambda: convert_bias(np.zeros((2, 5)), "torch_snippet", "torch"),
        ValueError,
        "bias must have the axes '1 f p'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name):
    call, kind, message = WRONG[name]
    with pytest.raises(kind, match=message):
        call()


PAGE = Path(__file__).parent.parent / "docs" / "api" / "convert.md"


@pytest.mark.skipif(not PAGE.exists(), reason="a test of a checkout; this is not one")
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_table_of_layouts(rank):
    """Every name, its shapes, and in which order taps and channels are."""
    rows = re.findall(r"^\| `(\w+)` \| (\(.*?\)) \| (\(.*?\)|none) \| ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name, *_ in rows] == list(LAYOUTS)
    size, pixels = KERNELS[rank], tuple(n + k - 1 for n, k in zip(OUTPUTS[rank], KERNELS[rank], strict=True))
    words = {"input": pixels, "output": OUTPUTS[rank], "positions": prod(OUTPUTS[rank]), "taps": prod(size)}
    words |= {"channels": CHANNELS, "filters": FILTERS, "window": size, "groups": 1}
    words["connections"] = words["positions"] * words["taps"] * CHANNELS * FILTERS  # without padding
    for name, kernel, bias in rows:
        found = convert(stored("rows", rank), "rows", name, size, input_size=pixels)
        assert found.shape == eval(kernel, {}, words)
        if "taps *" in kernel or "* taps" in kernel:
            assert ("channels * taps" in kernel) == LAYOUTS[name].channels_first
        if bias == "none":
            assert LAYOUTS[name].bias is None
        else:
            terms = convert_bias(np.zeros((*OUTPUTS[rank], FILTERS)), "rows", name, OUTPUTS[rank])
            assert terms.shape == eval(bias, {}, words)
