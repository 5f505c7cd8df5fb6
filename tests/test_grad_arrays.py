"""Gradients of arrays of any form, into an out of any form, on any number of threads."""

import concurrent.futures
import dataclasses
import itertools

import numpy as np
import oracle
import pytest
import ways
from oracle import FORMATS, Case, Gradient, assert_same_bits, gradients
from test_arrays import FORMS, OUT_FORMS, Subclass, gaps, spaced
from test_threads import CPUS, OPENMP

import localconv
from localconv import _core, grad
from localconv.core import settings

CASES = {
    "local_conv1d": Case("local_conv1d", (9,), (3,), 5, 4, 6, padding="same", exact=False),
    "local_conv2d": Case("local_conv2d", (6, 5), (3, 2), 5, 4, 6, padding="same", exact=False),
    "conv1d": Case("conv1d", (9,), (3,), 5, 4, 6, padding="same", exact=False),
    "conv2d": Case("conv2d", (6, 5), (3, 2), 5, 4, 6, strides=2, exact=False),
}


@pytest.fixture(params=[(name, of) for name in CASES for of in ("input", "kernel")], ids="_".join)
def gradient(request, dtype):
    name, of = request.param
    return Gradient(dataclasses.replace(CASES[name], dtype=dtype), of)


@pytest.fixture(params=FORMATS)
def data_format(request):
    return request.param


def every(gradient):
    """The gradient in both formats, for a batch of one and of more, under every algorithm in turn."""
    for data_format, batch in itertools.product(FORMATS, (1, 18)):
        case = dataclasses.replace(gradient.case, batch=batch, data_format=data_format)
        for way in ways.GRADIENTS[case.family]:
            with settings.forced(*way):
                yield Gradient(case, gradient.of)


# --- inputs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_forms(gradient, form, no_change):
    """Each array in turn, then both: the bits are those of plain arrays, and every array stays as it is."""
    for now in every(gradient):
        first, second = now.arrays()
        expected = now.run(grad, (first, second))
        for changed in ((form(first), second), (first, form(second)), (form(first), form(second))):
            with no_change(*changed):
                assert_same_bits(now.run(grad, changed), expected)


def test_result_is_a_plain_new_array(gradient):
    for now in every(gradient):
        arrays = tuple(array.view(Subclass) for array in now.arrays())
        result = now.run(grad, arrays)
        assert type(result) is np.ndarray
        assert result.flags.c_contiguous
        assert result.flags.writeable
        assert not any(np.shares_memory(result, array) for array in arrays)


def test_lists(gradient):
    """Python's floats are float64."""
    if gradient.case.dtype == "float64":
        for now in every(gradient):
            arrays = now.arrays()
            assert_same_bits(now.run(grad, tuple(array.tolist() for array in arrays)), now.run(grad, arrays))


def test_broadcast_arrays(gradient):
    """One gradient for all outputs, as that of a plain sum is, without a copy of it in the caller."""
    for now in every(gradient):
        first, second = now.arrays()
        same = np.broadcast_to(second.ravel()[0], second.shape)
        assert_same_bits(now.run(grad, (first, same)), now.run(grad, (first, same.copy())))


def test_one_array_for_two_arguments(dtype):
    """Inputs may overlap each other."""
    values = np.random.default_rng(0).integers(-8, 9, 60).astype(dtype)
    x, grad_output = values[:20].reshape(1, 10, 2), values[10:26].reshape(1, 8, 2)
    expected = oracle.conv1d_kernel(x, (3, 2, 2), grad_output).astype(dtype)
    np.testing.assert_array_equal(grad.conv1d_kernel(x, (3, 2, 2), grad_output), expected, strict=True)


# --- out --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", OUT_FORMS, ids=lambda form: form.__name__)
def test_out(gradient, form, no_change):
    """Whatever its memory looks like and holds before, out gets the very bits, and is what is returned."""
    for now in every(gradient):
        arrays = now.arrays()
        expected = now.run(grad, arrays)
        out = form(np.full_like(expected, np.nan))
        with no_change(*arrays):
            assert now.run(grad, arrays, out=out) is out
        assert_same_bits(out, expected)
        if form is spaced:
            assert np.isnan(gaps(out)).all()


