"""The formulation in array operations, with NumPy for its namespace: every way to cut it into pieces has the
values of the compiled kernels, and what meets padding is in no sum."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from localconv.core import engine
from localconv.core.formulation import Piece, by_tap, forward, grad_input, grad_kernel, whole
from localconv.core.spec import local_spec
from localconv.core.windows import Convolution


def zeros_for(products, shape):
    return np.zeros(shape)


@st.composite
def convolutions(draw):
    rank, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    size, strides, dilation = (tuple(draw(st.integers(1, n)) for _ in range(rank)) for n in (3, 3, 2))
    pairs = tuple((draw(st.integers(0, 5)), draw(st.integers(0, 5))) for _ in range(rank))
    padding, data_format = draw(st.sampled_from(["valid", "same", pairs])), draw(st.sampled_from(["first", "last"]))
    spatial = tuple(draw(st.integers(1, 6)) for _ in range(rank))
    spec = local_spec(rank, size, strides, padding, f"channels_{data_format}", dilation, groups)
    convolution = Convolution(spec, spatial, 2 * groups, 3 * groups)
    assume(min(convolution.output) > 0)
    return convolution


def arrays(convolution, seed=0):
    """An input, a kernel and a gradient of the output: small whole numbers, whose sums are exact in any order."""
    rng = np.random.default_rng(seed)
    shapes = convolution.input_shape(2), convolution.kernel_shape, convolution.output_shape(2)
    return [rng.integers(-4, 5, shape).astype(float) for shape in shapes]


def halves(convolution):
    """The convolution in two pieces, each at half of the positions."""
    first, *others = whole(convolution).positions
    middle = (first[0] + first[1]) // 2
    cuts = [(first[0], middle), (middle, first[1])]
    return [Piece(convolution, (cut, *others), whole(convolution).taps) for cut in cuts]


def pieces_of(convolution):
    return [whole(convolution)], by_tap(convolution), halves(convolution)


@given(convolutions())
def test_values(convolution):
    x, kernel, gradient = arrays(convolution)
    expected = engine.forward(convolution.spec, x, kernel)
    for pieces in pieces_of(convolution):
        np.testing.assert_array_equal(forward(np, pieces, x, kernel), expected)
    piece, spec = whole(convolution), convolution.spec
    found = grad_kernel(np, piece, x, gradient, np.where), grad_input(np, piece, kernel, gradient, zeros_for)
    np.testing.assert_array_equal(found[0], engine.grad_kernel(spec, x, kernel.shape, gradient))
    np.testing.assert_array_equal(found[1], engine.grad_input(spec, x.shape, kernel, gradient))


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("number", range(3))
def test_padding_is_in_no_sum(number, data_format):
    """Neither a kernel's rows that meet padding, nor gradients that do, make NaN of what they are not in."""
    spec = local_spec(2, 3, 2, ((2, 1), (1, 3)), data_format, 1, 1)
    convolution = Convolution(spec, (4, 5), 2, 3)
    x, kernel, gradient = arrays(convolution)
    outside = grad_kernel(np, whole(convolution), np.ones_like(x), np.ones_like(gradient), np.where) == 0
    assert outside.any()
    pieces = pieces_of(convolution)[number]
    wild = np.where(outside, np.nan, kernel)
    np.testing.assert_array_equal(forward(np, pieces, x, wild), engine.forward(spec, x, kernel))
    found = grad_input(np, whole(convolution), wild, gradient, zeros_for)
    np.testing.assert_array_equal(found, engine.grad_input(spec, x.shape, kernel, gradient))
    gradient[:] = np.inf
    with np.errstate(invalid="ignore"):
        found = grad_kernel(np, whole(convolution), np.abs(x) + 1, gradient, np.where)
    np.testing.assert_array_equal(found == 0, outside)
