"""Padding that holds pixels of the input (padding_mode), and filters whose results are divided by the sum of their taps
(normalize): values by the twins and by numpy.pad, gradients as adjoints, dtypes, and what is refused.
"""

import dataclasses
import inspect
import math
import pickle
import re

import ml_dtypes
import numpy as np
import oracle
import pytest
from oracle import FORMATS, RANKS, Case, FilterCase, assert_same_bits

import localconv
from localconv import grad
from localconv.core.borders import Borders, folded, padded
from localconv.core.spec import filter_spec, local_spec, without_padding

# What NumPy calls a padding_mode.
MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
LAST = {"data_format": "channels_last"}

# Sizes, window, strides, dilation, padding: even windows, strides that leave pixels out, windows of one side, and as
# much padding as every padding_mode allows.
WINDOWS = {
    1: [
        ((7,), (3,), 1, 1, "same"),
        ((7,), (4,), 3, 1, "same"),
        ((6,), (3,), 1, 2, "causal"),
        ((5,), (2,), 2, 3, ((4, 4),)),
        ((6,), (1,), 4, 1, "same"),
    ],
    2: [
        ((5, 4), (3, 3), 1, 1, "same"),
        ((5, 6), (2, 4), (2, 3), 1, "same"),
        ((4, 5), (3, 2), 1, (1, 2), ((0, 3), (4, 0))),
    ],
    3: [((4, 3, 5), (3, 2, 1), 1, 1, "same"), ((3, 4, 3), (2, 1, 3), (1, 2, 1), 1, ((1, 2), (0, 3), (2, 0)))],
}
KINDS = ("local_conv", "local_filter")


def cases(kind, rank, **options):
    """Exact ones: small integers, whose sums float32 holds."""
    for spatial, size, strides, dilation, padding in WINDOWS[rank]:
        chosen = {"strides": strides, "dilation_rate": dilation, "padding": padding} | options
        if kind == "local_conv":
            yield Case(f"local_conv{rank}d", spatial, size, channels=4, filters=6, groups=2, bias="full", **chosen)
        else:
            yield FilterCase(kind, spatial, size, groups=2, **chosen)


def pads_of(case):
    """Pixels of padding around every axis that windows reach, by the twin's windows."""
    taps = dataclasses.replace(case, padding_mode="zeros").taps
    ends = [(int(-t.min()), int(t.max()) + 1 - n) for t, n in zip(taps, case.spatial, strict=True)]
    pads = tuple((max(before, 0), max(after, 0)) for before, after in ends)
    return ((0, 0), *pads, (0, 0)) if case.data_format == "channels_last" else ((0, 0), (0, 0), *pads)


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_convolutions(rank, mode, data_format, dtype, no_change):
    """By the twin, whose windows have the pixels' own indices; and the bits of what numpy.pad has padded."""
    for case in cases("local_conv", rank, padding_mode=mode, data_format=data_format, dtype=dtype):
        arrays = case.arrays()
        with no_change(*arrays):
            result = case.run(localconv, arrays)
        case.check(result)
        x = np.pad(arrays[0], pads_of(case), mode=MODES[mode])
        plain = dataclasses.replace(case, padding="valid", padding_mode="zeros")
        options = plain.options() | ({"output_shape": case.out} if rank > 1 else {})
        _, kernel, bias = arrays
        assert_same_bits(getattr(localconv, case.function)(x, kernel, bias=bias, **options), result)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("one", [False, True])
def test_filters(rank, mode, data_format, one, no_change):
    for case in cases("local_filter", rank, padding_mode=mode, data_format=data_format, one=one):
        arrays = case.arrays()
        with no_change(*arrays.values()):
            result = case.run(localconv, arrays)
        case.check(result)
        plain = dataclasses.replace(case, padding="valid", padding_mode="zeros")
        x = np.pad(arrays["inputs"], pads_of(case), mode=MODES[mode])
        assert_same_bits(plain.run(localconv, arrays | {"inputs": x}), result)


@pytest.mark.parametrize("mode", MODES)
def test_values_that_are_rounded(mode):
    case = Case("local_conv2d", (9, 8), (5, 3), padding="same", padding_mode=mode, exact=False)
    case.check(case.run(localconv, case.arrays()))
    for gradient in oracle.gradients(case):
        gradient.check(gradient.run(grad, gradient.arrays()))
    for kind in ("local_filter", "local_filter_input", "local_filter_filters"):
        case = FilterCase(kind, (9, 8), (5, 3), padding="same", padding_mode=mode, exact=False)
        case.check(case.run(localconv if kind == "local_filter" else grad))


