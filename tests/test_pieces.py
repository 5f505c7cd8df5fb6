"""Windows that unshared convolution sums piece by piece: all tiles of a position before the next piece.

Where the cuts lie must not show, not in one bit: a sum goes on from where the piece before has left it.
"""

import itertools

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
import stored
from hypothesis import given
from oracle import FORMATS, Case

import localconv
from localconv import _core
from localconv.core import engine, geometry, policy, settings
from localconv.core.arrays import SINGLE
from localconv.core.spec import local_spec


@pytest.fixture
def cut(monkeypatch):
    """Has windows cut after so many steps, however small the kernel; 0: never."""

    def into(steps):
        monkeypatch.setattr(policy, "caches", policy.caches._replace(first=1 if steps else 2**60))
        monkeypatch.setattr(policy, "PIECE", steps)
        engine.plans.clear()

    yield into
    engine.plans.clear()


def pieces_of(spec, shape, kernel):
    """The steps of a piece in the plan for these shapes; 0: windows are whole."""
    g = geometry.geometry_of(spec, shape, kernel)
    return policy.plan("local_forward", g, SINGLE, settings.current(), 2).piece


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("batch", [7, 9, 15, 20])
def test_values(solve, cut, dtype, batch, data_format):
    """Cuts inside runs, at their ends, after every step, and of windows that padding clips."""
    shared = {"batch": batch, "data_format": data_format, "dtype": dtype, "bias": "full"}
    for steps, filters in itertools.product((1, 4, 7, 12, 34), (1, 5, 17, 40)):
        cut(steps)
        solve(Case("local_conv1d", (8,), (5,), channels=7, filters=filters, padding="same", **shared))
    cut(5)
    solve(Case("local_conv2d", (6, 5), (3, 2), channels=4, filters=34, groups=2, dilation_rate=(2, 1), **shared))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("kernel", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, "int8"], ids=str)
def test_no_bit_changes(isa, cut, kernel, data_format):
    """Of no value, infinities and NaN among them, whatever the kernel is stored in."""
    rng = np.random.default_rng(5)
    for batch, groups in itertools.product((7, 16, 20), (1, 2)):
        shape = (batch, 9, 10) if data_format == "channels_last" else (batch, 10, 9)
        filters = 36 // groups * groups
        x = rng.standard_normal(shape).astype(np.float64 if kernel is np.float64 else np.float32)
        x[0, 0, 0], x[1, 2, 3] = np.inf, np.nan
        weights = (9, 30 // groups, filters)
        w = stored.exact_quantized(weights) if kernel == "int8" else rng.standard_normal(weights).astype(kernel)
        results = []
        for steps in (0, 1, 3, 8, 29):
            cut(steps)
            same = {"padding": "same", "groups": groups, "data_format": data_format}
            results.append(localconv.local_conv1d(x, w, 3, **same).tobytes())
        assert len(set(results)) == 1


@pytest.mark.parametrize("data_format", FORMATS)
def test_relu_is_after_the_last_piece(isa, cut, data_format):
    rng = np.random.default_rng(6)
    layer = localconv.layers.LocallyConnected1D(37, 3, activation="relu", data_format=data_format)
    x = rng.standard_normal((9, 9, 10) if data_format == "channels_last" else (9, 10, 9)).astype(np.float32)
    results = []
    for steps in (0, 4):
        cut(steps)
        results.append(layer(x))
    assert results[0].tobytes() == results[1].tobytes()
    assert (results[0] == 0).any()
    assert (results[0] > 0).any()


@given(
    batch=st.integers(7, 40),
    taps=st.integers(1, 6),
    channels=st.integers(1, 40),
    filters=st.integers(1, 70),
    steps=st.integers(1, 50),
    data_format=st.sampled_from(FORMATS),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_sizes(batch, taps, channels, filters, steps, data_format, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, 7, channels) if data_format == "channels_last" else (batch, channels, 7))
    kernel = rng.standard_normal((8 - taps, taps * channels, filters))
    x, kernel = x.astype(np.float32), kernel.astype(np.float32)
    results = []
    for first, piece in ((2**60, steps), (1, steps)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(policy, "caches", policy.caches._replace(first=first))
            patch.setattr(policy, "PIECE", piece)
            engine.plans.clear()
            results.append(localconv.local_conv1d(x, kernel, taps, data_format=data_format).tobytes())
    engine.plans.clear()
    assert results[0] == results[1]


def test_when(isa, cut):
    """Of kernels larger than the first-level cache that more than one tile of images reads; in equal parts."""
    spec = local_spec(1, 5, 1, "valid", "channels_last", 1, 1)
    one_tile = _core.tile_limits(isa, 0)[2][-1]
    with settings.forced("local_stream"):
        for images, filters, piece in ((one_tile, 64, 0), (one_tile + 1, 64, 80), (one_tile + 1, 8, 0)):
            assert pieces_of(spec, (images, 1000, 64), (996, 320, filters)) == piece
        cut(0)
        assert pieces_of(spec, (one_tile + 1, 1000, 64), (996, 320, 64)) == 0


def test_what_cannot_go_on_with_a_sum(isa, cut):
    """Dot products, and depthwise windows, whose tiles have no place for one: they are whole, or refused."""
    cut(3)
    x, kernel = np.ones((9, 8, 4), np.float32), np.ones((6, 12, 1), np.float32)
    with settings.forced("local_dot"):
        np.testing.assert_array_equal(localconv.local_conv1d(x, kernel, 3), np.full((9, 6, 1), 12, np.float32))
    depthwise = local_spec(1, 5, 1, "valid", "channels_last", 1, 32)
    assert pieces_of(depthwise, (20, 20, 32), (16, 5, 32)) == 0
    one_filter = geometry.geometry_of(local_spec(1, 3, 1, "valid", "channels_last", 1, 1), x.shape, kernel.shape)
    whole = {"vectors": 1, "block": (1, 1, 1), "batch_tile": 4, "batch_chunk": 12, "filter_parts": 1}
    assert _core.Job(one_filter, isa, 0, 0, "local_dot", whole, 1).piece == 0
    with pytest.raises(_core.Refused):
        _core.Job(one_filter, isa, 0, 0, "local_dot", whole | {"piece": 3}, 1)
    with pytest.raises(_core.Refused):
        _core.Job(one_filter, isa, 0, 0, "local_stream", whole | {"piece": -1}, 1)
