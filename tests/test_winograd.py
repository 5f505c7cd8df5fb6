"""Shared convolution by Winograd's algorithm: what it takes, its values, its error, and the setting that allows it."""

import dataclasses
import itertools
import threading

import numpy as np
import pytest
from oracle import FILTERS, PADDINGS, Case, assert_same_bits, conv, tolerance

import localconv
from localconv import _core, layers
from localconv.core import settings

SIZES = {1: ((13,), (3,)), 2: ((7, 9), (3, 3)), 3: ((3, 6, 7), (1, 3, 3))}


def case_of(rank, channels=5, filters=7, batch=2, **more):
    """A case that the algorithm can do."""
    spatial, kernel_size = SIZES[rank]
    return Case(f"conv{rank}d", spatial, kernel_size, batch, channels, filters, **more)


@pytest.fixture
def solve(isa):
    """Runs an exact case by the algorithm: halves and quarters of small integers are exact too."""

    def run(case):
        with settings.forced("conv_winograd"):
            result = case.run(localconv, case.arrays())
        case.check(result)
        assert _core.last_run() | {"threads": 0, "team": 0} == {
            "operation": "conv_forward",
            "algorithm": "conv_winograd",
            "isa": isa,
            "dtype": result.dtype.name,
            "threads": 0,
            "team": 0,
        }

    return run


@pytest.mark.parametrize("rank", SIZES)
def test_filters_and_channels(solve, dtype, rank):
    for filters, channels in zip(FILTERS, itertools.cycle((1, 3, 8, 15, 16, 17, 33, 64, 65)), strict=False):
        solve(case_of(rank, channels, filters, dtype=dtype, bias="filters"))


@pytest.mark.parametrize("padding", PADDINGS[1])
def test_lengths(solve, dtype, padding):
    for n in (*range(3, 12), 40):
        solve(Case("conv1d", (n,), (3,), 3, 4, 9, padding=padding, dtype=dtype))


@pytest.mark.parametrize("padding", PADDINGS[2])
def test_sides(solve, padding):
    for spatial in itertools.product((3, 4, 5, 8), repeat=2):
        solve(Case("conv2d", spatial, (3, 3), 2, 4, 9, padding=padding))


@pytest.mark.parametrize("padding", PADDINGS[3])
def test_volumes(solve, padding):
    for kernel_size in ((1, 3, 3), (1, 1, 3)):
        solve(Case("conv3d", (4, 5, 6), kernel_size, 2, 4, 9, strides=(1, 1, 1), padding=padding))


def test_axes_of_one_tap_may_have_strides(solve):
    solve(Case("conv2d", (7, 8), (1, 3), 2, 4, 9, strides=(2, 1)))
    solve(Case("conv3d", (5, 7, 8), (1, 1, 3), 2, 4, 9, strides=(2, 3, 1)))
    solve(Case("conv3d", (5, 7, 8), (1, 3, 3), 2, 4, 9, strides=(3, 1, 1), padding="same"))


def test_groups_batches_and_lots(solve, dtype):
    for groups in (2, 3, 6):
        solve(case_of(2, 12, 18, groups=groups, dtype=dtype))
    for batch in ((2, 3), 1, 40):
        solve(case_of(2, 4, 6, batch, dtype=dtype))


@pytest.mark.parametrize(
    "changed",
    [
        {"kernel_size": (3, 5)},
        {"kernel_size": (2, 3)},
        {"kernel_size": (3, 1)},
        {"strides": (1, 2)},
        {"strides": (2, 1)},
        {"dilation_rate": (2, 1)},
        {"dilation_rate": (1, 2)},
        {"data_format": "channels_first"},
    ],
    ids=str,
)
def test_what_it_cannot_do_is_computed_as_ever(isa, changed):
    case = dataclasses.replace(Case("conv2d", (14, 15), (3, 3), 3, 16, 33, exact=False), **changed)
    arrays = case.arrays()
    with settings.forced("conv_winograd"), pytest.raises(ValueError, match="conv_winograd cannot do this geometry"):
        case.run(localconv, arrays)
    expected = case.run(localconv, arrays)
    localconv.set_winograd(True)
    assert_same_bits(case.run(localconv, arrays), expected)


