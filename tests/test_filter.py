"""Filters that come with the data: local_filter, local_correlation and their gradients, on every instruction set and by
every algorithm.

A case is one of the six functions (`oracle.FILTER_ROLES`). Tests of sizes go over the three that the core has, which
the others are by other names.
"""

import dataclasses
import itertools
import os
import sys

import hypothesis
import numpy as np
import oracle
import pytest
import stored
import ways
from fuzz_values import bits
from hypothesis import given
from hypothesis import strategies as st
from operations import draw_filter_case
from oracle import FILTER_ROLES, FILTERS, FORMATS, PADDINGS, FilterCase, assert_same_bits, thirds

import localconv
from localconv import _core, grad
from localconv.core import engine, policy, settings

KINDS = tuple(FILTER_ROLES)
# Those that the core has: the others are one of them with other names.
SUMS = ("local_filter", "local_filter_input", "local_filter_filters")
WAYS = [(), *ways.ALL["filter"]]
ISAS = _core.available_isas()

each_kind, each_sum = pytest.mark.parametrize("kind", KINDS), pytest.mark.parametrize("kind", SUMS)
each_format = pytest.mark.parametrize("data_format", FORMATS)


def module_of(case):
    return grad if case.role.shape else localconv


def run(case, arrays=None, **options):
    return case.run(module_of(case), arrays, **options)


@pytest.fixture(params=ways.ALL["filter"], ids=ways.name)
def filter_way(request):
    with settings.forced(*request.param):
        yield request.param


@pytest.fixture
def solve(isa):
    """Runs a case and checks the values, and by the kernel's own record that this isa computed them."""

    def solved(case, arrays=None):
        result = run(case, arrays)
        case.check(result, arrays)
        ran = _core.last_run()
        assert (ran["operation"], ran["isa"], ran["dtype"]) == (case.operation, isa, result.dtype.name)
        return result

    return solved


# --- sizes ------------------------------------------------------------------------------------------------------------


@each_sum
@each_format
@pytest.mark.parametrize("counts", thirds(FILTERS), ids=str)
def test_channel_counts(solve, dtype, filter_way, kind, data_format, counts):
    """Of one group: vectors and tiles that are full and not."""
    for channels in counts:
        solve(FilterCase(kind, (9,), (3,), 2, channels, padding="same", data_format=data_format, dtype=dtype))
        solve(FilterCase(kind, (5, 8), (3, 2), 1, channels, data_format=data_format, dtype=dtype))


@each_sum
@each_format
@pytest.mark.parametrize("groups", [2, 5, 16])
def test_groups(solve, dtype, filter_way, kind, data_format, groups):
    """Each with filters of its own, for channels that fill no vector, and for one alone."""
    for channels in (1, 3, 8):
        shared = {"groups": groups, "data_format": data_format, "dtype": dtype}
        solve(FilterCase(kind, (4, 11), (3, 3), 2, groups * channels, padding="same", **shared))
        solve(FilterCase(kind, (9,), (4,), 1, groups * channels, padding="inside", **shared))


@each_sum
@each_format
def test_line_widths(solve, dtype, filter_way, kind, data_format):
    """Positions around those of a few vectors, of which windows hold one, a few or all."""
    for width, channels in itertools.product((1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 50), (1, 3, 16)):
        shared = {"data_format": data_format, "dtype": dtype}
        solve(FilterCase(kind, (width,), (3,), 1, channels, padding="same", **shared))
        solve(FilterCase(kind, (2, width), (1, 5), 1, channels, padding="same", **shared))


@each_sum
@each_format
def test_window_sizes(solve, dtype, filter_way, kind, data_format):
    """From one tap to hundreds, wider than a vector and higher than the image."""
    for size, channels in itertools.product([(1, 1), (1, 2), (4, 1), (5, 5), (7, 7), (1, 40), (11, 9)], (1, 4, 18)):
        for padding in ("same", ((2, 1), (0, 3))):
            spatial = tuple(max(k - 2, 6) for k in size)
            case = FilterCase(kind, spatial, size, 1, channels, padding=padding, data_format=data_format, dtype=dtype)
            if min(case.out) > 0:
                solve(case)