@pytest.mark.parametrize("mode", MODES)
def test_specials_are_copied_too(mode):
    case = Case("local_conv1d", (6,), (3,), channels=1, filters=1, padding="same", padding_mode=mode)
    x, kernel, _ = case.arrays()
    for place in range(6):
        for special in (np.nan, np.inf):
            wild = x.copy()
            wild[1, place] = special
            with np.errstate(invalid="ignore"):
                expected = case.run(oracle, (wild, kernel, None))
            np.testing.assert_array_equal(case.run(localconv, (wild, kernel, None)), expected.astype("float32"))


def test_without_padding_all_modes_are_one():
    for kind in KINDS:
        (case, *_) = cases(kind, 2, exact=False)
        case = dataclasses.replace(case, padding="valid")
        arrays = case.arrays()
        expected = case.run(localconv, arrays)
        for mode in MODES:
            for padding in ("valid", ((0, 0), (0, 0))):
                again = dataclasses.replace(case, padding=padding, padding_mode=mode)
                assert_same_bits(again.run(localconv, arrays), expected)


def test_the_default_is_zeros():
    functions = [getattr(localconv, f"{kind}{rank}d") for kind in KINDS for rank in RANKS]
    functions += [getattr(grad, f"{f.__name__}_input") for f in functions]
    functions += [getattr(grad, f"local_conv{rank}d_{end}") for rank in RANKS for end in ("kernel", "bank")]
    functions += [getattr(grad, f"local_filter{rank}d_filters") for rank in RANKS]
    for function in functions:
        parameter = inspect.signature(function).parameters["padding_mode"]
        assert (parameter.default, parameter.kind) == ("zeros", parameter.KEYWORD_ONLY)


def test_same_pads_no_more_than_windows_reach():
    """Two pixels have one outside each: of 'same' in steps of 2 a window of 3 has none behind, which may be reflected
    where a second one could not.
    """
    case = Case("local_conv1d", (2,), (3,), strides=2, padding="same", padding_mode="reflect")
    assert pads_of(case) == ((0, 0), (1, 0), (0, 0))
    case.check(case.run(localconv, case.arrays()))


# --- gradients --------------------------------------------------------------------------------------------------------


def of_case(case):
    """Functions of (inputs, weights) and of the gradient for the result: the case's, and its two gradients."""
    options = case.options()
    name = case.function
    shapes = case.shapes()
    if isinstance(case, Case):
        (image, weights, _), end = shapes, "kernel"
    else:
        image, weights, end = shapes["inputs"], shapes["filters"], "filters"
    forward = lambda x, w: getattr(localconv, name)(x, w, **options)  # noqa: E731
    to_input = lambda w, g, **more: getattr(grad, f"{name}_input")(image, w, g, **options, **more)  # noqa: E731
    to_weights = lambda x, g, **more: getattr(grad, f"{name}_{end}")(x, weights, g, **options, **more)  # noqa: E731
    return (image, weights), forward, to_input, to_weights


def integers(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(dtype)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("mode", ["zeros", *MODES])
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_adjoint(kind, rank, mode, data_format):
    """<A x, y> = <x, A* y> for the input, and for the weights, without rounding."""
    for case in cases(kind, rank, padding_mode=mode, data_format=data_format):
        (image, weights), forward, to_input, to_weights = of_case(case)
        x, w = integers(image, seed=1), integers(weights, seed=2)
        result = forward(x, w)
        y = integers(result.shape, seed=3)
        for_input, for_weights = to_input(w, y), to_weights(x, y)
        assert for_input.shape == image
        assert for_weights.shape == weights
        assert np.vdot(result, y) == np.vdot(for_input, x) == np.vdot(for_weights, w)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rank", RANKS)
def test_gradients(rank, mode):
    """By the twins, which add to the pixels themselves."""
    for case in cases("local_conv", rank, padding_mode=mode):
        for gradient in oracle.gradients(case):
            gradient.check(gradient.run(grad, gradient.arrays()))
    for kind in ("local_filter_input", "local_filter_filters"):
        for one in (False, True):
            for case in cases(kind, rank, padding_mode=mode, one=one):
                case.check(case.run(grad))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(5,), (4, 6), (3, 4, 2)])
