"""Plans: whatever the sizes, workspaces keep within their bounds.

And where an algorithm would break one, another takes over.
"""

from math import prod

import hypothesis.strategies as st
import numpy as np
import pytest
import stored
import ways
from hypothesis import assume, example, given
from oracle import FORMATS, Case, gradients

import localconv
from localconv import _core, grad
from localconv.core import engine, geometry, machine, policy, settings, windows
from localconv.core.arrays import ELEMENT_TYPES, SINGLE, element_type
from localconv.core.spec import conv_spec, filter_spec, local_spec

MANY = st.one_of(st.integers(1, 70), st.integers(1, 100_000))


@st.composite
def geometries(draw, local):
    """Of any sizes: nothing is computed."""
    rank, groups = draw(st.integers(1, 2)), draw(st.sampled_from([1, 1, 2, 7]))
    size, strides, dilation = (tuple(draw(st.integers(1, n)) for _ in range(rank)) for n in (9, 4, 3))
    dilation = dilation if local or max(strides) == 1 else (1,) * rank
    spatial = tuple((k - 1) * d + draw(st.integers(1, 3000 // rank)) for k, d in zip(size, dilation, strict=True))
    batch, channels, filters = draw(MANY), groups * draw(MANY), groups * draw(MANY)
    data_format, padding = draw(st.sampled_from(FORMATS)), draw(st.sampled_from(["valid", "same"]))
    shape = (batch, *spatial, channels) if data_format == "channels_last" else (batch, channels, *spatial)
    if local:
        spec = local_spec(rank, size, strides, padding, data_format, dilation, groups)
        output = windows.output_of(spec, spatial)
        kernel = (int(np.prod(output, dtype=int)), int(np.prod(size)) * channels // groups, filters)
    else:
        spec = conv_spec(rank, strides, padding, data_format, dilation, groups)
        kernel = (*size, channels // groups, filters)
    try:
        return geometry.geometry_of(spec, shape, kernel)
    except geometry.TooLarge:
        assume(False)


def job_of(operation, shape, forced, element, threads=2):
    """The job, and the forced algorithm if it took it."""
    now = settings.current()._replace(forced=forced)
    try:
        return policy.plan(operation, shape, element_of(operation, element), now, threads)
    except ValueError:  # the forced one cannot do this geometry within the limits
        return policy.plan(operation, shape, element_of(operation, element), settings.current(), threads)


def element_of(operation, element):
    """The gradient for a kernel reads none: it has the element type of its sums."""
    return ELEMENT_TYPES[element.number] if operation.endswith("grad_kernel") else element


# Kernels of fewer bytes, and of 16 bits beside results that are rounded to them.
FLOATS = np.zeros(1, np.float32)
STORED = [element_type(np.zeros(1, half), FLOATS) for half in stored.HALVES]
STORED += [element_type(np.zeros(1, half), np.zeros(1, half)) for half in stored.HALVES]
STORED += [element_type(stored.exact_quantized((1, 1, 1)), FLOATS)]
elements = st.sampled_from([*ELEMENT_TYPES, *STORED])


def test_stored_kernels_are_types_of_their_own():
    """Else the properties below would not be of them."""
    assert [element.storage for element in ELEMENT_TYPES] == [0, 0]
    stores = [_core.STORAGES[element.storage] for element in STORED]
    assert stores == ["float16", "bfloat16", "float16", "bfloat16", "int8"]
    results = [element.result for element in STORED]
    assert results == [np.float32, np.float32, *stored.HALVES, np.float32]


def check_workspace(job, shape):
    """The lists of a window's runs and strips may come on top: a few numbers for each element."""
    assert 0 <= job.work_bytes <= policy.WORKSPACE_LIMIT
    assert job.work_bytes <= job.thread_bytes <= policy.WORKSPACE_LIMIT + 64 * (shape.window + 2)


@given(geometries(local=True), st.sampled_from([(), *ways.ALL["local"]]), elements)
def test_local_workspaces_are_bounded(shape, forced, element):
    for operation in ("local_forward", "local_grad_input", "local_grad_kernel"):
        job = job_of(operation, shape, forced, element)
        assert job.algorithm in settings.ALGORITHMS[operation]
        check_workspace(job, shape)
        assert job.shared_bytes == 0


# Pixels in the lanes, eight output gradients of every filter: more than one vector of pixels does not fit.
MANY_FILTERS = geometry.geometry_of(conv_spec(2, 1, "valid", "channels_first", 1, 1), (1, 1, 8, 1), (8, 1, 1, 87_381))


# A gradient for the input whose kernel, stored in fewer bytes, is too large to be widened tap by tap.
WIDE_TAPS = geometry.geometry_of(conv_spec(1, 1, "valid", "channels_first", 1, 1), (1, 49, 1), (1, 49, 65_531))


@given(geometries(local=False), st.sampled_from([(), *ways.ALL["conv"]]), elements)
@example(MANY_FILTERS, ("conv_narrow",), ELEMENT_TYPES[0])
@example(WIDE_TAPS, (), STORED[0])
def test_shared_workspaces_are_bounded(shape, forced, element):
    """A packed kernel or a partial gradient has the kernel's size,
    its filters and channels rounded up to whole vectors.
    """
    lanes, itemsize, _ = _core.tile_limits(settings.get_isa(), element.number)
    rounded = [-(-n // shape.groups // (4 * lanes)) * 4 * lanes * shape.groups for n in (shape.channels, shape.filters)]
    kernel = (
        np.prod(shape.kernel, dtype=float) * max(rounded[0] * shape.filters, shape.channels * rounded[1]) * itemsize
    )
    for operation in ("conv_forward", "conv_grad_input", "conv_grad_kernel"):
        job = job_of(operation, shape, forced, element)
        if isinstance(job, _core.Job):
            assert job.algorithm in settings.ALGORITHMS[operation]
            check_workspace(job, shape)
            assert 0 <= job.shared_bytes <= policy.WORKSPACE_LIMIT + kernel


@st.composite
def filter_geometries(draw):
    """Of filters that come with the data, of any sizes."""
    rank, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 7]))
    size, dilation = (tuple(draw(st.integers(1, n)) for _ in range(rank)) for n in (30 // rank, 3))
    padding = draw(st.sampled_from(["valid", "same", "inside"]))
    strides = (1,) * rank if padding == "inside" else tuple(draw(st.integers(1, 3)) for _ in range(rank))
    spatial = tuple(k * d + draw(st.integers(0, 3000 // rank**3)) for k, d in zip(size, dilation, strict=True))
    batch, channels = draw(MANY), groups * draw(MANY)
    data_format = draw(st.sampled_from(FORMATS))
    spec = filter_spec(rank, size, strides, padding, data_format, dilation, groups)
    output = windows.output_of(spec, spatial)
    images = draw(st.sampled_from([1, batch]))
    try:
        return geometry.geometry_of(
            spec,
            windows.layout_of((batch,), spatial, channels, spec.channels_first),
            windows.layout_of((images,), output, groups * prod(size), spec.channels_first),
        )
    except geometry.TooLarge:
        assume(False)


# A line that dilation makes longer than any array.
FAR_TAPS = geometry.geometry_of(filter_spec(1, 3, 1, "same", "channels_first", 10**6, 1), (1, 2, 9), (1, 3, 9))


@given(filter_geometries(), st.sampled_from([(), *ways.ALL["filter"]]), elements)
@example(FAR_TAPS, (), ELEMENT_TYPES[0])
def test_workspaces_of_filters_are_bounded(shape, forced, element):
    """One result's pixels and filters may be more than the limit, and are less than what the arrays have."""
    assume(element.storage == 0 or element.number == 0)
    arrays = shape.channels * (prod(shape.input) + prod(shape.output)) + shape.positions * shape.groups * shape.window
    for operation in ("filter_forward", "filter_grad_input", "filter_grad_kernel"):
        job = job_of(operation, shape, forced, element)
        assert job.algorithm in settings.ALGORITHMS[operation]
        assert 0 <= job.work_bytes <= policy.WORKSPACE_LIMIT + 2 * 8 * arrays
        assert job.thread_bytes - job.work_bytes <= policy.WORKSPACE_LIMIT + 512 * (shape.window + 2)
        assert job.shared_bytes == 0


@pytest.fixture
def small_workspaces(monkeypatch):
    """Workspaces so small that a few images fill them: batches are cut as only very large ones are otherwise."""
    engine.plans.clear()
    for name in ("WORKSPACE_LIMIT", "CHUNK_TARGET"):
        monkeypatch.setattr(policy, name, 8192)
    yield
    engine.plans.clear()


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("way", ways.ALL["local"], ids=ways.name)
@pytest.mark.parametrize(
    "case",
    [
        Case("local_conv1d", (9,), (3,), 75, 2, 5, padding="same"),
        Case("local_conv2d", (4, 5), (2, 3), 37, 3, 17, strides=(1, 2)),
        Case("local_conv1d", (6,), (2,), 9, 2, 300),
    ],
    ids=lambda case: f"{case.function} {case.filters}",
)
def test_batches_in_chunks(small_workspaces, isa, case, way, data_format):
    case = Case(**(vars(case) | {"data_format": data_format}))
    checks = [(case.run, localconv, case)] + [(derivative.run, grad, derivative) for derivative in gradients(case)]
    for run, module, owner in checks:
        try:
            with settings.forced(*way):
                result = run(module, owner.arrays())
        except ValueError as error:
            assert "cannot do this geometry" in str(error)  # noqa: PT017  # too large for these limits, and by itself another one does it
            result = run(module, owner.arrays())
        owner.check(result)


# --- strided gradients for the input: the work counts, not the stride
# ---------------------------------------------------


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


def algorithm_of(operation, shape, spec):
    """What takes a geometry by itself."""
    return policy.plan(operation, shape, SINGLE, settings.current(), 1).algorithm


@pytest.mark.parametrize(("data_format", "batch"), [("channels_last", 1), ("channels_first", 3)])
def test_windows_of_one_pixel_lie_in_one_row(data_format, batch):
    shape = (3, 4, 5, 2) if data_format == "channels_last" else (3, 2, 4, 5)
    found = geometry.geometry_of(conv_spec(2, 1, "same", data_format, 1, 1), shape, (1, 1, 2, 7))
    row = found.one_row()
    assert (row.batch, row.input, row.output) == (batch, (1, 1, 60 // batch), (1, 1, 60 // batch))
    for spec in (conv_spec(2, 3, "valid", data_format, 1, 1), conv_spec(2, 1, ((0, 0), (1, 0)), data_format, 1, 1)):
        found = geometry.geometry_of(spec, shape, (1, 1, 2, 7))
        assert found.one_row() == found
    found = geometry.geometry_of(conv_spec(2, 1, "same", data_format, 1, 1), shape, (1, 2, 2, 7))
    assert found.one_row() == found


def test_windows_too_large_to_interleave():
    """Not even one tile of images has room in the workspace: they are read where they are."""
    spec = local_spec(1, 2, 1, "valid", "channels_last", 1, 1)
    for batch, channels, algorithms in ((32, 50, {"local_rows", "local_images"}), (32, 1_100_000, {"local_stream"})):
        shape = geometry.geometry_of(spec, (batch, 3, channels), (2, 2 * channels, 3))
        assert algorithm_of("local_forward", shape, spec) in algorithms
    for filters, algorithm in ((100, "buffered"), (5_000_000, "direct")):
        shape = geometry.geometry_of(spec, (32, 3, 1), (2, 2, filters))
        assert algorithm_of("local_grad_input", shape, spec) == f"local_input_{algorithm}"
        assert algorithm_of("local_grad_kernel", shape, spec) == f"local_kernel_{algorithm}"


@pytest.mark.parametrize("number", range(len(ELEMENT_TYPES)))
@pytest.mark.parametrize("longer", range(4))
@pytest.mark.parametrize("full", range(4))
def test_register_tiles_are_full(isa, number, full, longer):
    """Of the images, the depth, the height and the width of an output, one fills the rows of a register tile, and one
    is longer by a single row: tiles along the first one are all full, tiles along the other half empty.
    """
    rows = _core.tile_limits(isa, number)[2][0]
    size = [1, 1, 1, 1]
    size[longer] = rows + 1
    size[full] = rows
    shape = geometry.geometry_of(conv_spec(3, 1, "valid", "channels_last", 1, 1), (*size, 1), (1, 1, 1, 1, 1))
    cut = {"vectors": 1, "tasks": 10**6, "panel_bytes": 10**6, "tile_block": 1, "zone_limit": 1}
    job = _core.Job(shape, isa, number, 0, "conv_direct", cut, 1)
    assert job.tasks == prod(size) // rows


def chosen(family, operation, batch=1, width=64, size=3, stride=1, channels=1, filters=1):
    """What takes a 1D geometry of these sizes."""
    if family == "local":
        spec = local_spec(1, size, stride, "valid", "channels_last", 1, 1)
        kernel = ((width - size) // stride + 1, size * channels, filters)
    else:
        spec = conv_spec(1, stride, "valid", "channels_last", 1, 1)
        kernel = (size, channels, filters)
    return algorithm_of(f"{family}_{operation}", geometry.geometry_of(spec, (batch, width, channels), kernel), spec)


# A vector of one lane is always full.
vectors = pytest.mark.parametrize(
    "isa", [isa for isa in _core.available_isas() if _core.tile_limits(isa, 0)[0] > 1], indirect=True
)


@vectors
def test_what_fills_the_lanes_is_in_them(isa):
    """Filters, or images where these leave fewer lanes empty; positions of a window if there is but one filter."""
    lanes = _core.tile_limits(isa, 0)[0]
    for batch, filters, best in [
        (1, 1, "dot"),
        (lanes - 1, 1, "dot"),
        (lanes, 1, "images"),
        (1, 2, "stream"),
        (1, lanes, "stream"),
        (lanes - 1, 2, "stream"),
        (lanes, lanes - 1, "images"),
        (lanes, lanes, "stream"),
        (lanes, lanes + 1, "images"),
        (lanes + 1, lanes + 1, "stream" if lanes < 16 else "rows"),
        (16, lanes, "images" if lanes < 16 else "stream"),
        (17, 2 * lanes, "rows"),
        (2 * lanes, lanes, "images"),
        (32, 2 * lanes, "rows"),
        (33, lanes, "rows"),
    ]:
        assert (batch, filters, chosen("local", "forward", batch, filters=filters)) == (batch, filters, f"local_{best}")
    for channels, best in ((policy.IMAGES_WINDOW // 2 - 1, "rows"), (policy.IMAGES_WINDOW // 2, "images")):
        found = chosen("local", "forward", 32, size=2, channels=channels, filters=32)
        assert (channels, found) == (channels, f"local_{best}")


@vectors
def test_gradients_fill_the_lanes(isa):
    """Many images are brought together; few channels of a shared convolution leave the lanes to the pixels."""
    lanes = _core.tile_limits(isa, 0)[0]
    for batch, best in ((1, "direct"), (16, "direct"), (17, "buffered"), (100, "buffered")):
        assert chosen("local", "grad_kernel", batch, filters=3) == f"local_kernel_{best}"
    # One image: the instructions of its products, and of a transpose, against those of as many images as there are
    # lanes.
    for batch, filters, best in (
        (1, 4 * lanes, "direct"),
        (1, 1, "buffered"),
        (2, lanes, "direct"),
        (lanes, 64, "buffered"),
    ):
        assert chosen("local", "grad_input", batch, filters=filters) == f"local_input_{best}"
    for output, stride, channels, best in [
        (lanes, 1, lanes // 2, "narrow"),
        (lanes, 3, 1, "narrow"),
        (5 * lanes, 1, 1, "narrow"),
        (lanes, 4, 1, "phases"),
        (lanes - 1, 1, 1, "phases"),
        (lanes, 1, lanes // 2 + 1, "phases"),
    ]:
        width = (output - 1) * stride + 3
        assert chosen("conv", "grad_input", 1, width, 3, stride, channels, 4) == f"conv_{best}"


@pytest.mark.parametrize(
    ("data_format", "side", "channels", "limit"),
    [
        ("channels_last", 31, 16, 16),
        ("channels_last", 32, 16, 8),  # images of 64 KiB
        ("channels_first", 31, 16, 4),
        ("channels_first", 32, 16, 1),  # planes of 4 KiB
        ("channels_first", 31, 1, 16),
        ("channels_first", 32, 1, 8),
    ],
)
def test_images_that_crowd_are_brought_together(data_format, side, channels, limit):
    spec = local_spec(2, 3, 1, "valid", data_format, 1, 1)
    for batch, forward, kernel in ((limit, "stream", "direct"), (limit + 1, "rows", "buffered")):
        shape = (batch, side, side, channels) if data_format == "channels_last" else (batch, channels, side, side)
        geo = geometry.geometry_of(spec, shape, ((side - 2) ** 2, 9 * channels, 64))
        for operation, best in (("local_forward", f"local_{forward}"), ("local_grad_kernel", f"local_kernel_{kernel}")):
            assert policy.plan(operation, geo, SINGLE, settings.current(), 1).algorithm == best


@vectors
@pytest.mark.parametrize(
    ("width", "stride", "channels", "limit"),
    [
        (651, 4, 4, 64),
        (651, 5, 4, 64),
        (4, 1, 4, 64),  # one window
        (651, 4, 1, 24),  # windows of 16 bytes
        (651, 3, 4, 16),  # they overlap
    ],
)
def test_pixels_that_are_read_once_are_not_brought_together(isa, width, stride, channels, limit):
    shape = {"width": width, "size": 4, "stride": stride, "channels": channels, "filters": 64}
    for batch, forward, kernel in ((limit, "stream", "direct"), (limit + 1, "rows", "buffered")):
        assert chosen("local", "forward", batch=batch, **shape) == f"local_{forward}"
        assert chosen("local", "grad_kernel", batch=batch, **shape) == f"local_kernel_{kernel}"


@vectors
def test_few_pixels_need_little_room(isa):
    """With pixels in the lanes a line is as many vectors wide as it has pixels for, up to four."""
    lanes = _core.tile_limits(isa, 0)[0]
    spec = conv_spec(1, 1, "valid", "channels_last", 1, 1)
    room = []
    for width in (lanes, 2 * lanes, 3 * lanes, 4 * lanes):
        shape = geometry.geometry_of(spec, (1, width, 1), (1, 1, 16))
        now = settings.current()._replace(forced=("conv_narrow",))
        room.append(policy.plan("conv_grad_input", shape, SINGLE, now, 1).box_bytes)
    assert room == [16 * vectors * lanes * 4 for vectors in (1, 2, 3, 4)]


def test_images_side_by_side(isa):
    """A register tile is as many vectors of images wide as there are, up to four, or two where that leaves too few rows
    for the filters; in the gradient for the input up to two. Chunks of the batch are whole tiles.
    """
    lanes, _, rows = _core.tile_limits(isa, 0)
    spec = local_spec(1, 1, 1, "valid", "channels_last", 1, 1)
    for way, vectors, filters, width in [
        ("local_images", 1, 1, 1),
        ("local_images", 3, 1, 3),
        ("local_images", 3, rows[3], 3),
        ("local_images", 3, rows[3] + 1, 2),
        ("local_images", 5, rows[3], 4),
        ("local_input_buffered", 1, 1, 1),
        ("local_input_buffered", 3, 1, 2),
    ]:
        shape = geometry.geometry_of(spec, (vectors * lanes, 1, 1), (1, 1, filters))
        operation = _core.ALGORITHMS[way]
        job = policy.plan(operation, shape, SINGLE, settings.current()._replace(forced=(way,)), 1)
        assert (way, vectors, filters, job.batch_chunk / lanes) == (way, vectors, filters, -(-vectors // width) * width)


@pytest.mark.parametrize(
    ("width", "size", "stride", "padding", "few"),
    [
        (600, 256, 256, 0, True),
        (600, 257, 257, 0, False),
        (600, 2, 500, 0, True),
        (600, 500, 2, 0, True),
        (1, 500, 500, 499, True),
    ],
)
def test_phases_are_few(width, size, stride, padding, few):
    """As many as there are strides, taps or pixels, whatever is least; where they are many, columns cost less."""
    spec = conv_spec(1, stride, ((padding, 0),), "channels_last", 1, 1)
    shape = geometry.geometry_of(spec, (1, width, 1), (size, 1, 8))
    job = policy.plan("conv_grad_input", shape, SINGLE, settings.current(), 1)
    assert isinstance(job, _core.Job) == few


ONE_POSITION = geometry.geometry_of(local_spec(1, 1, 1, "valid", "channels_last", 1, 1), (4, 1, 500), (1, 500, 5000))


@given(geometries(local=True), elements, st.integers(1, 16))
@example(ONE_POSITION, ELEMENT_TYPES[0], 16)
def test_every_thread_has_a_task(shape, element, threads):
    """Where there are positions and register tiles, or pixels, enough."""
    lanes = _core.tile_limits(settings.get_isa(), element.number)[0]
    panels = -(-shape.filters // shape.groups // (4 * lanes)) * shape.groups
    tiles, pixels = shape.positions * panels, prod(shape.input)
    work = shape.products + policy.READ * shape.products // shape.batch
    for operation, most in (("local_forward", tiles), ("local_grad_kernel", tiles), ("local_grad_input", pixels)):
        job = policy.plan(operation, shape, element_of(operation, element), settings.current(), threads)
        assert job.threads == max(1, min(threads, work // policy.PRODUCTS_PER_THREAD))
        assert job.tasks >= min(job.threads, most)


def test_what_is_read_once_brings_a_second_thread_sooner():
    """One thread takes some 20 microseconds for each of these, but fewer multiply-adds."""
    layer = geometry.geometry_of(local_spec(1, 3, 1, "valid", "channels_last", 1, 1), (1, 258, 16), (256, 48, 16))
    weights = filter_spec(2, (9, 1), 1, "valid", "channels_last", 1, 1)
    planes = geometry.geometry_of(weights, (1, 9, 16000, 1), (1, 1, 16000, 9))
    shared = geometry.geometry_of(conv_spec(2, 3, "same", "channels_last", 1, 1), (1, 14, 14, 16), (3, 3, 16, 16))
    for operation, shape, threads in (
        ("local_forward", layer, 2),
        ("filter_forward", planes, 2),
        ("conv_forward", shared, 1),
    ):
        assert policy.plan(operation, shape, SINGLE, settings.current(), 2).threads == threads
        assert shape.products < policy.PRODUCTS_PER_THREAD


def test_slices_of_a_kernel_gradient_stay_in_the_cache(isa):
    spec = conv_spec(2, 1, "valid", "channels_last", 1, 1)
    shape = geometry.geometry_of(spec, (1, 4, 4, 512), (3, 3, 512, 512))
    job = policy.plan("conv_grad_kernel", shape, SINGLE, settings.current()._replace(forced=("conv_reduction",)), 1)
    assert job.shared_bytes == 0  # no partial sums: a task has a slice of its own
    assert job.tasks >= shape.window * shape.filters * 4 / policy.SLICE_TARGET


# local_stream can do it.
TOO_LARGE = [way for way in ways.ALL["local"] if way[0] != "local_stream"]


@pytest.mark.parametrize("way", TOO_LARGE, ids=ways.name)
def test_windows_too_large_for_what_is_forced(way):
    """An error, not another algorithm without a word."""
    x, kernel = np.ones((8, 1, 2_200_000), np.float32), np.ones((1, 2_200_000, 3), np.float32)
    with settings.forced(*way), pytest.raises(ValueError, match=f"{way[0]} cannot do this geometry"):
        localconv.local_conv1d(x, kernel, 1, 1, "channels_last")


# A kernel half as large as its input: padding clips nearly every position in a way of its own.
SIZE, TAPS = 64, [(0, 0, 3), (7, 31, -2), (15, 16, 5), (31, 3, -7), (31, 31, 1)]


def sparse_kernel():
    kernel = np.zeros((32, 32, 1, 1), np.float32)
    for i, j, weight in TAPS:
        kernel[i, j] = weight
    return kernel


def shifted(image, i, j):
    """What tap (i, j) of that kernel sees of an image with 'same' padding: 15 rows and columns before it, 16 behind."""
    return np.pad(image, ((15, 16), (15, 16)))[i : i + SIZE, j : j + SIZE]


@pytest.mark.parametrize(
    ("limit", "operations"), [(1023, ("im2col", "im2col")), (1024, ("conv_forward", "conv_grad_kernel"))]
)
def test_as_many_zones_as_positions(monkeypatch, limit, operations):
    """Where there are too many, such a convolution goes through im2col; the gradient for few channels has none, and
    that to few filters only those of a line.
    """
    engine.plans.clear()
    monkeypatch.setattr(policy, "ZONES_LIMIT", limit)
    x, g = values(1, SIZE, SIZE, 1), values(1, SIZE, SIZE, 1)[:, ::-1].copy()
    lines = localconv.conv2d(x, sparse_kernel(), padding="same", data_format="channels_last")
    assert _core.last_run()["algorithm"] == "conv_lines"
    with monkeypatch.context() as without_lines:
        without_lines.setattr(policy, "LINES_FILLED", 0)
        engine.plans.clear()
        y = localconv.conv2d(x, sparse_kernel(), padding="same", data_format="channels_last")
    np.testing.assert_array_equal(lines, y)
    ran = [_core.last_run()["operation"]]
    np.testing.assert_array_equal(y[0, :, :, 0], sum(w * shifted(x[0, :, :, 0], i, j) for i, j, w in TAPS))
    for_x = grad.conv2d_input(x.shape, sparse_kernel(), g, padding="same", data_format="channels_last")
    with (
        settings.forced("conv_phases") if limit == 1024 else pytest.raises(ValueError, match="cannot do"),
        settings.forced("conv_phases"),
    ):
        again = grad.conv2d_input(x.shape, sparse_kernel(), g, padding="same", data_format="channels_last")
        np.testing.assert_array_equal(again, for_x)
    for_kernel = grad.conv2d_kernel(x, (32, 32, 1, 1), g, padding="same", data_format="channels_last")
    ran.append(_core.last_run()["operation"])
    for i, j, _ in TAPS:
        assert for_kernel[i, j, 0, 0] == np.vdot(g[0, :, :, 0].astype(float), shifted(x[0, :, :, 0], i, j))
    assert np.vdot(for_x.astype(float), x) == np.vdot(y.astype(float), g)
    assert tuple(ran) == operations
    engine.plans.clear()


# --- the plans that are kept ----------------------------------------------------------------------------------------


def plan(nbytes):
    return engine.Prepared(None, (), (), nbytes)


def test_plans_are_kept_up_to_their_bytes():
    """The oldest go; one that is too large is not kept at all."""
    plans = engine.Plans(1000)
    for number in range(10):
        assert plans.keep((number,), plan(200)).nbytes == 200
    assert [key for (key,) in plans.kept] == [5, 6, 7, 8, 9]
    assert plans.nbytes == 1000
    assert plans.keep(("large",), plan(251)) is not plans.get(("large",))
    plans.keep(("small",), plan(1))
    assert [key for (key,) in plans.kept] == [6, 7, 8, 9, "small"]
    assert plans.nbytes == sum(kept.nbytes for kept in plans.kept.values()) <= plans.limit
    plans.clear()
    assert (plans.kept, plans.nbytes) == ({}, 0)


def test_plans_weigh_what_they_hold():
    """Long lists of zones count."""
    x, kernel = np.ones((1, 3000, 1), np.float32), np.ones((2999, 1, 1), np.float32)
    engine.plans.clear()
    with settings.forced("conv_direct"):
        localconv.conv1d(x, kernel, padding="same", data_format="channels_last")
    (kept,) = engine.plans.kept.values()
    assert kept.nbytes > 2999 * 100
    assert engine.plans.nbytes == kept.nbytes


def test_caches_are_those_of_the_machine():
    assert 0 < machine.caches.first <= machine.caches.second <= machine.caches.last
    assert int(0.5 * machine.caches.second) == policy.BOX_TARGET