@each_sum
@each_format
def test_batches(solve, dtype, filter_way, kind, data_format):
    """With filters of their own, and those of one image for all, whose gradient is summed over the images."""
    for batch, one, channels in itertools.product((1, 2, 3, 17), (False, True), (2, 20)):
        shared = {"one": one, "data_format": data_format, "dtype": dtype}
        solve(FilterCase(kind, (6, 5), (3, 3), batch, channels, groups=2, padding="same", **shared))
        solve(FilterCase(kind, (9,), (3,), batch, channels, padding="inside", **shared))


@each_sum
@each_format
@pytest.mark.parametrize("padding", [*PADDINGS[1], "inside"], ids=str)
def test_geometry_1d(solve, dtype, filter_way, kind, data_format, padding):
    """Strides below, at and above the window's size and reach."""
    for number, (strides, dilation, size) in enumerate(itertools.product((1, 2, 4), (1, 3), (1, 2, 3))):
        if padding != "inside" or strides == 1:
            steps = {"strides": strides, "dilation_rate": dilation, "groups": 1 + number % 2, "padding": padding}
            solve(FilterCase(kind, (29,), (size,), 2, 6, data_format=data_format, dtype=dtype, **steps))


@each_sum
@each_format
@pytest.mark.parametrize("padding", [*PADDINGS[2], "inside"], ids=str)
def test_geometry_2d(solve, dtype, filter_way, kind, data_format, padding):
    steps = ((1, 1), (1, (2, 1)), (1, (1, 3)), ((2, 3), 1), ((3, 2), 2))
    for (strides, dilation), (size, groups) in itertools.product(steps, (((2, 2), 1), ((1, 3), 3), ((3, 2), 3))):
        if padding != "inside" or strides == 1:
            steps_of = {"strides": strides, "dilation_rate": dilation, "groups": groups, "padding": padding}
            solve(FilterCase(kind, (7, 9), size, 2, 6, data_format=data_format, dtype=dtype, **steps_of))


@each_sum
@each_format
@pytest.mark.parametrize("padding", [*PADDINGS[3], "inside"], ids=str)
def test_geometry_3d(solve, dtype, filter_way, kind, data_format, padding):
    for strides, dilation in ((1, 1), (1, (1, 2, 1)), ((1, 2, 2), 1), ((2, 1, 3), (1, 1, 2))):
        if padding != "inside" or strides == 1:
            steps = {"strides": strides, "dilation_rate": dilation, "groups": 2, "padding": padding}
            solve(FilterCase(kind, (4, 4, 6), (3, 2, 3), 1, 6, data_format=data_format, dtype=dtype, **steps))


@each_sum
@each_format
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_inside(solve, dtype, filter_way, kind, data_format, dilation):
    """Windows of even and odd sizes, of axes from the shortest on: also where the phases have not as many pixels."""
    for size, more in itertools.product((1, 2, 3, 4, 5), (0, 1, 2, 5)):
        shared = {"padding": "inside", "dilation_rate": dilation, "data_format": data_format, "dtype": dtype}
        n = size * dilation + more
        solve(FilterCase(kind, (n,), (size,), 2, 5, **shared))
        solve(FilterCase(kind, (3 * dilation, n), (3, size), 1, 16, groups=2, **shared))


@each_sum
@each_format
def test_rounding(solve, dtype, filter_way, kind, data_format):
    """Values that fill the mantissa, against the wider twin: no more error than the sums' own rounding."""
    for seed, (batch, channels, groups, one) in enumerate([(1, 5, 1, False), (4, 66, 2, True), (2, 40, 40, False)]):
        shared = {"one": one, "data_format": data_format, "dtype": dtype, "exact": False, "seed": seed}
        solve(FilterCase(kind, (40,), (19,), batch, channels, groups, padding="same", **shared))
        solve(FilterCase(kind, (8, 9), (5, 3), batch, channels, groups, padding="inside", **shared))