def test_folding_is_the_adjoint_of_padding(mode, shape):
    """As matrices, one axis after the other and with pads of every size that is allowed."""
    for most in range(max(shape) + 3):
        largest = {"reflect": -1, "circular": 0, "replicate": 9}[mode]
        pairs = tuple((min(most, n + largest), min(max(most - 1, 0), n + largest)) for n in shape)
        borders, size = Borders(MODES[mode], pairs), math.prod(shape)
        columns = [padded(unit.reshape(shape), borders).ravel() for unit in np.eye(size)]
        matrix = np.stack(columns, 1)
        rows = np.eye(len(matrix)).reshape(-1, *borders.padded_shape(shape))
        back = np.stack([folded(row.copy(), borders).ravel() for row in rows], 1)
        np.testing.assert_array_equal(back, matrix.T)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["labels", "weights", "one filter"])
def test_banks(kind, mode, data_format):
    """Kernels of a few filters: results and gradients of the kernel that they stand for, of integers."""
    case = Case("local_conv2d", (6, 5), (3, 4), 2, padding="same", padding_mode=mode, data_format=data_format)
    (image, shape, _), options = case.shapes(), case.options()
    filters, labels = integers((2, *shape[1:]), seed=1), np.arange(shape[0]) // 13 % 2
    weights = integers((shape[0], 2), seed=2)
    bank = {
        "labels": localconv.KernelBank(filters, indices=labels),
        "weights": localconv.KernelBank(filters, weights),
        "one filter": localconv.KernelBank(filters, indices=np.broadcast_to(1, shape[:1])),
    }[kind]
    x, kernel = integers(image), bank.expand()
    result = localconv.local_conv2d(x, bank, **options)
    np.testing.assert_array_equal(result, localconv.local_conv2d(x, kernel, **options))
    y = integers(result.shape, seed=3)
    for_input = grad.local_conv2d_input(image, bank, y, **options)
    np.testing.assert_array_equal(for_input, grad.local_conv2d_input(image, kernel, y, **options))
    for_filters, for_weights = grad.local_conv2d_bank(x, bank, y, **options)
    assert np.vdot(for_filters, filters) == np.vdot(result, y)
    assert (for_weights is None) == (kind != "weights")
    if for_weights is not None:
        assert np.vdot(for_weights, weights) == np.vdot(result, y)
    # One position's kernel, broadcast to all, is such a bank.
    same = np.broadcast_to(kernel[:1], kernel.shape)
    np.testing.assert_array_equal(
        localconv.local_conv2d(x, same, **options), localconv.local_conv2d(x, same.copy(), **options)
    )
    for_input = grad.local_conv2d_input(image, same, y, **options)
    np.testing.assert_array_equal(for_input, grad.local_conv2d_input(image, same.copy(), y, **options))


# --- dtypes, out ------------------------------------------------------------------------------------------------------

HALVES = [np.float16, ml_dtypes.bfloat16]


@pytest.mark.parametrize("half", HALVES, ids=lambda half: np.dtype(half).name)
@pytest.mark.parametrize("mode", MODES)
def test_sums_of_16_bits_are_rounded_once(mode, half):
    """They are larger than what 16 bits hold: gradients of a pixel and of its copies are summed in float32 too."""
    case = Case("local_conv1d", (4,), (5,), channels=2, filters=24, padding="same", padding_mode=mode)
    filtering = FilterCase("local_filter", (4,), (5,), channels=48, padding="same", padding_mode=mode)
    for which in (case, filtering):
        (image, weights), forward, to_input, to_weights = of_case(which)
        x, w = integers(image, half), integers(weights, half, 1)
        result = forward(x, w)
        g = integers(result.shape, half, 2)
        exact = [array.astype("float64") for array in (x, w, g)]
        for found, expected in [(result, forward(exact[0], exact[1])), (to_input(w, g), to_input(exact[1], exact[2]))]:
            assert found.dtype == half
            assert_same_bits(found, expected.astype(half))
        for_weights = to_weights(x, g)
        assert_same_bits(for_weights, to_weights(exact[0], exact[2]).astype("float32"))