@pytest.mark.parametrize("form", OUT_FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("name", CASES)
def test_accumulate(dtype, name, form, no_change):
    """The gradient is added to what out holds, whatever its memory looks like; what lies between is left alone."""
    for now in every(Gradient(dataclasses.replace(CASES[name], dtype=dtype), "kernel")):
        arrays = now.arrays()
        start = np.random.default_rng(1).standard_normal(now.shape).astype(dtype)
        out = form(start.copy())
        with no_change(*arrays):
            assert now.run(grad, arrays, out=out, accumulate=True) is out
        now.check(np.array(out), start=start)
        if form is spaced:
            assert np.isnan(gaps(out)).all()
        assert_same_bits(now.run(grad, arrays, out=out, accumulate=False), now.run(grad, arrays))


def test_accumulated_over_a_batch(isa, dtype, data_format):
    """Image by image it is what the whole batch gives; exact values."""
    for name in CASES:
        case = dataclasses.replace(CASES[name], dtype=dtype, data_format=data_format, exact=True)
        whole = Gradient(case, "kernel")
        single = Gradient(dataclasses.replace(case, batch=1), "kernel")
        out = np.zeros(whole.shape, dtype)
        x, grad_output = whole.arrays()
        for image in range(case.batch):
            part = slice(image, image + 1)
            single.run(grad, (x[part], grad_output[part]), out=out, accumulate=True)
        whole.check(out)


@pytest.mark.parametrize("name", CASES)
def test_accumulating_nan_and_inf(isa, dtype, name):
    """What out holds is added to, and only there."""
    for gradient in every(Gradient(dataclasses.replace(CASES[name], dtype=dtype, exact=True), "kernel")):
        start = np.zeros(gradient.shape, dtype)
        start.flat[[0, start.size // 2, start.size - 1]] = np.nan, np.inf, -np.inf
        out = start.copy()
        gradient.run(grad, gradient.arrays(), out=out, accumulate=True)
        gradient.check(out, start=start)


def test_out_of_a_subclass_is_returned_as_it_is(gradient):
    for now in every(gradient):
        expected = now.run(grad, now.arrays())
        out = np.zeros_like(expected).view(Subclass)
        assert now.run(grad, now.arrays(), out=out) is out
        assert_same_bits(np.asarray(out), expected)


def test_memory_error():
    """A small gradient whose input is past memory."""
    huge = 2**46
    kernel, one = np.ones((1, 1, 1), "f4"), np.ones((1, 1, 1), "f4")
    with pytest.raises(MemoryError):
        grad.conv1d_input((1, huge, 1), kernel, one, huge)
    with pytest.raises(MemoryError):
        localconv.local_conv1d_transpose(one, kernel, 1, huge, (1, huge, 1))


# --- threads ----------------------------------------------------------------------------------------------------------

# Enough work for every thread of a small machine, and sizes that divide into no equal shares.
LARGE = {
    "local": [
        Case("local_conv1d", (1201,), (5,), 1, 16, 33, exact=False),
        Case("local_conv1d", (101,), (5,), 37, 16, 33, exact=False, dtype="float64"),
        Case("local_conv2d", (61, 67), (3, 3), 19, 3, 5, exact=False, padding="same", data_format="channels_first"),
    ],
    "conv": [
        Case("conv1d", (10_011,), (5,), 1, 16, 33, exact=False),
        Case("conv2d", (41, 47), (3, 3), 3, 16, 65, strides=2, exact=False, padding="same", dtype="float64"),
        Case("conv2d", (61, 67), (3, 3), 3, 16, 20, groups=2, exact=False, data_format="channels_first"),
        Case("conv2d", (7, 9), (3, 3), 1, 128, 128, exact=False, padding="same", dtype="float64"),
        Case("conv1d", (90_003,), (3,), 1, 2, 3, exact=False),
    ],
}
LARGE_CHOICES = [(case, way) for family, cases in LARGE.items() for case in cases for way in ways.GRADIENTS[family]]


@pytest.mark.parametrize(
    ("case", "way"), LARGE_CHOICES, ids=lambda value: getattr(value, "function", None) or ways.name(value)
)
@pytest.mark.parametrize("of", ["input", "kernel"])
def test_same_bits_for_any_number_of_threads(isa, case, way, of):
    """Added to what out holds too."""
    gradient = Gradient(case, of)
    arrays, results, sums, ran = gradient.arrays(), [], [], []
    start = np.random.default_rng(1).standard_normal(gradient.shape).astype(case.dtype)
    with settings.forced(*way):
        for threads in (1, 2, 3):
            localconv.set_num_threads(threads)
            _core.forget_stalls()
            results.append(gradient.run(grad, arrays))
            ran.append(_core.last_run()["threads" if settings.COLUMNS in way else "team"])
            if of == "kernel":
                sums.append(gradient.run(grad, arrays, out=start.copy(), accumulate=True))
    assert ran == [min(threads, CPUS) if OPENMP else 1 for threads in (1, 2, 3)]
    for result in results[1:]:
        assert_same_bits(result, results[0])
    for result in sums[1:]:
        assert_same_bits(result, sums[0])


@pytest.mark.parametrize("family", LARGE)
def test_same_bits_again(isa, family):
    """Nothing depends on which thread came first."""
    for case in LARGE[family]:
        for gradient in gradients(case):
            arrays = gradient.arrays()
            expected = gradient.run(grad, arrays)
            for _ in range(3):
                assert_same_bits(gradient.run(grad, arrays), expected)


def test_concurrent_calls(isa):
    """Several Python threads, each with cases of its own, small and large, and its own check of the values."""
    local = [Case("local_conv1d", (100 + n,), (3,), n, n, 3 * n, padding="same", seed=n) for n in range(1, 9)]
    conv = [Case("conv2d", (10, 15 + n), (3, 3), 2, n, 5 * n, seed=n) for n in range(1, 9)]
    work = [(gradient, gradient.arrays()) for case in local + conv for gradient in gradients(case)]

    def run(offset):
        for number in range(offset, offset + 2 * len(work)):
            gradient, arrays = work[number % len(work)]
            gradient.check(gradient.run(grad, arrays))
        return True

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert all(pool.map(run, range(6)))


@pytest.mark.parametrize("name", ["local_conv1d", "conv1d"])
def test_input_of_padding_alone(name):
    """No pixels, but windows of padding: an empty gradient for the input, and one of zeros for the kernel."""
    kernel, grad_output = (
        np.ones((4, 1, 2) if "local" in name else (1, 1, 2), np.float32),
        np.ones((3, 4, 2), np.float32),
    )
    options = {"strides": 1, "padding": ((3, 1),), "data_format": "channels_last"} | (
        {"kernel_size": 1} if "local" in name else {}
    )
    for_input = getattr(grad, f"{name}_input")((3, 0, 1), kernel, grad_output, **options)
    assert for_input.shape == (3, 0, 1)
    for_kernel = getattr(grad, f"{name}_kernel")(np.zeros((3, 0, 1), np.float32), kernel.shape, grad_output, **options)
    np.testing.assert_array_equal(for_kernel, np.zeros_like(kernel))