@each_kind
def test_no_images(kind):
    """An empty batch, and the gradient for filters of one image for all that no image adds to."""
    for one in (False, True):
        case = FilterCase(kind, (6, 5), (3, 2), 0, 4, one=one)
        result = run(case)
        assert result.shape == case.shapes()[case.role.makes]
        assert not result.any()


# --- what is in no sum ------------------------------------------------------------------------------------------------

NOT_ALL_INSIDE = ["same", ((2, 1), (0, 3)), ((4, 5), (3, 4))]


@each_format
@pytest.mark.parametrize("padding", NOT_ALL_INSIDE, ids=str)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "filters" in FILTER_ROLES[kind].arrays.values()])
def test_filters_that_meet_no_pixel_do_nothing(solve, dtype, filter_way, kind, data_format, padding):
    """NaN and inf in them; the twin leaves these products out."""
    for channels, groups, strides in ((1, 1, 1), (18, 2, 1), (40, 1, 1), (6, 3, (2, 1))):
        shared = {"padding": padding, "strides": strides, "data_format": data_format, "dtype": dtype}
        case = FilterCase(kind, (4, 21), (3, 2), 2, channels, groups, **shared)
        arrays, argument = case.arrays(), argument_of(case, "filters")
        absent = ~case.present()
        assert absent.any()
        arrays[argument][absent] = np.where(np.arange(absent.sum()) % 2, np.nan, np.inf)
        assert np.isfinite(solve(case, arrays)).all()


def argument_of(case, array):
    """What a function calls one of the three arrays."""
    return next(argument for argument, name in case.role.arrays.items() if name == array)


@each_format
@pytest.mark.parametrize("padding", NOT_ALL_INSIDE, ids=str)
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["local_correlation", "local_filter_filters"])
def test_correlations_with_no_pixel(isa, dtype, filter_way, kind, data_format, padding, wrong):
    """Exactly 0, or what out held, even where everything else is NaN or inf."""
    for channels, groups in ((1, 1), (18, 2), (40, 1)):
        shared = {"padding": padding, "data_format": data_format, "dtype": dtype}
        case = FilterCase(kind, (4, 21), (3, 2), 2, channels, groups, **shared)
        arrays, present = {name: np.full_like(a, wrong) for name, a in case.arrays().items()}, case.present()
        result = run(case, arrays)
        assert (result[~present] == 0).all()
        assert not np.isfinite(result[present]).any()
        if kind == "local_filter_filters":
            out = np.full_like(result, 7)
            run(case, arrays, out=out, accumulate=True)
            assert (out[~present] == 7).all()
            assert not np.isfinite(out[present]).any()


@each_sum
@each_format
@pytest.mark.parametrize("padding", ["valid", "same", "inside"])
@pytest.mark.parametrize("place", [0, 1])
def test_nan_and_inf(solve, dtype, filter_way, kind, data_format, padding, place):
    """They reach exactly the elements whose sums hold them; the values hold zeros too, and 0 * inf is NaN."""
    for channels, groups in ((1, 1), (3, 1), (6, 2), (34, 2)):
        shared = {"padding": padding, "data_format": data_format, "dtype": dtype}
        case = FilterCase(kind, (11, 20), (3, 3), 1, channels, groups, **shared)
        arrays = case.arrays()
        flat = list(arrays.values())[place].reshape(-1)
        flat[np.linspace(0, flat.size - 2, 9).astype(int)] = 3 * [np.nan, np.inf, -np.inf]
        result = solve(case, arrays)
        assert 0 < np.isfinite(result).sum() < result.size