def test_mixed_and_foreign_dtypes():
    (case, *_) = cases("local_conv", 2, padding_mode="reflect")
    x, kernel, bias = case.arrays()
    expected = case.run(localconv, (x, kernel, bias))
    for dtype, result in [(">f4", "float32"), ("float16", "float32"), ("float64", "float64")]:
        assert_same_bits(case.run(localconv, (x.astype(dtype), kernel, bias)), expected.astype(result))
    assert_same_bits(case.run(localconv, (np.asfortranarray(x), kernel[::-1][::-1], bias)), expected)
    small = localconv.quantize(kernel)
    result = case.run(localconv, (x, small, bias))
    assert_same_bits(result, case.run(localconv, (x, small.dequantize(), bias)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_out(kind, mode):
    (case, *_) = cases(kind, 2, padding_mode=mode)
    (image, weights), forward, to_input, to_weights = of_case(case)
    x, w = integers(image, "float32"), integers(weights, "float32", 1)
    result = forward(x, w)
    g = integers(result.shape, "float32", 2)
    call = getattr(localconv, case.function)
    out = np.full(result.shape, np.nan, "float32")
    assert call(x, w, **case.options(), out=out) is out
    assert_same_bits(out, result)
    apart = np.full((*result.shape, 2), np.nan, "float32")[..., 0]
    assert call(x, w, **case.options(), out=apart) is apart
    assert_same_bits(apart, result)
    for function, first in [(to_input, w), (to_weights, x)]:
        expected = function(first, g)
        out = np.full(expected.shape, np.nan, "float32")
        assert function(first, g, out=out) is out
        assert_same_bits(out, expected)
    start = integers(weights, "float32", 3)
    out = start.copy()
    to_weights(x, g, out=out, accumulate=True)
    np.testing.assert_array_equal(out, start + to_weights(x, g))


def test_out_may_not_be_an_input():
    """Though its values are copied before."""
    memory, y = np.ones(18), np.ones((1, 6, 1))
    x, kernel = memory[:6].reshape(1, 6, 1), memory.reshape(6, 3, 1)
    options = {"padding": "same", "padding_mode": "reflect"} | LAST
    for function, *arguments, out in [
        (localconv.local_conv1d, x, kernel + 1, x),
        (localconv.local_filter1d, x, kernel.reshape(1, 6, 3) + 1, x),
        (grad.local_conv1d_kernel, x, kernel.shape, y, kernel),
        (grad.local_conv1d_input, x.shape, kernel, y, x),
    ]:
        with pytest.raises(ValueError, match="out must not share memory with an input"):
            function(*arguments, 3, out=out, **options)


def test_no_images():
    for mode in MODES:
        options = {"padding": "same", "padding_mode": mode} | LAST
        x, kernel = np.ones((0, 6, 1)), np.ones((6, 3, 2))
        result = localconv.local_conv1d(x, kernel, 3, **options)
        assert result.shape == (0, 6, 2)
        assert grad.local_conv1d_input(x.shape, kernel, result, 3, **options).shape == (0, 6, 1)
        assert not grad.local_conv1d_kernel(x, kernel.shape, result, 3, **options).any()


# --- wrong arguments --------------------------------------------------------------------------------------------------


def calls(padding, mode, size=4, taps=3, positions=None):
    """All functions of one dimension, with the name of the argument that has the input's size."""
    options = {"padding": padding, "padding_mode": mode} | LAST
    positions = size if positions is None else positions
    x, y = np.ones((1, size, 1)), np.ones((1, positions, 1))
    kernel, filters = np.ones((positions, taps, 1)), np.ones((1, positions, taps))
    return [
        ("inputs", lambda: localconv.local_conv1d(x, kernel, taps, **options)),
        ("input_shape", lambda: grad.local_conv1d_input(x.shape, kernel, y, taps, **options)),
        ("inputs", lambda: grad.local_conv1d_kernel(x, kernel.shape, y, taps, **options)),
        ("inputs", lambda: localconv.local_filter1d(x, filters, taps, **options)),
        ("inputs", lambda: localconv.local_filter1d(x, filters, taps, normalize=True, **options)),
        ("input_shape", lambda: grad.local_filter1d_input(x.shape, filters, y, taps, **options)),
        ("inputs", lambda: grad.local_filter1d_filters(x, filters.shape, y, taps, **options)),
    ]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [("edge", ValueError), ("Reflect", ValueError), ("", ValueError), (None, TypeError), (0, TypeError)],
)
def test_unknown_modes(wrong, error):
    words = re.escape("padding_mode must be one of ('zeros', 'reflect', 'replicate', 'circular'), got ") + repr(wrong)
    for _, call in calls("same", wrong):
        with pytest.raises(error, match=words):
            call()


@pytest.mark.parametrize(("mode", "words", "most"), [("reflect", "less than", 3), ("circular", "at most", 4)])
def test_padding_is_limited(mode, words, most):
    """As in PyTorch; numpy.pad itself would go on, and begin again."""
    for pair in [(most + 1, 0), (0, most + 1)]:
        for name, call in calls((pair,), mode, positions=4 + most + 1 - 2):
            told = f"padding must be {words} the size of {name} along every axis with padding_mode='{mode}': got"
            with pytest.raises(ValueError, match=re.escape(f"{told} ({pair},) for size (4,)")):
                call()
    for pair in [(most, 0), (0, most)]:
        for _, call in calls((pair,), mode, positions=4 + most - 2):
            call()


def test_padding_by_name_is_limited_too():
    for name, call in calls("same", "reflect", 2, 5):
        with pytest.raises(ValueError, match=rf"padding must be less than the size of {name} .* for size \(2,\)"):
            call()
    for _, call in calls("causal", "circular", 4, 5):
        call()


@pytest.mark.parametrize("mode", MODES)
def test_nothing_to_copy(mode):
    for name, call in calls(((2, 2),), mode, 0, positions=2):
        with pytest.raises(ValueError, match=f"{name} must have pixels along every axis .* got size"):
            call()


def test_replicated_padding_may_be_as_large_as_wanted():
    x, kernel = np.arange(3.0).reshape(1, 3, 1), np.ones((43, 1, 1))
    options = {"padding": ((20, 20),), "padding_mode": "replicate"} | LAST
    result = localconv.local_conv1d(x, kernel, 1, **options)
    np.testing.assert_array_equal(result.ravel(), np.pad(x.ravel(), 20, mode="edge"))


def test_errors_speak_of_what_came():
    """Not of the padded input."""
    x, options = np.ones((1, 6, 2)), {"padding": "same", "padding_mode": "circular"} | LAST
    with pytest.raises(ValueError, match=r"kernel must have shape .* for inputs of shape \(1, 6, 2\)"):
        localconv.local_conv1d(x, np.ones((5, 6, 2)), 3, **options)
    with pytest.raises(ValueError, match=r"filters must have shape .* for inputs of shape \(1, 6, 2\)"):
        localconv.local_filter1d(x, np.ones((1, 5, 3)), 3, **options)
    with pytest.raises(ValueError, match=r"inputs must have 3 axes .* got shape \(6, 2\)"):
        localconv.local_conv1d(x[0], np.ones((6, 6, 2)), 3, **options)
    with pytest.raises(ValueError, match=r"output_shape must be \(6, 6\) for inputs of shape \(1, 6, 6, 1\)"):
        localconv.local_conv2d(np.ones((1, 6, 6, 1)), np.ones((36, 9, 1)), 3, output_shape=(6, 5), **options)


def test_too_much_is_refused_before_memory_is_asked_for():
    far = 2**50
    options = {"strides": far, "padding": ((far, 0),), "padding_mode": "replicate"} | LAST
    with pytest.raises(ValueError, match="an array of this convolution would have"):
        localconv.local_conv1d(np.ones((1, 1, 1)), np.ones((2, 1, 1)), 1, **options)


@pytest.mark.parametrize("mode", MODES)
def test_inside_has_no_padding(mode):
    words = f"padding_mode must be 'zeros' with padding='inside', which has no padding, got '{mode}'"
    for _, call in calls("inside", mode)[3:]:
        with pytest.raises(ValueError, match=re.escape(words)):
            call()


def test_other_functions_have_no_padding_mode():
    x, kernel = np.ones((1, 6, 1)), np.ones((6, 3, 1))
    for function, *arguments in [
        (localconv.local_conv1d_transpose, x, kernel, 3, 1, x.shape),
        (localconv.local_correlation1d, x, x, 3),
        (localconv.conv1d, x, kernel[:3]),
        (localconv.im2col, x, 3),
    ]:
        with pytest.raises(TypeError, match="padding_mode"):
            function(*arguments, padding_mode="reflect")


@pytest.mark.parametrize("make", [local_spec, filter_spec])
def test_specs_are_told_apart_and_pickled(make):
    """Plans are kept by the object: a copy is the same one."""
    windows = {"kernel_size": (3, 3), "strides": (1, 1), "dilation_rate": (2, 1), "groups": 1}
    options = windows | {"padding": "same"} | LAST
    specs = [make(2, **options, padding_mode=mode) for mode in ("zeros", *MODES)]
    assert len({id(spec) for spec in specs}) == 4
    for spec in specs:
        assert pickle.loads(pickle.dumps(spec)) is spec
        assert without_padding(spec) is make(2, **(options | {"padding": "valid"}))


# --- normalize --------------------------------------------------------------------------------------------------------

NORMALIZED = [
    FilterCase("local_filter", (9,), (3,), padding="same", channels=6, groups=2),
    FilterCase("local_filter", (9,), (4,), padding="causal", dilation_rate=2, one=True),
    FilterCase("local_filter", (6, 7), (3, 2), padding="same", strides=(2, 1), channels=6, groups=3),
    FilterCase("local_filter", (6, 5), (3, 3), padding=((2, 1), (0, 4)), one=True, groups=4),
    FilterCase("local_filter", (6, 7), (3, 5), padding="inside"),
    FilterCase("local_filter", (5, 7), (3, 5)),
    FilterCase("local_filter", (4, 3, 5), (3, 2, 3), padding="same", groups=2),
]


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("case", NORMALIZED, ids=lambda case: f"{case.spatial}-{case.padding}")
def test_normalized_filters(case, data_format, no_change):
    """Both sums are exact, so that the quotient is rounded once, also of float16 and of bfloat16."""
    padding_modes = ["zeros"] if case.padding == "inside" else ["zeros", *MODES]
    for mode in padding_modes:
        case = dataclasses.replace(case, data_format=data_format, padding_mode=mode)
        arrays = case.arrays()
        arrays["filters"] = abs(arrays["filters"]) + 1
        expected = case.run(oracle, arrays, normalize=True)
        with no_change(*arrays.values()):
            result = case.run(localconv, arrays, normalize=True)
        assert result.dtype == "float32"
        np.testing.assert_array_equal(result, expected.astype("float32"))
        for dtype in HALVES:
            halves = {name: array.astype(dtype) for name, array in arrays.items()}
            assert_same_bits(case.run(localconv, halves, normalize=True), expected.astype("float32").astype(dtype))


def test_a_constant_stays_as_it_is():
    """What normalize is for: at the border, too, and whatever the filters' sums are."""
    filters = 0.1 + np.random.default_rng(0).random((2, 6, 5, 18), np.float32)
    x = np.full((2, 6, 5, 4), 3, np.float32)
    result = localconv.local_filter2d(x, filters, 3, padding="same", groups=2, normalize=True, **LAST)
    np.testing.assert_allclose(result, x, rtol=18 * np.finfo("float32").eps)


def test_filters_outside_the_input_do_not_count():
    """Not even if they are not finite; those of another group or position neither."""
    x, filters = np.ones((1, 4, 2)), np.ones((1, 4, 3))
    filters[0, 0, 0] = filters[0, -1, 2] = np.nan
    options = {"padding": "same", "normalize": True} | LAST
    np.testing.assert_array_equal(localconv.local_filter1d(x, filters, 3, **options), x)
    filters[0, 1, 1] = np.inf
    expected = x.copy()
    expected[0, 1] = np.nan  # inf / inf
    np.testing.assert_array_equal(localconv.local_filter1d(x, filters, 3, **options), expected)


@pytest.mark.filterwarnings("error")
def test_a_sum_of_zero_divides_as_numpy_does():
    x = np.array([1.0, 1, 2, 0, 3]).reshape(1, 5, 1)
    filters = np.tile([1.0, -1], 5).reshape(1, 5, 2)
    options = {"padding": ((0, 1),), "normalize": True} | LAST
    with np.errstate(all="raise"):
        result = localconv.local_filter1d(x, filters, 2, **options)
    np.testing.assert_array_equal(result.ravel(), [np.nan, -np.inf, np.inf, -np.inf, 3])


def test_out_of_normalized_filters():
    case = dataclasses.replace(NORMALIZED[2], exact=False)
    arrays = case.arrays()
    expected = case.run(localconv, arrays, normalize=True)
    for out in (np.empty_like(expected), np.empty((*expected.shape, 2), "float32")[..., 1]):
        assert case.run(localconv, arrays, normalize=True, out=out) is out
        assert_same_bits(np.ascontiguousarray(out), expected)
    out = np.full(expected.shape, 7, "float64")
    with pytest.raises(TypeError, match="out must have the dtype of the result, float32"):
        case.run(localconv, arrays, normalize=True, out=out)
    assert (out == 7).all()
    with pytest.raises(ValueError, match="out must not share memory"):
        localconv.local_filter1d(x := np.ones((1, 4, 1)), np.ones((1, 4, 1)), 1, normalize=True, out=x, **LAST)
    for sizes in [{"batch": 0}, {"batch": 0, "one": True}]:
        nothing = dataclasses.replace(case, **sizes)
        assert nothing.run(localconv, normalize=True).shape == nothing.shapes()["output"]


@pytest.mark.parametrize("kind", ["array", "float16", "int8", "bank", "labels"])
@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_normalized_local_convolution(rank, data_format, kind, no_change):
    """A kernel of any kind, several filters and groups: the quotient of both sums, each by the twin."""
    rng = np.random.default_rng(rank)
    spatial, taps = {1: (9,), 2: (5, 6), 3: (4, 3, 5)}[rank], 3**rank
    x = rng.standard_normal((2, 4, *spatial) if data_format == "channels_first" else (2, *spatial, 4)).astype("float32")
    kernel = rng.random((math.prod(spatial), taps * 2, 6)).astype("float32") + np.float32(0.1)
    if kind in ("bank", "labels"):
        indices, weights = rng.integers(0, 3, (len(kernel), 2)), rng.random((len(kernel), 2), "float32")
        parts = {"indices": indices[:, 0]} if kind == "labels" else {"indices": indices, "weights": weights}
        given = localconv.KernelBank(kernel[:3], **parts)
        kernel = given.expand()
    elif kind == "int8":
        given = localconv.quantize(kernel)
        kernel = given.dequantize()
    else:
        given = kernel if kind == "array" else kernel.astype(kind)
        kernel = given.astype("float32")
    options = {"padding": "same", "groups": 2, "data_format": data_format}
    local, twin = getattr(localconv, f"local_conv{rank}d"), oracle.local_conv
    with no_change(x):
        result = local(x, given, 3, normalize=True, **options)
    sums, ones = twin(rank, x, kernel, 3, **options), twin(rank, np.ones_like(x), kernel, 3, **options)
    sizes = twin(rank, abs(x), kernel, 3, **options)
    allowed = 2 * (taps * 2 + 4) * np.finfo("float32").eps * (sizes / ones + abs(sums / ones))
    assert result.dtype == "float32"
    assert (abs(result - sums / ones) <= allowed).all()


def test_a_blur_by_a_bank_keeps_a_constant():
    filters = np.random.default_rng(0).random((4, 25, 1), np.float32)
    bank = localconv.KernelBank.on_grid(filters, [(0, 19), (0, 29)], (20, 30))
    x = np.full((1, 20, 30, 1), 7, np.float32)
    result = localconv.local_conv2d(x, bank, 5, padding="same", normalize=True, **LAST)
    np.testing.assert_allclose(result, x, rtol=27 * np.finfo("float32").eps)
    with pytest.raises(ValueError, match="bias must be None with normalize=True"):
        localconv.local_conv2d(x, bank, 5, padding="same", normalize=True, bias=np.ones(1, np.float32), **LAST)
    with pytest.raises(ValueError, match="out must not share memory"):
        localconv.local_conv2d(x, bank, 5, padding="same", normalize=True, out=x, **LAST)


@pytest.mark.parametrize("wrong", [None, 1, 0, "yes", np.ones(2)])
def test_normalize_is_true_or_false(wrong):
    with pytest.raises(TypeError, match="normalize must be True or False, got"):
        localconv.local_filter1d(np.ones((1, 4, 1)), np.ones((1, 2, 3)), 3, normalize=wrong, **LAST)
    with pytest.raises(ValueError, match=r"filters must have shape .* got \(1, 3, 3\)"):
        localconv.local_filter1d(np.ones((1, 4, 1)), np.ones((1, 3, 3)), 3, normalize=True, **LAST)
    for right in (True, np.True_):
        result = localconv.local_filter1d(np.ones((1, 4, 1)), np.ones((1, 2, 3)), 3, normalize=right, **LAST)
        np.testing.assert_array_equal(result.ravel(), [1, 1])
