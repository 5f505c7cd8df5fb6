"""Values: the oracle's, and forward the very bits of the functions for NumPy, however the arrays are cut."""

import dataclasses
import io
import random

import dask
import dask.array as da
import dask_cases
import ml_dtypes
import numpy as np
import oracle
import pytest
from dask.diagnostics import ProgressBar
from dask_cases import chunked
from hypothesis import given, settings
from oracle import Case, Gradient

import localconv
import localconv.dask as ld
from localconv import _core

PADDED = Case("local_conv2d", (9, 7), (3, 2), 4, 4, 6, strides=(2, 1), padding=((7, 1), (0, 3)), groups=2, exact=False)


def check_meta(array, value):
    """What dask says of an array before it is computed is what comes."""
    assert (array.shape, array.dtype) == (value.shape, value.dtype)
    assert type(array._meta) is np.ndarray
    assert array._meta.dtype == value.dtype
    for index in np.ndindex(array.numblocks):
        assert array.blocks[index].compute().shape == array.blocks[index].shape


def forward(drawn, **options):
    return getattr(ld, drawn.case.function)(drawn.x, drawn.kernel, **(drawn.case.options() | options))


def of_input(drawn):
    name = f"{drawn.case.function}_input"
    return getattr(ld.grad, name)(drawn.x.shape, drawn.kernel, drawn.gradient, **drawn.case.options())


def of_kernel(drawn):
    name = f"{drawn.case.function}_kernel"
    return getattr(ld.grad, name)(drawn.x, drawn.kernel.shape, drawn.gradient, **drawn.case.options())


@given(chunked())
@settings(max_examples=300)
def test_forward_has_the_bits_of_one_call(drawn):
    x, kernel, bias, _ = drawn.arrays()
    result = forward(drawn, bias=bias)
    value = result.compute()
    oracle.assert_same_bits(value, drawn.case.run(localconv, (x, kernel, bias)))
    assert (result.shape, result.dtype) == (value.shape, value.dtype)


@given(chunked(filters=1, groups=1, channels=5))
@settings(max_examples=150)
def test_one_filter_has_the_bits_of_one_call(drawn):
    """Few images of one filter are dot products, which sum in an order of their own."""
    x, kernel, bias, _ = drawn.arrays()
    oracle.assert_same_bits(forward(drawn, bias=bias).compute(), drawn.case.run(localconv, (x, kernel, bias)))


@pytest.mark.parametrize(
    ("filters", "batch", "size", "dots"), [(1, 2, 30, True), (1, 40, 30, True), (1, 40, 1, False), (3, 2, 30, False)]
)
def test_parts_are_summed_as_the_whole(filters, batch, size, dots):
    """One filter and one image at a time: dot products only if the whole is a matter of these."""
    case = Case("local_conv1d", (size + 10,), (size,), batch, 4, filters, exact=False)
    x, kernel, _ = case.arrays()
    whole = case.run(localconv, (x, kernel, None))
    parts = da.from_array(x, chunks=(1, -1, -1)), da.from_array(kernel, chunks=(3, -1, 1))
    result = ld.local_conv1d(*parts, size, 1, "channels_last").compute()
    assert (_core.last_run()["algorithm"] == "local_dot") is dots
    oracle.assert_same_bits(result, whole)


@given(chunked())
@settings(max_examples=150)
def test_gradients(drawn):
    for of, result in (("input", of_input(drawn)), ("kernel", of_kernel(drawn))):
        value = result.compute()
        Gradient(drawn.case, of).check(value)
        assert (result.shape, result.dtype) == (value.shape, value.dtype)


@pytest.mark.parametrize("data_format", oracle.FORMATS)
@pytest.mark.parametrize("bias", ["filters", "full"])
@pytest.mark.parametrize("in_dask", [False, True], ids=["numpy", "dask"])
def test_bias(data_format, bias, in_dask):
    case = dataclasses.replace(PADDED, data_format=data_format, bias=bias)
    drawn = dask_cases.in_chunks(random.Random(1), case)
    x, kernel, b, _ = drawn.arrays()
    given_bias = da.from_array(b, chunks=(2,) * b.ndim) if in_dask else b
    result = forward(drawn, bias=given_bias)
    oracle.assert_same_bits(result.compute(), case.run(localconv, (x, kernel, b)))
    check_meta(result, result.compute())