@each_sum
def test_nothing_is_left_of_an_earlier_call(solve, dtype, filter_way, kind):
    """Workspaces and lanes that one call filled with NaN do not reach the next, whose tiles are not full."""
    for channels, columns in ((1, 3), (3, 13), (19, 3), (33, 29)):
        full = FilterCase(kind, (9, 64), (3, 3), 2, 64, dtype=dtype)
        run(full, {name: np.full_like(array, np.nan) for name, array in full.arrays().items()})
        solve(FilterCase(kind, (4, columns), (3, 3), 1, channels, padding="same", dtype=dtype))


# --- dtypes -----------------------------------------------------------------------------------------------------------


@each_kind
@each_format
@pytest.mark.parametrize("half", stored.HALVES, ids=str)
def test_filters_of_16_bits(isa, filter_way, kind, data_format, half):
    """Beside arrays in float32 they are read as they are: the result has the bits that widened ones give."""
    for channels, groups, padding in ((1, 1, "same"), (3, 1, "inside"), (32, 2, "same"), (17, 1, "valid")):
        case = FilterCase(kind, (8, 37), (3, 3), 2, channels, groups, padding=padding, data_format=data_format)
        case = dataclasses.replace(case, exact=False)
        arrays = case.arrays()
        for name in [name for name in arrays if name != "inputs"]:
            small = arrays | {name: arrays[name].astype(half)}
            before = bits(small)
            result = run(case, small)
            assert result.dtype == np.float32
            assert_same_bits(result, run(case, stored.all_widened(small)))
            assert bits(small) == before


@each_kind
@pytest.mark.parametrize("half", stored.HALVES, ids=str)
def test_every_value_of_16_bits(isa, filter_way, kind, half):
    """Subnormals, infinities and NaN too."""
    case = FilterCase(kind, (64, 64), (4, 4), 1, 16)
    arrays = case.arrays()
    name = list(arrays)[1] if kind != "local_filter_input" else "filters"
    values = np.resize(stored.every_value(half), arrays[name].shape)
    with np.errstate(all="ignore"):
        expected = run(case, arrays | {name: values.astype(np.float32)})
        stored.assert_same_numbers(run(case, arrays | {name: values}), expected)


# --- out, and what it holds -------------------------------------------------------------------------------------------


@each_format
def test_accumulate(isa, dtype, filter_way, data_format):
    """Twice, into what is no zero, of filters of their own and of those of one image."""
    for channels, groups, one in itertools.product((1, 3, 24), (1, 3), (False, True)):
        if channels % groups == 0:
            shared = {"one": one, "padding": "same", "data_format": data_format, "dtype": dtype}
            case = FilterCase("local_filter_filters", (5, 18), (3, 3), 3, channels, groups, **shared)
            start = np.random.default_rng(1).integers(-8, 9, case.shapes()["filters"]).astype(dtype)
            out = start.copy()
            assert run(case, out=out, accumulate=True) is out
            case.check(out, start=start)
            before = out.copy()
            assert run(case, out=out, accumulate=True) is out
            case.check(out, start=before)


@each_kind
def test_out_of_other_strides(isa, kind):
    """It is written where it lies, and nothing beside it."""
    case = FilterCase(kind, (6, 19), (3, 3), 2, 8, groups=2, padding="same")
    expected = run(case)
    room = np.full((*expected.shape[:-1], 2 * expected.shape[-1]), 7, expected.dtype)
    out = room[..., ::2]
    assert run(case, out=out) is out
    assert_same_bits(out.copy(), expected)
    assert (room[..., 1::2] == 7).all()


# --- identities that need no twin -------------------------------------------------------------------------------------


@each_format
def test_one_pixel_moves_the_image(isa, data_format):
    """A filter that holds a single 1 moves the image."""
    x = np.random.default_rng(0).standard_normal((2, 6, 7, 5)).astype("float32")
    filters = np.zeros((1, 6, 7, 9), "float32")
    filters[..., 2] = 1  # the tap above and to the right
    expected = np.pad(x, ((0, 0), (1, 0), (0, 1), (0, 0)))[:, :-1, 1:]
    if data_format == "channels_first":
        x, filters, expected = (np.ascontiguousarray(np.moveaxis(a, -1, 1)) for a in (x, filters, expected))
    found = localconv.local_filter2d(x, filters, 3, 1, data_format, padding="same")
    np.testing.assert_array_equal(found, expected)