def test_kernels_of_fewer_bytes_are_computed_as_ever(isa):
    x, kernel, _ = Case("conv2d", (14, 15), (3, 3), 3, 16, 33, exact=False).arrays()
    for small in (kernel.astype(np.float16), localconv.quantize(kernel)):
        expected = localconv.conv2d(x, small)
        localconv.set_winograd(True)
        assert_same_bits(localconv.conv2d(x, small), expected)
        localconv.set_winograd(False)


def square_bound(case, inputs, kernel):
    """The sum of |w| times the largest pixel near each tap: its square has no pixel more than three away."""
    nearby, padded = abs(inputs), np.pad(abs(inputs), [(0, 0), *[(3, 3)] * case.rank, (0, 0)])
    for shift in itertools.product(range(7), repeat=case.rank):
        place = tuple(slice(first, first + n) for first, n in zip(shift, case.spatial, strict=True))
        nearby = np.maximum(nearby, padded[(slice(None), *place)])
    # Behind the input's ends too, where padding is.
    _, bound = conv(case.rank, nearby, kernel, padding=case.padding, bound=True)
    return bound.max(tuple(range(1, case.rank + 1)), keepdims=True) if case.padding != "valid" else bound


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("rank", SIZES)
def test_error_against_the_largest_pixel_of_a_square(isa, dtype, rank, padding):
    """|A| |G| |B| is 4 along an axis of three taps: the sums that are rounded are so many times what the bound has.

    A product passes through the sums of the channels, and some six along each axis.
    """
    case = case_of(rank, 40, 33, dtype=dtype, exact=False, padding=padding)
    inputs, kernel, _ = case.arrays()
    # Sizes of neighbours that have nothing to do with each other.
    inputs *= (10.0 ** np.random.default_rng(1).uniform(-4, 4, inputs.shape)).astype(dtype)
    axes = min(rank, 2)
    with settings.forced("conv_winograd"):
        result = case.run(localconv, (inputs, kernel, None))
    expected, _ = conv(rank, inputs, kernel, padding=padding, bound=True)
    allowed = 4**axes * tolerance(square_bound(case, inputs, kernel), 40 + 6 * axes, dtype)
    assert (abs(result - expected) <= allowed).all()


@pytest.mark.parametrize("channels", [16, 64, 256])
@pytest.mark.parametrize("rank", SIZES)
def test_error_of_data_of_one_size(isa, dtype, rank, channels):
    """Within four times the bound of the direct algorithm."""
    case = case_of(rank, channels, 17, dtype=dtype, exact=False)
    inputs, kernel, _ = arrays = case.arrays()
    with settings.forced("conv_winograd"):
        result = case.run(localconv, arrays)
    expected, bound = conv(rank, inputs, kernel, bound=True)
    assert (abs(result - expected) <= 4 * tolerance(bound, case.terms, dtype)).all()


@pytest.mark.parametrize("place", [(0, 0), (3, 4), (6, 8)])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_in_its_windows(isa, place, value):
    case = case_of(2, exact=False)
    arrays = case.arrays()
    with settings.forced("conv_winograd"):
        expected = case.run(localconv, arrays)
        arrays[0][0, *place, 2] = value
        result = case.run(localconv, arrays)
    reached = np.zeros(expected.shape, bool)
    rows, columns = (slice(max(0, n - 2), n + 1) for n in place)
    reached[0, rows, columns] = True
    assert not np.isfinite(result[reached]).any()
    np.testing.assert_array_equal(result[~reached], expected[~reached])


