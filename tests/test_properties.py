"""Hypothesis over geometry: every function against its twin, and identities that need no twin."""

import contextlib
import dataclasses

import hypothesis
import numpy as np
import oracle
import pytest
import ways
from hypothesis import given
from hypothesis import strategies as st
from oracle import FORMATS, Case, assert_same_bits, gradients

import localconv
from localconv import _core, grad
from localconv.core import columns, engine, policy, settings


@st.composite
def windows(draw, rank, local):
    """Sizes, steps and padding that leave at least one output, as the fields of a Case."""
    kernel = draw(st.tuples(*[st.integers(1, 4)] * rank))
    strides = draw(st.tuples(*[st.integers(1, 4)] * rank))
    dilation = draw(st.tuples(*[st.integers(1, 3)] * rank))
    if not local and max(strides) > 1:
        dilation = (1,) * rank
    pairs = st.tuples(*[st.tuples(st.integers(0, 6), st.integers(0, 6))] * rank)
    padding = draw(st.sampled_from(["valid", "same", *(["causal"] if rank == 1 else [])]) | pairs)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    least = [r - sum(p) for r, p in zip(reach, padding, strict=True)] if isinstance(padding, tuple) else reach
    least = [1] * rank if padding in ("same", "causal") else least
    spatial = tuple(max(1, n) + draw(st.integers(0, {1: 9, 2: 5, 3: 2}[rank])) for n in least)
    return {
        "spatial": spatial,
        "kernel_size": kernel,
        "strides": strides,
        "dilation_rate": dilation,
        "padding": padding,
    }


@st.composite
def cases(draw, local, exact=None):
    rank = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    biases = [None, "filters", *(["full"] if local else [])]
    return Case(
        f"{'local_' if local else ''}conv{rank}d",
        batch=draw(st.integers(1, 9) | st.sampled_from([14, 16, 17, 31, 33])),
        channels=groups * draw(st.integers(1, 6)),
        filters=groups * draw(st.integers(1, 9) | st.sampled_from([16, 17, 32, 33, 65])),
        groups=groups,
        data_format=draw(st.sampled_from(FORMATS)),
        bias=draw(st.sampled_from(biases)),
        dtype=draw(st.sampled_from(["float32", "float64"])),
        exact=draw(st.booleans()) if exact is None else exact,
        seed=draw(st.integers(0, 2**32 - 1)),
        **draw(windows(rank, local)),
    )


isas = st.sampled_from(_core.available_isas())


def choices(family):
    """How to force the algorithm: each of them, or none."""
    return st.sampled_from([(), *ways.FORWARD[family]])


def check(case, isa, forced):
    settings.set_isa(isa)
    with settings.forced(*forced):
        result = case.run(localconv, case.arrays())
        ran = _core.last_run()
        out = np.full_like(result, np.nan)
        assert case.run(localconv, case.arrays(), out=out) is out
    case.check(result)
    assert_same_bits(out, result)
    assert (ran["isa"], ran["dtype"]) == (isa, case.dtype)


@hypothesis.settings(max_examples=400)
@given(cases(local=True), isas, choices("local"))
def test_local(case, isa, forced):
    check(case, isa, forced)


@hypothesis.settings(max_examples=400)
@given(cases(local=False), isas, choices("conv"))
def test_conv(case, isa, forced):
    check(case, isa, forced)


@given(cases(local=False, exact=True), isas)
def test_local_with_the_same_kernel_everywhere_is_conv(case, isa):
    """Explicit pairs make the two paddings one."""
    settings.set_isa(isa)
    firsts_and_lasts = [(int(axis[0, 0]), int(axis[-1, -1])) for axis in case.taps]
    pairs = [(-first, max(0, last - n + 1)) for (first, last), n in zip(firsts_and_lasts, case.spatial, strict=True)]
    case = dataclasses.replace(case, padding=tuple(pairs))
    x, kernel, bias = case.arrays()
    patch = kernel if case.data_format == "channels_last" else np.moveaxis(kernel, -2, 0)
    repeated = np.repeat(patch.reshape(1, case.depth, case.filters), np.prod(case.out), axis=0)
    local = dataclasses.replace(case, function=f"local_{case.function}")
    shared = case.run(localconv, (x, kernel, bias))
    np.testing.assert_array_equal(local.run(localconv, (x, repeated, bias)), shared, strict=True)