def test_depthwise_filters_are_local_conv(isa):
    """One channel a group and one image: the unshared convolution of as many groups."""
    rng = np.random.default_rng(0)
    x = rng.integers(-8, 9, (1, 8, 9, 6)).astype("float32")
    filters = rng.integers(-8, 9, (1, 6, 8, 54)).astype("float32")
    kernel = filters.reshape(48, 6, 9).swapaxes(1, 2)
    found = localconv.local_filter2d(x, filters, (3, 3), (1, 1), "channels_last", padding=((0, 0), (0, 1)), groups=6)
    expected = localconv.local_conv2d(x, kernel, (3, 3), 1, None, "channels_last", padding=((0, 0), (0, 1)), groups=6)
    np.testing.assert_array_equal(found, expected)


@given(st.randoms(use_true_random=False), st.sampled_from(ISAS), st.integers(1, 3), st.sampled_from(WAYS))
def test_gradients_are_adjoint(rng, isa, threads, forced):
    """<filter(x, w), g> = <x, gradient> = <w, gradient>, in exact integers: no twin is asked."""
    case = draw_filter_case(rng, "local_filter", rng.randint(1, 3))
    settings.set_isa(isa)
    localconv.set_num_threads(threads)
    x, w = case.arrays().values()
    g = np.random.default_rng(case.seed + 1).integers(-8, 9, case.shapes()["output"]).astype(case.dtype)
    with settings.forced(*forced):
        output = run(case)
        of_input = run(dataclasses.replace(case, kind="local_filter_input"), {"filters": w, "grad_output": g})
        of_filters = run(dataclasses.replace(case, kind="local_filter_filters"), {"inputs": x, "grad_output": g})
    expected = np.vdot(output.astype("i8"), g.astype("i8"))
    assert np.vdot(of_input.astype("i8"), x.astype("i8")) == expected
    assert np.vdot(of_filters.astype("i8"), w.astype("i8")) == expected


# --- how work is cut --------------------------------------------------------------------------------------------------


@hypothesis.settings(max_examples=200)
@given(
    st.randoms(use_true_random=False),
    st.sampled_from(KINDS),
    st.sampled_from(ISAS),
    st.sampled_from(WAYS),
    st.sampled_from([1, 3, 40, 600, 5000]),
)
def test_values_and_bits_however_work_is_cut(rng, kind, isa, forced, limit):
    """Into tasks for four threads and with workspaces that few positions fill."""
    case = dataclasses.replace(draw_filter_case(rng, kind, rng.randint(1, 3)), exact=rng.random() < 0.5)
    settings.set_isa(isa)
    with settings.forced(*forced):
        localconv.set_num_threads(1)
        expected = run(case)
        case.check(expected)
        with pytest.MonkeyPatch.context() as patch:
            for name in ("PRODUCTS_PER_THREAD", "PRODUCTS_PER_TASK", "BOX_TARGET", "SEGMENT_TARGET"):
                patch.setattr(policy, name, min(limit, 40) if name.startswith("PRODUCTS") else limit)
            engine.plans.clear()
            localconv.set_num_threads(4)
            try:
                assert_same_bits(run(case), expected)
            finally:
                engine.plans.clear()


PEAK = """
import resource, sys
import numpy as np
import localconv
from localconv.core import settings
from oracle import FilterCase
forced, threads, small, large = map(eval, sys.argv[1:])
localconv.set_num_threads(threads)
unit = 2**20 if sys.platform == "darwin" else 2**10
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
def run(case, **options):
    shapes = case.shapes()
    arrays = {argument: np.ones(shapes[name], "float32") for argument, name in case.role.arrays.items()}
    out = np.ones(shapes[case.role.makes], "float32")
    before = peak()
    case.run(localconv.grad if case.role.shape else localconv, arrays, out=out)
    return peak() - before
with settings.forced(*forced):
    run(small)
    print(run(large))
"""
LARGE = [  # many channels and few, of 60 to 250 MB
    ((700, 600), (3, 3), 1, 32, 2, "channels_last"),
    ((700, 600), (5, 5), 1, 3, 1, "channels_last"),
    ((500, 400), (7, 7), 1, 24, 1, "channels_first"),
    ((700, 600), (9, 9), 1, 1, 1, "channels_first"),
]