@pytest.mark.parametrize("data_format", oracle.FORMATS)
def test_what_is_known_before_computing(data_format):
    drawn = dask_cases.in_chunks(random.Random(2), dataclasses.replace(PADDED, data_format=data_format))
    for result in (forward(drawn), of_input(drawn), of_kernel(drawn)):
        check_meta(result, result.compute())
    first = data_format == "channels_first"
    width = drawn.case.out[1]
    rows = tuple(positions // width for positions in drawn.kernel.chunks[0])
    assert forward(drawn).chunks[2 if first else 1] == rows
    assert forward(drawn).chunks[1 if first else 3] == drawn.kernel.chunks[2]
    assert forward(drawn).chunks[0] == drawn.x.chunks[0]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits(dtype):
    """Rounded once: sums that go on in another task are float32."""
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    drawn = dask_cases.in_chunks(random.Random(3), PADDED)
    x, kernel, _, gradient = (None if array is None else array.astype(kind) for array in drawn.arrays())
    small = dataclasses.replace(
        drawn, x=drawn.x.astype(kind), kernel=drawn.kernel.astype(kind), gradient=drawn.gradient.astype(kind)
    )
    oracle.assert_same_bits(forward(small).compute(), PADDED.run(localconv, (x, kernel, None)))
    wide = [array.astype(np.float32) for array in (x, kernel, gradient)]
    of_x, of_k = Gradient(PADDED, "input"), Gradient(PADDED, "kernel")
    found = of_input(small)
    assert found.dtype == kind
    _, exact, bound, terms = of_x.solution((wide[1], wide[2]))
    # float32's bound, and half a unit in the last place of 16 bits.
    unit = float(ml_dtypes.finfo(kind).eps) / 2
    limit = oracle.tolerance(bound, terms, np.float32) * (1 + unit) + unit * abs(exact)
    assert (abs(found.compute().astype(np.float64) - exact) <= limit).all()
    result = of_kernel(small).compute()
    assert result.dtype == np.float32
    of_k.check(result, (wide[0], wide[2]))


def test_errstate_changes_nothing():
    """Windows of two chunks meet the same rows, and their sums are past the largest number."""
    kernel = da.ones((8, 3, 1), chunks=(2, -1, -1), dtype=np.float32)
    gradient = da.full((1, 8, 1), 1.5e38, chunks=(1, 2, 1), dtype=np.float32)
    with np.errstate(all="raise"):
        found = ld.grad.local_conv1d_input((1, 10, 1), kernel, gradient, 3, 1).compute(scheduler="sync")
    assert np.isinf(found[0, 2:8]).all()


@pytest.mark.parametrize(("first", "second"), [("float16", "float32"), ("float32", "float64"), (">f4", "float32")])
def test_dtypes_promote_as_in_numpy(first, second):
    drawn = dask_cases.in_chunks(random.Random(4), PADDED)
    x, kernel, _, gradient = drawn.arrays()
    mixed = dataclasses.replace(drawn, x=drawn.x.astype(first), kernel=drawn.kernel.astype(second))
    expected = PADDED.run(localconv, (x.astype(first), kernel.astype(second), None))
    oracle.assert_same_bits(forward(mixed).compute(), expected)
    mixed = dataclasses.replace(drawn, gradient=drawn.gradient.astype(first), kernel=drawn.kernel.astype(second))
    expected = Gradient(PADDED, "input").run(localconv.grad, (kernel.astype(second), gradient.astype(first)))
    assert of_input(mixed).dtype == of_input(mixed).compute().dtype == expected.dtype


def test_nothing_is_computed_before_it_is_asked_for():
    def never(block):
        raise AssertionError("computed")

    drawn = dask_cases.in_chunks(random.Random(5), PADDED)
    lazy = dataclasses.replace(
        drawn,
        **{
            name: getattr(drawn, name).map_blocks(never, dtype=np.float32, meta=np.empty((0,) * rank, np.float32))
            for name, rank in (("x", 4), ("kernel", 3), ("gradient", 4))
        },
    )
    for result in (forward(lazy), of_input(lazy), of_kernel(lazy)):
        with pytest.raises(AssertionError, match="computed"):
            result.compute()


def test_only_the_rows_travel_that_windows_reach():
    """A task at the edge of a chunk takes a cut of its neighbour, and the kernel's chunks go to one task each."""
    case = Case("local_conv2d", (32, 8), (3, 3), 2, 2, 4, padding="same", exact=False)
    x, kernel, _ = case.arrays()
    dx, dk = da.from_array(x, chunks=(2, 8, -1, -1)), da.from_array(kernel, chunks=(64, -1, -1))
    result = ld.local_conv2d(dx, dk, 3, 1, None, "channels_last", padding="same")
    tasks = dict(result.dask)
    cuts = [key for key in tasks if key[0].startswith("local_conv2d_rows")]
    assert {value.shape for value in dask.get(tasks, cuts)} == {(2, 1, 8, 2)}
    assert len(cuts) == 2 * (4 - 1)
    users = [key for key, needed in result.dask.get_all_dependencies().items() if (dk.name, 2, 0, 0) in needed]
    assert users == [(result.name, 0, 2, 0, 0)]


def test_progress_bars_work():
    drawn = dask_cases.in_chunks(random.Random(9), PADDED)
    for result in (forward(drawn), of_input(drawn), of_kernel(drawn)):
        shown = io.StringIO()
        with ProgressBar(out=shown):
            result.compute(scheduler="threads")
        assert "100% Completed" in shown.getvalue()


@pytest.mark.parametrize("shape", [(0, 9, 3), (2, 9, 3)])
def test_no_images_and_empty_chunks(shape):
    batch = (0, *([1] * shape[0]), 0)
    x, kernel = da.ones(shape, chunks=(batch, (5, 0, 4), 3)), da.ones((7, 9, 4), chunks=(3, 9, 2))
    gradient = da.ones((shape[0], 7, 4), chunks=(batch, (0, 3, 4), 4))
    options = {"kernel_size": 3, "data_format": "channels_last"}
    np.testing.assert_array_equal(ld.local_conv1d(x, kernel, **options), np.full((shape[0], 7, 4), 9.0))
    found = ld.grad.local_conv1d_kernel(x, kernel.shape, gradient, **options).compute()
    np.testing.assert_array_equal(found, np.full((7, 9, 4), float(shape[0])))
    found = ld.grad.local_conv1d_input(shape, kernel, gradient, **options).compute()
    expected = localconv.grad.local_conv1d_input(shape, np.ones((7, 9, 4)), np.ones((shape[0], 7, 4)), **options)
    np.testing.assert_array_equal(found, expected)


def test_kernel_gradients_are_cut_where_they_are_large():
    drawn = dask_cases.in_chunks(random.Random(6), dataclasses.replace(PADDED, groups=1))
    row = drawn.case.out[1] * drawn.case.depth * drawn.case.filters * 4
    gradient = drawn.gradient.rechunk(-1)
    with dask.config.set({"array.chunk-size": 2 * row}):
        result = of_kernel(dataclasses.replace(drawn, gradient=gradient))
    rows = drawn.case.out[0]
    width = drawn.case.out[1]
    assert result.chunks[0] == (2 * width,) * (rows // 2) + (width,) * (rows % 2)
    Gradient(drawn.case, "kernel").check(result.compute())


def test_kernel_gradients_are_summed_over_a_few_images_at_a_time():
    """Where their rows are many: each task goes on with a copy of the last one's sum, which may be asked for again."""
    drawn = dask_cases.in_chunks(random.Random(12), dataclasses.replace(PADDED, batch=5))
    x = drawn.x.rechunk({0: (1, 2, 2)})
    with dask.config.set({"array.chunk-size": "1 B"}):
        result = of_kernel(dataclasses.replace(drawn, x=x))
    tasks = dict(result.dask)
    chain = [key for key in tasks if key[0] == f"{result.name}_images"]
    assert len(chain) == 2 * result.npartitions
    final = [(result.name, *index) for index in np.ndindex(result.numblocks)]
    values = dask.get(tasks, [*chain, *final])
    Gradient(drawn.case, "kernel").check(result.compute())
    again = dask.get(tasks, chain)
    for first, second in zip(values, again, strict=False):
        oracle.assert_same_bits(first, second)


def test_arrays_stay_as_they_are(no_change):
    drawn = dask_cases.in_chunks(random.Random(7), PADDED)
    blocks = [dask.compute(array)[0] for array in (drawn.x, drawn.kernel, drawn.gradient)]
    again = dataclasses.replace(
        drawn,
        x=da.from_array(blocks[0], chunks=drawn.x.chunks),
        kernel=da.from_array(blocks[1], chunks=drawn.kernel.chunks),
        gradient=da.from_array(blocks[2], chunks=drawn.gradient.chunks),
    )
    with no_change(*blocks):
        dask.compute(forward(again), of_input(again), of_kernel(again))


def test_what_meets_padding_does_nothing():
    """Whatever the kernel's rows hold there, in a band that lies in padding too; and their gradient is 0."""
    case = Case("local_conv1d", (6,), (3,), padding=((5, 4),))
    x, kernel, _ = case.arrays()
    wild = np.where(case.rows_present()[:, :, None], kernel, np.float32(np.nan))
    weights = da.from_array(wild, chunks=(2, -1, -1))
    case.check(ld.local_conv1d(da.from_array(x), weights, **case.options()).compute())
    ones = da.ones((case.batch, *case.out, case.filters), dtype=np.float32, chunks=(1, 2, 4))
    found = ld.grad.local_conv1d_input(x.shape, weights, ones, **case.options()).compute()
    Gradient(case, "input").check(found, (kernel, np.ones(ones.shape, np.float32)))
    found = ld.grad.local_conv1d_kernel(da.from_array(abs(x) + 1), kernel.shape, ones, **case.options()).compute()
    np.testing.assert_array_equal(found != 0, np.broadcast_to(case.rows_present()[:, :, None], kernel.shape))
