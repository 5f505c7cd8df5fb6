"""Plans: whatever the sizes, workspaces keep within their bounds; and where a strategy would break one, another takes over."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, example, given
from oracle import FORMATS, Case, assert_close, gradients

import localconv
from localconv import _core, backend, dispatch, grad
from localconv.geometry import count_input_phases, input_phases, local_geometry, shared_geometry

MANY = st.one_of(st.integers(1, 70), st.integers(1, 100_000))


def unshared(shape, filters, size, strides, padding, first, dilation, groups, spatial, channels):
    steps = [n if padding == "same" else n - (k - 1) * d for n, k, d in zip(spatial, size, dilation, strict=True)]
    positions = np.prod([-(-n // s) for n, s in zip(steps, strides, strict=True)], dtype=int)
    kernel = (int(positions), int(np.prod(size)) * channels // groups, filters)
    return local_geometry(shape, kernel, size, strides, padding, first, dilation, groups)


@st.composite
def geometries(draw, local):
    """Of any sizes: nothing is computed."""
    rank, groups = draw(st.integers(1, 2)), draw(st.sampled_from([1, 1, 2, 7]))
    size, strides, dilation = (tuple(draw(st.integers(1, n)) for _ in range(rank)) for n in (9, 4, 3))
    spatial = tuple((k - 1) * d + draw(st.integers(1, 3000 // rank)) for k, d in zip(size, dilation, strict=True))
    batch, channels, filters = draw(MANY), groups * draw(MANY), groups * draw(MANY)
    first, padding = draw(st.booleans()), draw(st.sampled_from(["valid", "same"]))
    shape = (batch, channels, *spatial) if first else (batch, *spatial, channels)
    try:
        if not local:
            return shared_geometry(shape, (*size, channels // groups, filters), strides, padding, first, dilation, groups)
        return unshared(shape, filters, size, strides, padding, first, dilation, groups, spatial, channels)
    except ValueError as error:
        assume("would reach" not in str(error))  # beyond what an array can hold
        raise


def limit(geometry):
    """A window's list of runs may come on top: at most one run, and one strip, for each element."""
    return dispatch.WORKSPACE_LIMIT + 64 * (geometry.depth + 2)


strategies = st.sampled_from([None, *dispatch.GRADIENT_STRATEGIES])


@given(geometries(local=True), st.sampled_from([None, "stream", "rows", "lanes"]), strategies, st.booleans())
def test_local_workspaces_are_bounded(geometry, local, gradient, double_precision):
    with dispatch.forced(local=local, gradient=gradient):
        plans = [plan(geometry, double_precision)
                 for plan in (dispatch.plan_local, dispatch.plan_local_grad_input, dispatch.plan_local_grad_kernel)]
    assert plans[0].strategy in dispatch.LOCAL_STRATEGIES
    assert {plan.strategy for plan in plans[1:]} <= set(dispatch.GRADIENT_STRATEGIES)
    for plan in plans:
        assert 0 <= plan.workspace <= limit(geometry)


# Pixels in the lanes, eight output gradients of every filter: more than one vector of pixels does not fit.
MANY_FILTERS = shared_geometry((1, 1, 8, 1), (8, 1, 1, 87_381), (1, 1), "valid", True, (1, 1), 1)