@pytest.mark.skipif(sys.platform == "win32", reason="the standard library tells no peak of memory there")
@each_kind
@pytest.mark.parametrize("forced", WAYS, ids=ways.name)
def test_workspace_is_bounded(python, kind, forced):
    """2 MiB a thread; 4 MiB are for the allocators and stacks."""
    for threads, (spatial, size, batch, channels, groups, data_format) in zip((1, 2, 1, 2), LARGE, strict=True):
        shared = {"padding": "same", "data_format": data_format}
        large = FilterCase(kind, spatial, size, batch, channels, groups, **shared)
        small = dataclasses.replace(large, spatial=(40, 41))
        arguments = map(repr, (forced, threads, small, large))
        assert float(python(PEAK, *arguments, PYTHONPATH=os.path.dirname(oracle.__file__))) <= 4 + 2 * threads


# Filters in a sparse file, of which a few hold other values than zero. Anonymous memory is limited, so that a copy of
# them, or of a good part of them, would be a MemoryError.
STREAMED = """
import resource, sys
import numpy as np
import localconv
path, dtype, data_format, limit, positions, taps = *sys.argv[1:4], *map(int, sys.argv[4:7])
if sys.platform == "linux":
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
last = data_format == "channels_last"
filters = np.memmap(path, dtype, "r", shape=(1, positions, taps) if last else (1, taps, positions))
image = np.random.default_rng(0).integers(1, 9, (positions + taps - 1, 4)).astype("float32")
x = image[None] if last else np.ascontiguousarray(image.T)[None]
result = localconv.local_filter1d(x, filters, taps, 1, data_format)[0]
expected = np.zeros((positions, 4), "float32")
for place in map(int, sys.argv[7:]):
    position, tap = divmod(place, taps) if last else divmod(place, positions)[::-1]
    expected[position] += 3 * image[position + tap]
assert np.array_equal(result if last else result.T, expected)
print("right")
"""


def check_streaming(python, path, dtype, data_format, positions, taps, limit):
    """Marked are both ends, and both sides of the byte offsets and element numbers that 31 and 32 bits end at."""
    size, itemsize = positions * taps, np.dtype(dtype).itemsize
    ends = [0, 1, size // 3, size - 1] + [2**n + one for n in range(26, 33) for one in (-1, 0)]
    marked = sorted({place for place in ends if place < size})
    with open(path, "wb") as file:
        file.truncate(size * itemsize)
        for place in marked:
            file.seek(place * itemsize)
            file.write(np.array(3, dtype).tobytes())
    try:
        arguments = path, dtype, data_format, limit, positions, taps, *marked
        assert python(STREAMED, *arguments, timeout=600) == "right\n"
    finally:
        path.unlink()


ntfs = pytest.mark.skipif(sys.platform == "win32", reason="NTFS would write all the zeros of the file to the disk")


@ntfs
@pytest.mark.memory
@each_format
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_maps_are_streamed(python, tmp_path, dtype, data_format):
    """Filters of 512 MiB where a process may have less of its own."""
    taps = 128 if dtype == "float32" else 256
    check_streaming(python, tmp_path / "filters.raw", dtype, data_format, 2**20, taps, 400 * 2**20)


@ntfs
@pytest.mark.big
def test_filters_of_more_than_2_31_elements(python, tmp_path):
    check_streaming(python, tmp_path / "filters.raw", "float16", "channels_last", 2**21 + 3, 1025, 2**30)