def test_bits_do_not_depend_on_threads_or_lots(isa, monkeypatch):
    case = Case("conv2d", (40, 41), (3, 3), 3, 24, 70, exact=False, bias="filters")
    arrays = case.arrays()
    localconv.set_winograd(True)
    localconv.set_num_threads(1)
    expected = case.run(localconv, arrays)
    assert _core.last_run()["algorithm"] == "conv_winograd"
    localconv.set_num_threads(None)
    assert_same_bits(case.run(localconv, arrays), expected)
    for size in (1, 200_000, 10**8):
        monkeypatch.setattr("localconv.core.policy.WINOGRAD_TILES_BYTES", size)
        monkeypatch.setattr("localconv.core.policy.WINOGRAD_STREAM_BYTES", size)
        localconv.core.engine.plans.clear()
        assert_same_bits(case.run(localconv, arrays), expected)
    localconv.core.engine.plans.clear()


@pytest.mark.parametrize(
    ("channels", "filters", "side", "taken"),
    [
        (16, 16, 18, True),
        (32, 24, 34, True),
        (16, 65, 34, True),
        (15, 16, 18, False),
        (16, 15, 18, False),
        (16, 16, 17, False),
        (64, 64, 30, True),
    ],
)
def test_where_it_gains(channels, filters, side, taken):
    x = np.ones((1, side, side, channels), np.float32)
    kernel = np.ones((3, 3, channels, filters), np.float32)
    localconv.conv2d(x, kernel)
    assert _core.last_run()["algorithm"] != "conv_winograd"
    localconv.set_winograd(True)
    localconv.conv2d(x, kernel)
    assert (_core.last_run()["algorithm"] == "conv_winograd") is taken


def test_the_setting():
    assert localconv.winograd() is False
    localconv.set_winograd(True)
    assert localconv.winograd() is True is localconv.core.config.winograd()
    seen = []
    thread = threading.Thread(target=lambda: seen.append(localconv.winograd()))
    thread.start()
    thread.join()
    assert seen == [True]
    # Others keep it.
    settings.set_isa("scalar")
    with settings.forced("conv_direct"):
        assert localconv.winograd()
    assert localconv.winograd()
    for wrong in (1, 0, None, "yes", np.True_):
        with pytest.raises(TypeError, match="allowed must be True or False, got"):
            localconv.set_winograd(wrong)
    assert localconv.winograd()


def test_gradients_are_those_of_the_convolution():
    case = Case("conv2d", (18, 18), (3, 3), 2, 16, 32, exact=False)
    x, kernel, _ = case.arrays()
    gradient = np.ones((2, 16, 16, 32), np.float32)
    expected = (
        localconv.grad.conv2d_input(x.shape, kernel, gradient),
        localconv.grad.conv2d_kernel(x, kernel.shape, gradient),
    )
    localconv.set_winograd(True)
    assert_same_bits(localconv.grad.conv2d_input(x.shape, kernel, gradient), expected[0])
    assert_same_bits(localconv.grad.conv2d_kernel(x, kernel.shape, gradient), expected[1])


def test_layers_use_it_and_keep_its_kernel():
    layer = layers.Conv2D(32, 3, activation="relu")
    x = np.random.default_rng(0).normal(size=(1, 20, 20, 16)).astype(np.float32)
    direct = [layer(x) for _ in range(3)][-1]
    localconv.set_winograd(True)
    for _ in range(4):
        result = layer(x)
        assert _core.last_run()["algorithm"] == "conv_winograd"
        np.testing.assert_allclose(result, direct, rtol=1e-4, atol=1e-4)
    kept = layer._packing._kept[2]
    assert kept is not None
    with settings.forced("conv_winograd"):
        assert_same_bits(result, np.maximum(localconv.conv2d(x, layer.kernel.value, bias=layer.bias.value), 0))
    localconv.set_winograd(False)
    for _ in range(3):
        assert_same_bits(layer(x), direct)
