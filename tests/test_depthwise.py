"""Depthwise convolution, every channel with a filter of its own: all operations, on every instruction set.

With a pixel's channels side by side, register tiles take channels in their lanes; other layouts and several filters for
a channel go group by group.
"""

import itertools

import numpy as np
import pytest
from oracle import FILTERS, FORMATS, PADDINGS, Case, gradients

import localconv
from localconv import _core
from localconv.core import settings

FUNCTIONS = [f"{family}conv{rank}d" for family in ("local_", "") for rank in (1, 2, 3)]
SIZES = {1: ((13,), (3,)), 2: ((5, 7), (2, 3)), 3: ((4, 5, 6), (2, 1, 3))}


def depthwise(function, channels, batch=3, **more):
    """A case of as many groups, channels and filters."""
    size, kernel_size = SIZES[int(function[-2])]
    return Case(function, size, kernel_size, batch, channels, channels, groups=channels, **more)


@pytest.mark.parametrize("channels", [n for n in FILTERS if n > 1])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_channel_counts(solve, solve_gradients, dtype, function, channels):
    for batch in (1, 6):
        case = depthwise(function, channels, batch, dtype=dtype)
        solve(case)
        assert _core.last_run()["algorithm"] in _core.CHANNEL_LANES
        solve_gradients(case)
        assert _core.last_run()["algorithm"] in _core.CHANNEL_LANES


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_geometries(solve, solve_gradients, dtype, function, data_format):
    for padding, (strides, dilation) in itertools.product(PADDINGS[int(function[-2])], ((1, 1), (2, 1), (1, 2))):
        steps = {"padding": padding, "strides": strides, "dilation_rate": dilation, "data_format": data_format}
        if padding == "causal" and function.startswith("local"):
            continue
        case = depthwise(function, 19, dtype=dtype, **steps)
        solve(case)
        solve_gradients(case)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_two_filters_for_every_channel(solve, solve_gradients, function):
    size, kernel_size = SIZES[int(function[-2])]
    case = Case(function, size, kernel_size, 3, 5, 10, groups=5)
    solve(case)
    solve_gradients(case)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_bits_of_every_channel_alone(isa, function):
    """As much as one channel gives alone: nothing crosses the lanes, and the order of sums is the same."""
    case = depthwise(function, 21, 2, exact=False)
    x, kernel, *_ = case.arrays()
    whole = case.run(localconv, case.arrays())
    one = Case(function, *SIZES[int(function[-2])], 2, 1, 2)  # two filters, so that no dot product is taken
    for channel in (0, 7, 20):
        weights = np.repeat(kernel[..., channel : channel + 1], 2, -1)
        alone = one.run(localconv, (x[..., channel : channel + 1], weights, None))
        assert (whole[..., channel] == alone[..., 0]).all()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_nothing_spreads(isa, function):
    """An infinity and a NaN stay in their channels."""
    case = depthwise(function, 21, 2)
    x, kernel, *_ = case.arrays()
    clean = case.run(localconv, (x, kernel, None))
    x = x.copy()
    x[..., 3], x[..., 18] = np.inf, np.nan
    result = case.run(localconv, (x, kernel, None))
    others = [c for c in range(21) if c not in (3, 18)]
    assert (result[..., others] == clean[..., others]).all()
    assert not np.isfinite(result[..., 18]).any()


@pytest.mark.parametrize(
    "name", ["local_rows", "local_images", "local_input_buffered", "conv_lines", "conv_narrow", "columns"]
)
def test_algorithms_that_go_group_by_group(isa, name):
    """Forced, they give the same."""
    case = depthwise("local_conv2d" if name.startswith("local") else "conv2d", 9, 17)
    with settings.forced(name):
        if name in ("local_rows", "local_images", "conv_lines", "columns"):
            case.check(case.run(localconv, case.arrays()))
        if name in ("local_input_buffered", "conv_narrow", "columns"):
            for_input = gradients(case)[0]
            for_input.check(for_input.run(localconv.grad, for_input.arrays()))
    assert _core.last_run()["algorithm"] not in _core.CHANNEL_LANES


def test_forced_where_it_cannot_be(isa):
    with settings.forced("local_dot"), pytest.raises(ValueError, match="cannot do this geometry"):
        depthwise("local_conv2d", 9).run(localconv, depthwise("local_conv2d", 9).arrays())
