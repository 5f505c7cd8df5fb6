"""KernelBank: kernels of a few filters spread over many positions, in every function that takes a kernel."""

import copy
import io
import itertools
import math
import pickle
import tracemalloc

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import FORMATS, PADDINGS, assert_same_bits
from stored import BFLOAT16, FLOAT16, FLOAT32, FLOAT64

import localconv
from localconv import KernelBank, grad
from localconv.core import banked

WIDE = np.longdouble  # of float64 too
KINDS = ("weights", "labels", "weights and indices", "one filter")


def outputs(spatial, size, strides, padding, dilation):
    """Output sizes by the twin's own taps."""
    rank = len(spatial)
    taps = oracle._taps(spatial, oracle.as_tuple(size, rank), strides, padding, dilation, oracle._start_clipped)
    return tuple(len(axis) for axis in taps)


def bank_of(kind, positions, rows, columns, filters=3, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    stored = rng.standard_normal((filters, rows, columns)).astype(dtype)
    weights = rng.standard_normal((positions, filters)).astype(dtype)
    indices = rng.integers(0, filters, (positions, 2))
    match kind:
        case "weights":
            return KernelBank(stored, weights)
        case "labels":
            return KernelBank(stored, indices=indices[:, 0])
        case "weights and indices":
            return KernelBank(stored, weights[:, :2], indices)
        case "one filter":
            return KernelBank(stored, indices=np.broadcast_to(indices[0, 0], (positions, 1)))


def expanded(bank, absolute=False):
    """The definition, wider than the bank."""
    size = abs if absolute else (lambda array: array)
    filters = size(bank.filters.astype(WIDE))
    positions = bank.shape[0]
    indices = (
        np.broadcast_to(np.arange(len(filters)), (positions, len(filters))) if bank.indices is None else bank.indices
    )
    weights = np.ones(indices.shape, WIDE) if bank.weights is None else size(bank.weights.astype(WIDE))
    return sum(weights[:, m, None, None] * filters[indices[:, m]] for m in range(indices.shape[1]))


def terms_of(bank):
    """Filters of a position: weights are products, and sums, of their own."""
    return len(bank.filters) if bank.indices is None else bank.indices.shape[1]


def check(result, values, magnitudes, terms, dtype=None):
    """Within the rounding of so many products and sums; 16 bits are rounded to once more."""
    dtype = result.dtype if dtype is None else dtype
    limits = np.finfo(np.float64 if dtype == np.float64 else np.float32)
    error = abs(result.astype(WIDE) - values)
    allowed = (terms + 2) * (limits.eps * magnitudes + limits.smallest_subnormal)
    if dtype.itemsize == 2:
        allowed += abs(values) * (2.0**-8 if dtype == BFLOAT16 else 2.0**-11) + 2.0**-24
    assert result.shape == values.shape
    assert (error <= allowed).all(), np.max(error - allowed)


def check_all(bank, rank, x, size, bias=None, **options):
    """The forward result and all gradients, against the expanded kernel's."""
    check_bank(bank, rank, x, check_forward_and_input(bank, rank, x, size, bias, **options), size, **options)


def check_forward_and_input(bank, rank, x, size, bias=None, **options):
    """These two alone; returns what was taken as the output's gradient."""
    forward, names = getattr(localconv, f"local_conv{rank}d"), f"local_conv{rank}d"
    kernel, sizes, depth = expanded(bank), expanded(bank, absolute=True), bank.shape[1] * terms_of(bank)
    values, _ = oracle.local_conv(rank, x.astype(WIDE), kernel, size, bias=bias, bound=True, **options)
    magnitudes = oracle.local_conv(rank, abs(x.astype(WIDE)), sizes, size, **options)
    magnitudes = magnitudes + (0 if bias is None else abs(bias).max())
    y = forward(x, bank, size, bias=bias, **options)
    check(y, values, magnitudes, depth)

    g = np.random.default_rng(5).standard_normal(y.shape).astype(x.dtype)
    wide = g.astype(WIDE)
    result = getattr(grad, f"{names}_input")(x.shape, bank, g, size, **options)
    touching = depth * bank.shape[2] * math.prod(oracle.as_tuple(size, rank))
    values = oracle.local_conv_input(rank, x.shape, kernel, wide, size, **options)
    magnitudes = oracle.local_conv_input(rank, x.shape, sizes, abs(wide), size, **options)
    check(result, values, magnitudes, touching)
    transposed = getattr(localconv, f"{names}_transpose")
    strides = options.pop("strides", 1)
    assert_same_bits(transposed(g, bank, size, strides, x.shape, **options), result)
    return g


def check_bank(bank, rank, x, g, size, **options):
    """The gradients for filters and weights."""
    names, wide = f"local_conv{rank}d", g.astype(WIDE)
    filters, weights = getattr(grad, f"{names}_bank")(x, bank, g, size, **options)
    made = oracle.local_conv_kernel(rank, x.astype(WIDE), bank.shape, wide, size, **options)
    large = oracle.local_conv_kernel(rank, abs(x.astype(WIDE)), bank.shape, abs(wide), size, **options)
    indices = (
        bank.indices
        if bank.indices is not None
        else np.broadcast_to(np.arange(len(bank.filters)), (len(made), len(bank.filters)))
    )
    by = np.ones(indices.shape, WIDE) if bank.weights is None else bank.weights.astype(WIDE)
    for_filters, size_filters = np.zeros((2, *bank.filters.shape), WIDE)
    for m in range(indices.shape[1]):
        np.add.at(for_filters, indices[:, m], by[:, m, None, None] * made)
        np.add.at(size_filters, indices[:, m], abs(by[:, m, None, None]) * large)
    check(filters, for_filters, size_filters, len(x) * len(made) + 2)
    assert (weights is None) == (bank.weights is None)
    if weights is not None:
        f = bank.filters.astype(WIDE)
        values = np.stack([(made * f[indices[:, m]]).sum((1, 2)) for m in range(indices.shape[1])], 1)
        magnitudes = np.stack([(large * abs(f[indices[:, m]])).sum((1, 2)) for m in range(indices.shape[1])], 1)
        check(weights, values, magnitudes, len(x) * bank.shape[1] * bank.shape[2])


@pytest.fixture(params=["fold", "build"])
def way(request, monkeypatch):
    """Each of the two ways wherever it is possible, in units of a few positions."""
    monkeypatch.setattr(banked.Banked, "folding_costs_less", lambda *_: request.param == "fold")
    monkeypatch.setattr(banked, "BOX_POSITIONS", 1)
    monkeypatch.setattr(banked, "UNIT_BYTES", 3000)
    return request.param


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_geometries(way, rank, data_format, kind):
    spatial = {1: (17,), 2: (9, 7), 3: (5, 4, 6)}[rank]
    steps, sizes = ((1, 1), (2, 1), (1, 2), (2, 3)), itertools.cycle(((1, 1, 1), (2, 3, 1), (4, 2, 2)))
    for padding, (strides, dilation) in itertools.product(PADDINGS[rank], steps):
        channels, columns, groups = next(sizes)
        size = (3, 2, 1)[:rank]
        out = outputs(spatial, size, strides, padding, dilation)
        if min(out) < 1:
            continue
        bank = bank_of(kind, math.prod(out), math.prod(size) * channels // groups, columns)
        rng = np.random.default_rng(1)
        shape = (2, channels, *spatial) if data_format == "channels_first" else (2, *spatial, channels)
        x = rng.standard_normal(shape, dtype=np.float32)
        options = {"strides": strides, "padding": padding, "dilation_rate": dilation, "groups": groups}
        check_all(bank, rank, x, size, data_format=data_format, **options)


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16, FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_element_types(way, kind, dtype):
    x = np.random.default_rng(2).standard_normal((3, 8, 9, 4)).astype(dtype)
    bank = bank_of(kind, 6 * 7, 36, 5, dtype=dtype)
    assert bank.dtype == dtype
    y = localconv.local_conv2d(x, bank, 3, data_format="channels_last")
    values = oracle.local_conv(2, x.astype(WIDE), expanded(bank), 3)
    magnitudes = oracle.local_conv(2, abs(x.astype(WIDE)), expanded(bank, True), 3)
    assert y.dtype == dtype
    check(y, values, magnitudes, 3 * 36)
    filters, _ = grad.local_conv2d_bank(x, bank, y, 3, data_format="channels_last")
    assert filters.dtype == (np.float64 if dtype == FLOAT64 else np.float32)


@pytest.mark.parametrize("terms", [1, 2, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("columns", [1, 2, 4, 7, 16, 33])
@pytest.mark.parametrize("images", [1, 3, 17, 40])
def test_kernels_are_made_where_they_are_read(isa, dtype, images, columns, terms, monkeypatch):
    """Sums of every number of filters, by every algorithm that images and columns choose."""
    monkeypatch.setattr(banked.Banked, "folding_costs_less", lambda *_: False)
    rng = np.random.default_rng(terms)
    x = rng.standard_normal((images, 5, 6, 3)).astype(dtype)
    indices, weights = rng.integers(0, 5, (15, terms)), rng.standard_normal((15, terms))
    bank = KernelBank(rng.standard_normal((5, 27, columns)).astype(dtype), weights.astype(dtype), indices)
    check_forward_and_input(bank, 2, x, 3, padding=((1, 1), (1, 0)), strides=(1, 2), data_format="channels_last")


@pytest.mark.parametrize("data_format", FORMATS)
def test_kernels_of_groups_are_made_where_they_are_read(isa, dtype, data_format):
    """Several groups, and depthwise: one filter for each channel."""
    rng = np.random.default_rng(0)
    for channels, columns, groups in ((6, 8, 2), (19, 19, 19)):
        shape = (3, channels, 6, 7) if data_format == "channels_first" else (3, 6, 7, channels)
        x = rng.standard_normal(shape).astype(dtype)
        filters = rng.standard_normal((4, 9 * channels // groups, columns)).astype(dtype)
        bank = KernelBank(filters, rng.standard_normal((20, 4)).astype(dtype))
        check_forward_and_input(bank, 2, x, 3, data_format=data_format, groups=groups)


def test_two_types_of_16_bits_have_float32_in_common(way):
    rng = np.random.default_rng(4)
    filters, weights = rng.standard_normal((2, 9, 3)), rng.standard_normal((20, 2))
    bank = KernelBank(filters.astype(FLOAT16), weights.astype(BFLOAT16))
    x = rng.standard_normal((2, 6, 7, 1)).astype(FLOAT16)
    y = localconv.local_conv2d(x, bank, 3, data_format="channels_last")
    values = oracle.local_conv(2, x.astype(WIDE), expanded(bank), 3)
    magnitudes = oracle.local_conv(2, abs(x.astype(WIDE)), expanded(bank, True), 3)
    assert bank.dtype == bank.expand().dtype == y.dtype == FLOAT32
    check(y, values, magnitudes, 2 * 9)


@pytest.mark.parametrize("columns", [1, 3, 16, 33])
@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("shape", ["filters", "positions"])
def test_bias(isa, way, shape, data_format, columns):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 8, 9, 2) if data_format == "channels_last" else (2, 2, 8, 9), dtype=np.float32)
    bias = rng.standard_normal((columns,) if shape == "filters" else (6, 7, columns), dtype=np.float32)
    check_all(bank_of("weights", 42, 18, columns), 2, x, 3, bias=bias, data_format=data_format)


@settings(deadline=None, max_examples=30)
@given(
    nodes=st.lists(
        st.lists(st.integers(-5, 30), min_size=1, max_size=4, unique=True).map(sorted), min_size=1, max_size=3
    ),
    seed=st.integers(0, 9),
)
def test_on_grid(nodes, seed):
    """Against np.interp along every axis."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 12, len(nodes)))
    filters = rng.standard_normal((math.prod(map(len, nodes)), 2, 3))
    bank = KernelBank.on_grid(filters, nodes, shape)
    expected = filters.reshape(*map(len, nodes), 6)
    for axis, positions in enumerate(nodes):
        expected = np.apply_along_axis(
            lambda values, at=positions, n=shape[axis]: np.interp(np.arange(n), at, values), axis, expected
        )
    np.testing.assert_allclose(bank.expand(), expected.reshape(-1, 2, 3), rtol=1e-12, atol=1e-12)
    assert bank.indices.shape[1] == math.prod(min(2, len(positions)) for positions in nodes)


def test_grid_is_folded_box_by_box(monkeypatch):
    """A photograph with a grid of point spread functions: both ways and the whole one agree."""
    monkeypatch.setattr(banked, "FOLDED_BOX", 0)  # as in a larger one
    rng = np.random.default_rng(4)
    nodes = [np.linspace(0, 31, 3), np.linspace(0, 39, 4)]
    bank = KernelBank.on_grid(rng.standard_normal((12, 25, 1), dtype=np.float32), nodes, (32, 40))
    x = rng.standard_normal((1, 32, 40, 1), dtype=np.float32)
    spec = localconv.core.spec.local_spec(2, 5, 1, "same", "channels_last", 1, 1)
    work = banked.Banked(spec, x.shape, bank, np.float32)
    assert work.fold
    assert len(list(work.units())) == 2 * 3
    check_all(bank, 2, x, 5, padding="same", data_format="channels_last")


@pytest.mark.parametrize("seed", range(3))
def test_adjoint(way, seed):
    """<A x, y> = <x, A* y>, in float64."""
    rng = np.random.default_rng(seed)
    bank = bank_of("weights", 11 * 13, 9, 1, dtype=np.float64, seed=seed)
    x, y = rng.standard_normal((2, 2, 11, 13, 1))
    options = {"padding": "same", "data_format": "channels_last"}
    forward = localconv.local_conv2d(x, bank, 3, **options)
    back = grad.local_conv2d_input(x.shape, bank, y, 3, **options)
    assert abs(np.vdot(forward, y) - np.vdot(x, back)) < 1e-12 * np.linalg.norm(x) * np.linalg.norm(y) * 10


def test_ways_by_cost(monkeypatch):
    """Many images build, few fold; what cannot fold builds."""
    monkeypatch.setattr(banked, "FOLDED_BOX", 0)  # as in pictures of many positions
    spec = localconv.core.spec.local_spec(2, 3, 1, "valid", "channels_last", 1, 1)

    def folds(bank, batch, spec=spec, channels=2):
        return banked.Banked(spec, (batch, 12, 12, channels), bank, np.float32).fold

    low = bank_of("weights", 100, 18, 4)
    assert folds(low, 1)
    assert not folds(low, 64)
    assert not banked.Banked(spec, (12, 12, 12, 2), low, np.float32, gradients=True).fold
    assert not folds(bank_of("labels", 100, 18, 4), 1)  # boxes of one position
    halves = KernelBank(low.filters, indices=np.arange(100) // 50)
    monkeypatch.setattr(banked, "BOX_POSITIONS", 50)
    assert folds(halves, 64)  # each position has one filter: nothing is computed twice
    both = localconv.core.spec.local_spec(2, 3, 2, "valid", "channels_last", 2, 1)
    assert not folds(bank_of("weights", 16, 18, 4), 1, both)


def test_each_operation_has_its_own_cost(monkeypatch):
    """Four images: results, and gradients for the input, are built where gradients for the bank fold."""
    ways, folds = [], banked.Banked.folds
    monkeypatch.setattr(banked.Banked, "folds", lambda self, gradients: ways.append(folds(self, gradients)) or ways[-1])
    bank, x = bank_of("weights", 4, 18, 400), np.ones((4, 4, 4, 2), np.float32)
    y = localconv.local_conv2d(x, bank, 3, data_format="channels_last")
    grad.local_conv2d_input(x.shape, bank, y, 3, data_format="channels_last")
    grad.local_conv2d_bank(x, bank, y, 3, data_format="channels_last")
    assert ways == [False, False, True]


def test_inf_and_nan_stay_where_they_are(way):
    """A filter of inf reaches the positions that have it, and no others."""
    filters = np.ones((3, 9, 1), np.float32)
    filters[1, 4], filters[2, 0] = np.inf, np.nan
    labels = np.arange(36) // 12
    x = np.ones((1, 8, 8, 1), np.float32)
    for bank in (
        KernelBank(filters, indices=labels),
        KernelBank(filters, np.ones((36, 2), np.float32), np.stack([labels, labels], 1)),
    ):
        y = localconv.local_conv2d(x, bank, 3, data_format="channels_last").reshape(3, 12)
        assert np.isfinite(y[0]).all()
        assert np.isinf(y[1]).all()
        assert np.isnan(y[2]).all()
    x[0, 0, 0, 0] = np.inf
    y = localconv.local_conv2d(x, KernelBank(filters[:1], indices=labels * 0), 3, data_format="channels_last")
    assert np.isinf(y).sum() == 1


def test_threads_change_no_bit():
    bank = bank_of("weights", 60 * 50, 25, 1, filters=5)
    x = np.random.default_rng(6).standard_normal((1, 60, 50, 1), dtype=np.float32)
    options = {"padding": "same", "data_format": "channels_last"}
    results = []
    for threads in (1, 2, 5):
        localconv.set_num_threads(threads)
        y = localconv.local_conv2d(x, bank, 5, **options)
        results.append((y, grad.local_conv2d_input(x.shape, bank, y, 5, **options)))
    for result in results[1:]:
        assert_same_bits(result[0], results[0][0])
        assert_same_bits(result[1], results[0][1])


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT16], ids=str)
def test_broadcast_kernels_are_not_copied(dtype):
    """A kernel of stride 0 along its positions would be 200 MB."""
    one = np.random.default_rng(7).standard_normal((1, 25 * 2, 2)).astype(dtype)
    kernel = np.broadcast_to(one, (500 * 1000, 50, 2))
    x = np.random.default_rng(8).standard_normal((1, 500, 1000, 2)).astype(dtype)
    options = {"padding": "same", "data_format": "channels_last"}
    tracemalloc.start()
    y = localconv.local_conv2d(x, kernel, 5, **options)
    back = grad.local_conv2d_input(x.shape, kernel, y, 5, **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6
    some = localconv.local_conv2d(x[:, :40, :50], np.ascontiguousarray(kernel[: 40 * 50]), 5, **options)
    np.testing.assert_allclose(y[:, :30, :40].astype(float), some[:, :30, :40].astype(float), rtol=2e-3, atol=2e-3)
    assert back.shape == x.shape


def test_memory_is_bounded():
    """Nine point spread functions of 25 x 25 over 400 x 400 pixels: the kernel would be 400 MB, nine maps 6 MB."""
    rng = np.random.default_rng(9)
    bank = KernelBank(
        rng.standard_normal((9, 625, 1), dtype=np.float32), rng.standard_normal((160_000, 9), dtype=np.float32)
    )
    x = rng.standard_normal((1, 400, 400, 1), dtype=np.float32)
    options = {"padding": "same", "data_format": "channels_last"}
    tracemalloc.start()
    y = localconv.local_conv2d(x, bank, 25, **options)
    grad.local_conv2d_input(x.shape, bank, y, 25, **options)
    grad.local_conv2d_bank(x, bank, y, 25, **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 2**20


def test_out(no_change):
    bank, x = bank_of("weights", 36, 9, 2), np.ones((1, 8, 8, 1), np.float32)
    expected = localconv.local_conv2d(x, bank, 3, data_format="channels_last")
    out = np.full((1, 6, 6, 4), 7, np.float32)
    with no_change(x, *bank.parts().values()):
        result = localconv.local_conv2d(x, bank, 3, data_format="channels_last", out=out[..., ::2])
    assert np.shares_memory(result, out)
    assert_same_bits(out[..., ::2].copy(), expected)
    assert (out[..., 1::2] == 7).all()
    filters = np.ones((2, 9, 36), np.float32)
    own = KernelBank(filters.reshape(2, 324, 1), indices=[0])
    with pytest.raises(ValueError, match="out must not share memory"):
        localconv.local_conv1d(
            np.ones((1, 324, 1)).astype(np.float32),
            own,
            324,
            out=filters.reshape(-1)[:1].reshape(1, 1, 1),
            data_format="channels_last",
        )


def test_no_images():
    bank = bank_of("weights", 36, 9, 2)
    y = localconv.local_conv2d(np.ones((0, 8, 8, 1), np.float32), bank, 3, data_format="channels_last")
    assert y.shape == (0, 6, 6, 2)
    filters, weights = grad.local_conv2d_bank(
        np.ones((0, 8, 8, 1), np.float32), bank, y, 3, data_format="channels_last"
    )
    assert not filters.any()
    assert not weights.any()


@pytest.mark.parametrize("kind", KINDS)
def test_parts_files_and_pickles(kind):
    bank = bank_of(kind, 36, 9, 2)
    file = io.BytesIO()
    np.savez(file, **bank.parts())
    file.seek(0)
    with np.load(file) as parts:
        others = [KernelBank(**parts), pickle.loads(pickle.dumps(bank)), copy.deepcopy(bank)]
    for other in others:
        assert_same_bits(other.expand(), bank.expand())
        assert (other.shape, other.dtype, other.ndim, other.size) == ((36, 9, 2), FLOAT32, 3, 648)
    assert bank.nbytes == sum(part.nbytes for part in bank.parts().values())
    assert repr(bank) == f"KernelBank(shape=(36, 9, 2), filters=3, nbytes={bank.nbytes})"
    np.testing.assert_allclose(bank.expand(), expanded(bank).astype(float), rtol=1e-5, atol=1e-5)
    for part in bank.parts().values():
        assert not part.flags.writeable


def test_indices_are_the_banks_own():
    indices = np.zeros(36, int)
    bank = KernelBank(np.ones((2, 9, 1), np.float32), indices=indices)
    indices[:] = 99
    assert not bank.indices.any()


def test_memory_stays():
    """NumPy resizes no array that a bank reads, also where it is told not to look."""
    filters, weights = np.ones((2, 9, 1), np.float32), np.ones((36, 2), np.float32)
    bank = KernelBank(filters, weights)
    for array in (filters, weights):
        with pytest.raises(ValueError, match="resize"):
            array.resize(10**6, refcheck=False)
    assert bank.expand().shape == (36, 9, 1)


FILTERS = np.ones((2, 9, 1), np.float32)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "weights or indices must be given", {}),
        (
            ValueError,
            r"filters must have shape \(filters, taps of .*, none of them 0, got \(9, 1\)",
            {"filters": FILTERS[0]},
        ),
        (ValueError, "filters must have shape", {"filters": FILTERS[:0], "indices": [0]}),
        (TypeError, "filters must have one of the dtypes", {"filters": FILTERS.astype(int), "indices": [0]}),
        (TypeError, "indices must be integers, got an array of float64", {"indices": [0.0]}),
        (TypeError, "indices must be integers, got an array of bool", {"indices": [True]}),
        (ValueError, "indices must be from 0 to 1, for 2 filters, got 0 to 2", {"indices": [0, 2]}),
        (ValueError, "indices must be from 0 to 1, for 2 filters, got -1 to 0", {"indices": [-1, 0]}),
        (
            ValueError,
            r"indices must have shape \(positions, M\) or \(positions,\)",
            {"indices": np.zeros((2, 2, 1), int)},
        ),
        (ValueError, r"indices must have shape .* none of them 0", {"indices": np.zeros(0, int)}),
        (ValueError, "weights must be given where a position has several", {"indices": [[0, 1]]}),
        (ValueError, r"weights must have shape .* = \(positions, 2\) without indices", {"weights": np.ones((4, 3))}),
        (
            ValueError,
            r"weights must have the shape of indices, \(4, 1\)",
            {"weights": np.ones((4, 2)), "indices": [0] * 4},
        ),
        (TypeError, "weights must have one of the dtypes", {"weights": np.ones((4, 2), int)}),
        (TypeError, "indices must be an array without a mask", {"indices": np.ma.masked_array([0, 1], [0, 1])}),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_bad_parts(error, message, arguments):
    with pytest.raises(error, match=message):
        KernelBank(**{"filters": FILTERS, **arguments})


@pytest.mark.parametrize(
    ("error", "message", "nodes", "shape"),
    [
        (ValueError, "nodes must have 2 sequences, one for each axis of output_shape, got 1", [(0, 1)], (4, 4)),
        (ValueError, r"nodes\[0\] must be finite and ascend", [(1, 0)], (4,)),
        (ValueError, r"nodes\[0\] must be finite and ascend", [(0, np.nan)], (4,)),
        (ValueError, r"nodes\[1\] must be a sequence of at least one", [(0, 1), ()], (4, 4)),
        (ValueError, "filters must have one kernel for each of the 3 nodes, got 2", [(0, 1, 2)], (4,)),
        (TypeError, "nodes must be a sequence of positions for each axis", 3, (4,)),
        (ValueError, "output_shape must be at least 1", [(0, 1)], (0,)),
        (TypeError, "output_shape must be a sequence of ints", [(0, 1)], 4),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_bad_grids(error, message, nodes, shape):
    with pytest.raises(error, match=message):
        KernelBank.on_grid(FILTERS, nodes, shape)


def test_bad_calls():
    bank, x = bank_of("weights", 36, 9, 2), np.ones((1, 8, 8, 1), np.float32)
    wrong = "kernel must have shape .* got .36, 9, 2."
    with pytest.raises(ValueError, match=wrong):
        localconv.local_conv2d(x, bank, 2, data_format="channels_last")
    with pytest.raises(ValueError, match="bias must have shape"):
        localconv.local_conv2d(x, bank, 3, data_format="channels_last", bias=np.ones(3, np.float32))
    with pytest.raises(ValueError, match="grad_output must have the shape of the forward result"):
        grad.local_conv2d_input(x.shape, bank, x, 3, data_format="channels_last")
    with pytest.raises(TypeError, match=r"inputs must be an array of .*: only a kernel may be a KernelBank"):
        localconv.local_conv2d(bank, bank, 3, data_format="channels_last")
    with pytest.raises(TypeError, match=r"kernel must be an array of .* got a KernelBank, which stands for"):
        localconv.conv2d(x, bank, data_format="channels_last")
    with pytest.raises(TypeError, match=r"filters must be an array of .* got a KernelBank"):
        localconv.local_filter2d(x, bank, 3, data_format="channels_last")
    with pytest.raises(TypeError, match="bank must be a KernelBank, got ndarray"):
        grad.local_conv2d_bank(x, bank.expand(), x, 3, data_format="channels_last")
    with pytest.raises(ValueError, match="bank must have shape"):
        grad.local_conv2d_bank(x, bank, x, 2, data_format="channels_last")
    with pytest.raises(TypeError, match=r"a KernelBank is no array: bank.expand"):
        np.asarray(bank)