@given(geometries(local=False), strategies, st.booleans())
@example(MANY_FILTERS, "boxed", False)
def test_shared_workspaces_are_bounded(geometry, gradient, double_precision):
    """A packed kernel or a partial gradient has the kernel's size, its filters and channels rounded up to whole vectors."""
    with dispatch.forced(gradient=gradient):
        plans = [plan(geometry, double_precision)
                 for plan in (dispatch.plan_conv, dispatch.plan_conv_grad_input, dispatch.plan_conv_grad_kernel)]
    lanes, itemsize = _core.lanes(double_precision), 8 if double_precision else 4
    rounded = [-(-n // geometry.groups // (4 * lanes)) * 4 * lanes * geometry.groups for n in (geometry.channels, geometry.filters)]
    kernel = np.prod(geometry.kernel, dtype=float) * max(rounded[0] * geometry.filters, geometry.channels * rounded[1]) * itemsize
    for plan in plans:
        if plan is not None:
            packed, workspace = plan.workspace
            assert 0 <= workspace <= limit(geometry)
            assert 0 <= packed <= dispatch.WORKSPACE_LIMIT + kernel


@pytest.fixture
def small_chunks(monkeypatch):
    """Workspaces so small that a few images fill them: batches are cut as only very large ones are otherwise."""
    prepared = [module.__dict__[name] for module in (backend, grad) for name in ("_prepare_local", "_prepare_shared")]
    for prepare in prepared:
        prepare.cache_clear()
    monkeypatch.setattr(dispatch, "CHUNK_LIMIT", 4096)
    yield
    for prepare in prepared:
        prepare.cache_clear()


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("gradient", dispatch.GRADIENT_STRATEGIES)
@pytest.mark.parametrize("local", ["stream", "rows", "lanes"])
@pytest.mark.parametrize("case", [
    Case("local_conv1d", (9,), (3,), 75, 2, 5, padding="same"),
    Case("local_conv2d", (4, 5), (2, 3), 37, 3, 17, strides=(1, 2)),
    Case("conv2d", (6, 7), (3, 2), 37, 4, 18, padding="same", groups=2),
], ids=lambda case: case.function)
def test_batches_in_chunks(small_chunks, isa, case, local, gradient, data_format):
    case = Case(**(vars(case) | {"data_format": data_format}))
    with dispatch.forced(local=local, gradient=gradient):
        case.check(case.run(localconv, case.arrays()))
        for derivative in gradients(case):
            derivative.check(derivative.run(grad, derivative.arrays()))


# --- strided gradients for the input: the work counts, not the stride ---------------------------------------------------


def test_phases_are_those_of_taps_and_pixels():
    """However long the stride and the input are, there are no more phases than taps."""
    geometry = shared_geometry((1, 2**40, 2**19, 1), (3, 2, 1, 4), (2**30, 7), "same", False, (1, 1), 1)
    phases = input_phases(geometry)
    assert len(phases) == count_input_phases(geometry) == 3 * 2
    assert sorted({phase.first_tap[1:] for phase in phases}) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert all((p + before - t) % s == 0 for phase in phases for p, before, t, s in
               zip(phase.first_pixel, geometry.before, phase.first_tap, geometry.strides, strict=True))


def test_a_stride_longer_than_all_loops(isa):
    case = Case("conv1d", (10**7 + 5,), (3,), 1, 1, 2, 10**7)
    for gradient in gradients(case):
        gradient.check(gradient.run(grad, gradient.arrays()))


def test_many_phases(isa):
    """One for each of 400 taps: windows to rows and a matrix product."""
    case = Case("conv2d", (60, 41), (20, 20), 2, 1, 3, 20, padding=((3, 0), (0, 2)))
    gradient = gradients(case)[0]
    gradient.check(gradient.run(grad, gradient.arrays()))
    assert _core.last_run()["operation"] == "col2im"


@pytest.mark.parametrize("batch", [1, 40])
@pytest.mark.parametrize("function", ["local_conv1d", "conv1d"])
def test_inputs_without_pixels(isa, function, batch):
    """All of what the windows see is padding."""
    case = Case(function, (0,), (2,), batch, 3, 5, padding=((2, 3),), bias="filters")
    case.check(case.run(localconv, case.arrays()))
    for gradient in gradients(case):
        gradient.check(gradient.run(grad, gradient.arrays()))


def values(*shape):
    return np.random.default_rng(len(shape)).integers(-8, 9, shape).astype(np.float32)


@pytest.mark.parametrize("strategy", ["rows", "lanes"])
def test_windows_too_large_to_interleave(isa, strategy):
    """Not even one tile of images has room in the workspace: they are read where they are."""
    x, kernel = values(8, 1, 2_200_000), values(1, 2_200_000, 3)
    with dispatch.forced(local=strategy):
        result = localconv.local_conv1d(x, kernel, 1, 1, "channels_last")
    ran = _core.last_run()
    assert (ran["isa"], ran["strategy"]) == (isa, "stream")
    expected, bound = (f(x[:, 0]).astype(float) @ f(kernel[0]) for f in (np.float64, np.abs))
    assert_close(result[:, 0], expected, bound, 2_200_000, np.dtype("float32"))


def test_outputs_too_many_for_boxes(isa):
    """The same for the gradient of the input."""
    kernel, g = values(1, 2, 2_200_000), values(8, 1, 2_200_000)
    with dispatch.forced(gradient="boxed"):
        result = grad.local_conv1d_input((8, 1, 2), kernel, g, 1, 1, "channels_last")
    ran = _core.last_run()
    assert (ran["isa"], ran["strategy"]) == (isa, "placed")
    expected, bound = (f(g[:, 0]).astype(float) @ f(kernel[0]).T for f in (np.float64, np.abs))
    assert_close(result[:, 0], expected, bound, 2_200_000, np.dtype("float32"))


# A kernel half as large as its input: padding clips nearly every position in a way of its own.
SIZE, TAPS = 224, [(0, 0, 3), (7, 111, -2), (55, 56, 5), (111, 3, -7), (111, 111, 1)]


def sparse_kernel():
    kernel = np.zeros((112, 112, 1, 1), np.float32)
    for i, j, weight in TAPS:
        kernel[i, j] = weight
    return kernel


def shifted(image, i, j):
    """What tap (i, j) of that kernel sees of an image with 'same' padding: 55 rows and columns before it, 56 behind."""
    return np.pad(image, ((55, 56), (55, 56)))[i : i + SIZE, j : j + SIZE]


def test_as_many_zones_as_positions():
    """Such a convolution and both its gradients go through im2col."""
    x, g = values(1, SIZE, SIZE, 1), values(1, SIZE, SIZE, 1)[:, ::-1].copy()
    y = localconv.conv2d(x, sparse_kernel(), padding="same", data_format="channels_last")
    assert _core.last_run()["operation"] == "im2col"
    np.testing.assert_array_equal(y[0, :, :, 0], sum(w * shifted(x[0, :, :, 0], i, j) for i, j, w in TAPS))
    for_x = grad.conv2d_input(x.shape, sparse_kernel(), g, padding="same", data_format="channels_last")
    assert _core.last_run()["operation"] == "col2im"
    for_kernel = grad.conv2d_kernel(x, (112, 112, 1, 1), g, padding="same", data_format="channels_last")
    assert _core.last_run()["operation"] == "im2col"
    for i, j, _ in TAPS:
        assert for_kernel[i, j, 0, 0] == np.vdot(g[0, :, :, 0].astype(float), shifted(x[0, :, :, 0], i, j))
    assert np.vdot(for_x.astype(float), x) == np.vdot(y.astype(float), g)