@given(st.booleans().flatmap(lambda local: cases(local, exact=True)), isas)
def test_linear(case, isa):
    """In the input, in the kernel and in the bias; integers, so that it holds to the bit."""
    settings.set_isa(isa)
    x, kernel, bias = case.arrays()
    y, other, _ = dataclasses.replace(case, seed=case.seed + 1).arrays()

    def run(*arrays):
        return case.run(localconv, arrays)

    plain = run(x, kernel, None)
    np.testing.assert_array_equal(run(3 * x - y, kernel, None), 3 * plain - run(y, kernel, None))
    np.testing.assert_array_equal(run(x, 3 * kernel - other, None), 3 * plain - run(x, other, None))
    np.testing.assert_array_equal(run(x, kernel, bias), plain + run(np.zeros_like(x), kernel, bias))


@given(cases(local=False, exact=True), isas)
def test_patches(case, isa):
    """im2col is its twin; col2im is im2col's adjoint: <im2col(x), c> = <x, col2im(c)>, in exact integers."""
    settings.set_isa(isa)
    names = ("kernel_size", "strides", "padding", "data_format", "dilation_rate")
    options = {name: getattr(case, name) for name in names}
    x = case.arrays()[0]
    cols = localconv.im2col(x, **options)
    assert_same_bits(cols, oracle.im2col(x, **options))
    weights = np.random.default_rng(case.seed).integers(-8, 9, cols.shape).astype(case.dtype)
    image = localconv.col2im(weights, x.shape, **options)
    assert np.vdot(cols.astype("i8"), weights.astype("i8")) == np.vdot(x.astype("i8"), image.astype("i8"))
    assert image.dtype == case.dtype
    out = np.full_like(image, np.nan)
    assert localconv.col2im(weights, x.shape, **options, out=out) is out
    assert_same_bits(out, image)
    out = np.full_like(cols, np.nan)
    assert localconv.im2col(x, **options, out=out) is out
    assert_same_bits(out, cols)


# --- NaN and inf ------------------------------------------------------------------------------------------------------

# (which array, where in it, what)
specials = st.lists(
    st.tuples(st.integers(0, 2), st.floats(0, 1, exclude_max=True), st.sampled_from([np.nan, np.inf, -np.inf])),
    min_size=1,
    max_size=4,
)


def with_specials(arrays, places):
    """Copies of the arrays that hold these values."""
    copies = [None if array is None else array.copy() for array in arrays]
    for which, where, value in places:
        array = copies[which % len(copies)]
        if array is not None and array.size:
            array.reshape(-1)[int(where * array.size)] = value
    return tuple(copies)


@hypothesis.settings(max_examples=300)
@given(
    st.booleans().flatmap(lambda local: st.tuples(cases(local, exact=True), choices("local" if local else "conv"))),
    isas,
    specials,
)
def test_specials_reach_what_holds_them(case_and_forced, isa, places):
    """NaN and inf in any array come out just where the twin has them: what is not in a sum is not multiplied."""
    case, forced = case_and_forced
    settings.set_isa(isa)
    arrays = with_specials(case.arrays(), places)
    with settings.forced(*forced):
        result = case.run(localconv, arrays)
    with np.errstate(invalid="ignore"):
        case.check(result, arrays)


# --- gradients --------------------------------------------------------------------------------------------------------


def gradient_choices(family):
    """How to force the gradients' algorithms: each of them, or none."""
    return st.sampled_from([(), *ways.GRADIENTS[family]])


