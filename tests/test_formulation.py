"""The formulation in array operations, with NumPy for its namespace: every way to cut it into pieces has the
values of the compiled kernels, that of filters that come with the data has the twin's, and what meets padding is in no
sum."""

import math
import tracemalloc

import numpy as np
import pytest
from formulated import formulated, wild_where_absent
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from operations import draw_filter_case
from oracle import FILTER_ROLES, FORMATS, FilterCase

from localconv.core import engine
from localconv.core.formulation import Piece, by_tap, forward, grad_input, grad_input_by_axes, grad_kernel, whole
from localconv.core.spec import conv_spec, local_spec
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
    np.testing.assert_array_equal(grad_input_by_axes(np, piece, kernel, gradient), found[1])


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
    expected = engine.grad_input(spec, x.shape, kernel, gradient)
    np.testing.assert_array_equal(grad_input(np, whole(convolution), wild, gradient, zeros_for), expected)
    np.testing.assert_array_equal(grad_input_by_axes(np, whole(convolution), wild, gradient), expected)
    gradient[:] = np.inf
    with np.errstate(invalid="ignore"):
        found = grad_kernel(np, whole(convolution), np.abs(x) + 1, gradient, np.where)
    np.testing.assert_array_equal(found == 0, outside)


# --- filters that come with the data ----------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.randoms(use_true_random=False), st.sampled_from(list(FILTER_ROLES)))
def test_filters(rng, kind):
    case = draw_filter_case(rng, kind, rng.randint(1, 3))
    case.check(formulated(np, case, case.arrays()))


@settings(max_examples=100)
@given(st.randoms(use_true_random=False), st.sampled_from(list(FILTER_ROLES)), st.sampled_from([np.nan, np.inf]))
def test_no_filter_outside_is_multiplied(rng, kind, value):
    case = draw_filter_case(rng, kind, rng.randint(1, 3))
    case.check(formulated(np, case, wild_where_absent(case, case.arrays(), value)))


@settings(max_examples=100)
@given(st.randoms(use_true_random=False), st.sampled_from(list(FILTER_ROLES)), st.data())
def test_specials_reach_what_holds_them(rng, kind, data):
    """Also in images: what a tap does not meet at a position makes no NaN there."""
    case = draw_filter_case(rng, kind, rng.randint(1, 3))
    arrays = case.arrays()
    for array in arrays.values():
        flat = array.reshape(-1)
        flat[data.draw(st.integers(0, flat.size - 1))] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    with np.errstate(invalid="ignore"):
        case.check(formulated(np, case, arrays), arrays)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("kind", FILTER_ROLES)
def test_filters_of_no_image_and_of_none_inside(kind, data_format):
    """Sums of nothing are zeros, of the right shapes."""
    for case in (
        FilterCase(kind, (6, 5), (3, 2), 0, 4, padding="same", data_format=data_format),
        FilterCase(kind, (6, 5), (3, 2), 0, 4, padding="inside", data_format=data_format),
        FilterCase(kind, (1, 3), (1, 2), 2, 4, strides=5, padding=((1, 3), (1, 1)), data_format=data_format),
    ):
        result = formulated(np, case, case.arrays())
        case.check(result)
        assert not result.any() or case.batch


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("kind", FILTER_ROLES)
def test_sums_in_the_type_that_is_loaded(kind, data_format):
    """Operands of 16 bits, whose sums and products do not fit 16 bits."""
    case = FilterCase(kind, (9, 8), (5, 5), 3, 40, padding="same", one=True, data_format=data_format)
    arrays = {name: 8 * array.astype(np.float16) for name, array in case.arrays().items()}
    result = formulated(np, case, arrays, load=lambda part: part.astype(np.float32))
    case.check(result, {name: array.astype(np.float32) for name, array in arrays.items()})


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", ["same", "inside"])
@pytest.mark.parametrize("kind", FILTER_ROLES)
def test_memory_does_not_grow_with_the_window(kind, padding, data_format):
    """A few arrays of the largest size that a result or an image has; all windows would take 81 of them."""
    case = FilterCase(kind, (60, 50), (9, 9), 1, 64, padding=padding, data_format=data_format)
    arrays = case.arrays()
    image, result = (math.prod(case.shapes()[name]) * 4 for name in ("inputs", case.role.makes))
    tracemalloc.start()
    try:
        formulated(np, case, arrays)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * image + 3 * (result if case.role.makes == "filters" else 0)


def test_the_same_filters_at_all_positions_are_a_convolution():
    """No twin is asked: a depthwise convolution by the compiled kernels."""
    rng = np.random.default_rng(0)
    x, kernel = rng.integers(-8, 9, (2, 9, 8, 6)).astype("f"), rng.integers(-8, 9, (3, 2, 1, 6)).astype("f")
    case = FilterCase("local_filter", (9, 8), (3, 2), 2, 6, groups=6, padding="same")
    filters = np.broadcast_to(kernel[:, :, 0].transpose(2, 0, 1).reshape(-1), case.shapes()["filters"])
    spec = conv_spec(2, 1, "same", "channels_last", 1, 6)
    found = formulated(np, case, {"inputs": x, "filters": filters})
    np.testing.assert_array_equal(found, engine.forward(spec, x, kernel))
