"""Windows that are moved until they lie inside the input, along one axis."""

import itertools

import numpy as np
import pytest

from localconv.core.geometry import convolution_of
from localconv.core.spec import filter_spec
from localconv.core.windows import Axis, all_inside, axes_of, filters_shape, output_of

SIZES = [(n, k, d) for n, k, d in itertools.product(range(1, 16), range(1, 6), range(1, 4)) if n >= k * d]


def moved(n, taps, dilation):
    (axis,) = axes_of(filter_spec(1, taps, 1, "inside", "channels_last", dilation, 1), (n,))
    return axis


def pixels(n, k, d):
    """By position, as neighborhood attention defines them."""
    found = []
    for p in range(n):
        r, q = p % d, p // d
        m = len(range(r, n, d))
        s = min(max(q - k // 2, 0), m - k)
        found.append([r + (s + t) * d for t in range(k)])
    return found


@pytest.mark.parametrize(("n", "k", "d"), SIZES)
def test_where_moved_windows_lie(n, k, d):
    axis, expected = moved(n, k, d), pixels(n, k, d)
    assert axis == Axis(n, n, k, 1, d, 0, True)
    assert [[axis.pixel(p, t) for t in range(k)] for p in range(n)] == expected
    shown = axis.pixel(np.arange(n)[:, None], np.arange(k))
    np.testing.assert_array_equal(shown, expected)
    assert all_inside((axis,), (np.arange(n)[:, None],), (np.arange(k),)).all()
    assert axis.after == 0
    assert [axis.positions_of(t) for t in range(k)] == [(0, n)] * k


@pytest.mark.parametrize(("n", "k", "d"), SIZES)
def test_what_moved_windows_meet(n, k, d):
    """Some taps at some positions: from the first pixel to the last, and no padding."""
    axis, expected = moved(n, k, d), np.array(pixels(n, k, d))
    for start, end in itertools.combinations(range(n + 1), 2):
        for first, last in itertools.combinations(range(k + 1), 2):
            met = expected[start:end, first:last]
            assert axis.met((start, end), (first, last)) == ((met.min(), met.max() + 1), (0, 0))
        assert axis.met((start, end)) == axis.met((start, end), (0, k))
    assert axis.met((0, 0)) == ((0, 0), (0, 0))


def test_windows_that_have_room_are_not_moved():
    """In the middle they are those of 'same', for odd sizes."""
    inside, padded = moved(20, 5, 2), Axis(20, 20, 5, 1, 2, 4)
    middle = np.arange(4, 16)[:, None]
    np.testing.assert_array_equal(inside.pixel(middle, np.arange(5)), padded.pixel(middle, np.arange(5)))


@pytest.mark.parametrize("padding", ["inside", "same"])
def test_an_output_for_every_pixel(padding):
    spec = filter_spec(3, (3, 1, 2), 1, padding, "channels_first", 1, 2)
    assert output_of(spec, (4, 5, 6)) == (4, 5, 6)
    assert filters_shape(spec, 7, output_of(spec, (4, 5, 6))) == (7, 12, 4, 5, 6)


def test_a_convolution_of_filters_is_checked():
    spec = filter_spec(2, 3, 1, "inside", "channels_last", 2, 2)
    found = convolution_of(spec, (6, 7), 4, 4)
    assert (found.output, found.positions, found.output_shape(5)) == ((6, 7), 42, (5, 6, 7, 4))
    with pytest.raises(ValueError, match="kernel_size"):
        convolution_of(spec, (5, 7), 4, 4)
    with pytest.raises(ValueError, match="groups"):
        convolution_of(spec, (6, 7), 5, 5)