any_case_to_differentiate = st.booleans().flatmap(
    lambda local: st.tuples(cases(local), gradient_choices("local" if local else "conv"))
)


@hypothesis.settings(max_examples=400)
@given(any_case_to_differentiate, isas)
def test_gradients(case_and_forced, isa):
    """Equal to the twins, and the same bits in an out that held something else."""
    case, forced = case_and_forced
    settings.set_isa(isa)
    for gradient in gradients(case):
        with settings.forced(*forced):
            result = gradient.run(grad, gradient.arrays())
            ran = _core.last_run()
            out = np.full_like(result, np.nan)
            assert gradient.run(grad, gradient.arrays(), out=out) is out
        gradient.check(result)
        assert_same_bits(out, result)
        if case.rows_present().any():  # else there is nothing to compute
            assert (ran["isa"], ran["dtype"]) == (isa, case.dtype)


@hypothesis.settings(max_examples=500)
@given(any_case_to_differentiate, isas, specials)
def test_specials_reach_the_gradients_that_hold_them(case_and_forced, isa, places):
    """As `test_specials_reach_what_holds_them`."""
    case, forced = case_and_forced
    settings.set_isa(isa)
    for gradient in gradients(dataclasses.replace(case, exact=True)):
        arrays = with_specials(gradient.arrays(), places)
        with settings.forced(*forced):
            result = gradient.run(grad, arrays)
        gradient.check(result, arrays)


@given(any_case_to_differentiate, isas)
def test_accumulated_gradients(case_and_forced, isa):
    """Twice into what is no zero."""
    case, forced = case_and_forced
    settings.set_isa(isa)
    gradient = gradients(case)[1]
    start = np.random.default_rng(case.seed).integers(-8, 9, gradient.shape).astype(case.dtype)
    out = start.copy()
    with settings.forced(*forced):
        assert gradient.run(grad, gradient.arrays(), out=out, accumulate=True) is out
        gradient.check(out, start=start)
        start = out.copy()
        assert gradient.run(grad, gradient.arrays(), out=out, accumulate=True) is out
    gradient.check(out, start=start)


@hypothesis.settings(max_examples=400)
@given(any_case_to_differentiate, isas, st.integers(1, 3))
def test_gradients_are_adjoint(case_and_forced, isa, threads):
    """<conv(x), g> = <x, input gradient> = <kernel, kernel gradient>, in exact integers: no twin is asked."""
    case, forced = case_and_forced
    case = dataclasses.replace(case, exact=True, bias=None)
    settings.set_isa(isa)
    localconv.set_num_threads(threads)
    of_input, of_kernel = gradients(case)
    x, grad_output = of_kernel.arrays()
    kernel = of_input.arrays()[0]
    with settings.forced(*forced):
        output = case.run(localconv, (x, kernel, None))
        by_input = of_input.run(grad, (kernel, grad_output))
        by_kernel = of_kernel.run(grad, (x, grad_output))
    expected = integer_product(output, grad_output)
    assert integer_product(x, by_input) == expected
    assert integer_product(kernel, by_kernel) == expected


def integer_product(a, b):
    return np.vdot(a.astype("i8"), b.astype("i8"))


@given(any_case_to_differentiate, isas)
def test_transposed_convolution_is_the_gradient(case_and_forced, isa):
    case, forced = case_and_forced
    settings.set_isa(isa)
    gradient = gradients(case)[0]
    with settings.forced(*forced):
        expected = gradient.run(grad, gradient.arrays())
        assert_same_bits(gradient.transposed(localconv, gradient.arrays()), expected)


@given(st.booleans().flatmap(lambda local: cases(local, exact=True)), isas)
def test_gradients_are_linear(case, isa):
    """In each of their arrays; integers, so that it holds to the bit."""
    settings.set_isa(isa)
    for gradient in gradients(case):
        first, second = gradient.arrays()
        others = dataclasses.replace(gradient, case=dataclasses.replace(case, seed=case.seed + 1)).arrays()
        plain = gradient.run(grad, (first, second))
        mixed = gradient.run(grad, (3 * first - others[0], second))
        np.testing.assert_array_equal(mixed, 3 * plain - gradient.run(grad, (others[0], second)))
        mixed = gradient.run(grad, (first, 3 * second - others[1]))
        np.testing.assert_array_equal(mixed, 3 * plain - gradient.run(grad, (first, others[1])))


# --- limits -----------------------------------------------------------------------------------------------------------

# What cuts work and nothing else, and what sums may follow, too.
OF_SPEED = ("BOX_TARGET", "GRADIENT_BOX_TARGET", "PANELS_TARGET", "SEGMENT_TARGET", "TASKS_PER_THREAD", "TILE_BLOCK")
OF_SPEED = (*OF_SPEED, "PRODUCTS_PER_THREAD", "PIECE", "WRITTEN_AHEAD", "WRITTEN_AHEAD_UP_TO")
OF_SUMS = (
    "WORKSPACE_LIMIT",
    "CHUNK_TARGET",
    "PRODUCTS_PER_TASK",
    "BATCH_SUM",
    "REDUCTION_TASKS",
    "REDUCTION_POSITIONS",
)
OF_SUMS = (*OF_SUMS, "SLICE_TARGET", "IN_PLACE_UP_TO", "ZONES_LIMIT", "PHASES_LIMIT", "COLUMNS_LIMIT", "SUM_LIMIT")


def limits(*names):
    """Some of these limits, so low that small cases meet them."""
    low = st.sampled_from([1, 2, 3, 40, 600, 5000])
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, low))


@contextlib.contextmanager
def limited(lower):
    engine.plans.clear()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in lower.items():
            patch.setattr(columns if hasattr(columns, name) else policy, name, value)
        if "PIECE" in lower or "WRITTEN_AHEAD" in lower:  # which nothing in these caches needs
            patch.setattr(policy, "caches", policy.caches._replace(first=1, second=1))
        yield
    engine.plans.clear()


any_case_to_cut = st.booleans().flatmap(
    lambda local: st.tuples(cases(local), st.sampled_from([(), *ways.ALL["local" if local else "conv"]]))
)


def everything(case):
    """The convolution and its gradients: run and check them by `operation.run(module, arrays)`."""
    return [(localconv, case), *((grad, gradient) for gradient in gradients(case))]


@hypothesis.settings(max_examples=400)
@given(any_case_to_cut, isas, limits(*OF_SPEED, *OF_SUMS), st.integers(1, 3))
def test_low_limits(case_and_forced, isa, lower, threads):
    """However work is cut: into chunks of the batch, blocks, segments, panels, parts of sums."""
    case, forced = case_and_forced
    settings.set_isa(isa)
    localconv.set_num_threads(threads)
    with limited(lower):
        for module, operation in everything(case):
            arrays = operation.arrays()
            try:
                with settings.forced(*forced):
                    result = operation.run(module, arrays)
            except ValueError as error:  # within these limits another algorithm does it
                assert "cannot do this geometry" in str(error)  # noqa: PT017
                result = operation.run(module, arrays)
            operation.check(result)


@hypothesis.settings(max_examples=200)
@given(any_case_to_cut, isas, limits(*OF_SPEED), st.integers(1, 3))
def test_same_bits_however_work_is_cut(case_and_forced, isa, lower, threads):
    """Sums follow neither the caches' sizes nor the tasks; those of columns are the BLAS's affair."""
    case, forced = case_and_forced
    hypothesis.assume(settings.COLUMNS not in forced)
    settings.set_isa(isa)
    with settings.forced(*forced):
        for module, operation in everything(case):
            arrays = operation.arrays()
            localconv.set_num_threads(1)
            expected = operation.run(module, arrays)
            localconv.set_num_threads(threads)
            with limited(lower):
                assert_same_bits(operation.run(module, arrays), expected)
