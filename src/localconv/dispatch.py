"""Which algorithm a convolution takes and how its work is cut: all policy is here, none in the core.

A plan holds for one geometry, element type, instruction set and number of threads. It never changes the order in which one
output value is summed within an algorithm, so results do not depend on the number of threads.

The constants were measured with ``make bench`` on a 2-core AVX-512 machine (32 KiB L1, 1 MiB L2 a core).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from math import ceil, prod

from . import _core
from .geometry import Geometry, count_input_phases, input_phases

CONV_ALGORITHMS = ("direct", "im2col")
LOCAL_STRATEGIES = _core.LOCAL_STRATEGIES
GRADIENT_STRATEGIES = _core.GRADIENT_STRATEGIES

# A thread's workspace must stay below this; what it holds should stay in the second-level cache where that costs nothing.
WORKSPACE_LIMIT = 16 * 2**20
CHUNK_LIMIT = WORKSPACE_LIMIT // 2
CACHE_TARGET = 1200 * 2**10
# Tasks for each thread: enough to even out what the machine's other users take, few enough to cost nothing; and the
# multiply-adds that a task should have at least.
TASKS_PER_THREAD = 6
PRODUCTS_PER_TASK = 300_000
# Multiply-adds below which a second thread costs more than it brings.
PRODUCTS_PER_THREAD = 500_000
# Images up to which reading them in place costs nothing: a tile has few rows then, and they do not crowd each other out of a
# cache set.
IN_PLACE_UP_TO = 16
# Products of one output value from which transposing it, with the batch in the lanes, no longer shows.
LANES_DEPTH = 200
# Rectangles of output positions that padding clips alike, beyond which the direct kernel's tiles would be mostly borders.
ZONES_LIMIT = 50_000
# Phases of a strided gradient for the input beyond which the direct kernel's tiles, and its plan, would be mostly overhead.
PHASES_LIMIT = 256
# Kernel bytes of the panels that one task of a shared convolution keeps in the second-level cache.
PANELS_TARGET = 320 * 2**10
# Input gradients of a task's block of pixels stay below this many bytes, and output gradients brought together below those.
BOX_TARGET = 600 * 2**10
SEGMENT_TARGET = 64 * 2**10
# Images that a kernel gradient is summed over before it is added to the sum so far.
BATCH_SUM = 1024
# Tasks of a reduction over positions, positions that each should have at least, and bytes of the kernel's slice of one task.
REDUCTION_TASKS = 16
REDUCTION_POSITIONS = 256
SLICE_TARGET = 384 * 2**10
# Phases times channels up to which tests may force pixels into the lanes.
NARROW_ROWS = 64

# Bytes of a cache line, to which boxes are aligned.
LINE = 64
# Register tiles that go through all panels of a task before the next tiles do.
TILE_BLOCK = 16

_forced_conv: str | None = None
_forced_local: str | None = None
_forced_gradient: str | None = None


@contextlib.contextmanager
def forced(conv: str | None = None, local: str | None = None, gradient: str | None = None) -> Iterator[None]:
    """Force the algorithm of shared convolutions and their gradients, the strategy of locally connected ones, that of their
    gradients, or several, for tests and measurements.

    The setting is the process's, not the thread's. Raises ValueError for an unknown name; a call raises ValueError where the
    strategy cannot do its geometry ('dot' needs one filter and contiguous windows).
    """
    global _forced_conv, _forced_local, _forced_gradient
    choices = {"conv": (conv, CONV_ALGORITHMS), "local": (local, LOCAL_STRATEGIES), "gradient": (gradient, GRADIENT_STRATEGIES)}
    for name, (value, known) in choices.items():
        if value not in (None, *known):
            raise ValueError(f"{name} must be one of {known} or None, got {value!r}")
    before = _forced_conv, _forced_local, _forced_gradient
    _forced_conv, _forced_local, _forced_gradient = conv, local, gradient
    try:
        yield
    finally:
        _forced_conv, _forced_local, _forced_gradient = before


def state() -> tuple[str | None, str | None, str | None, str, int]:
    """Everything besides the geometry and the element type that a plan depends on: a key for caches."""
    return _forced_conv, _forced_local, _forced_gradient, _core.get_isa(), _core.num_threads()


def threads_for(geometry: Geometry) -> int:
    """Threads that pay for this much work."""
    return max(1, min(_core.num_threads(), geometry.products // PRODUCTS_PER_THREAD))


def _tasks(geometry: Geometry, threads: int) -> int:
    """Tasks to cut the work into, at least."""
    return 1 if threads == 1 else max(threads, min(threads * TASKS_PER_THREAD, geometry.products // PRODUCTS_PER_TASK))


# ------------------------------------------------------------------------------------------------------------- shared convolution


def choose_conv(geometry: Geometry) -> str:
    """'direct' or 'im2col' for a shared convolution.

    The direct kernel reads the input in place and wins wherever its vectors are full. On Apple's processors NumPy's BLAS
    (Accelerate) drives matrix hardware that no vector kernel reaches, so there large products go through it. A kernel so large
    that nearly every position could be clipped by padding in a way of its own goes through im2col too, which does not care.
    """
    if _forced_conv is not None:
        return _forced_conv
    if _zones(geometry) > ZONES_LIMIT:
        return "im2col"
    if sys.platform == "darwin" and geometry.groups == 1 and geometry.depth >= 64 and geometry.filters >= 32:
        return "im2col"
    return "direct"


def choose_conv_grad_input(geometry: Geometry) -> str:
    """'direct' or 'im2col' for a shared convolution's gradient for the input."""
    if count_input_phases(geometry) > PHASES_LIMIT:
        return "im2col"
    if _forced_conv is None and any(_zones(phase.geometry) > ZONES_LIMIT for phase in input_phases(geometry)):
        return "im2col"
    return choose_conv(geometry)


def plan_conv(geometry: Geometry, double_precision: bool) -> _core.ConvPlan:
    """The plan of a direct shared convolution."""
    threads = threads_for(geometry)
    # The kernel's rows already lie in the order of the runs, and all filters fit one panel: read it in place.
    rows_in_order = not geometry.channels_first or geometry.channels == 1
    cut = _conv_cut(geometry, double_precision, threads)
    pack = not (rows_in_order and geometry.groups == 1 and geometry.filters <= cut[0] * _core.lanes(double_precision))
    return _core.ConvPlan([(geometry, cut[0], pack, *cut[1:])], double_precision, threads)


def plan_conv_grad_input(geometry: Geometry, double_precision: bool) -> _core.ConvPlan | _core.NarrowPlan | None:
    """The plan of a shared convolution's gradient for the input; None: by im2col."""
    if choose_conv_grad_input(geometry) != "direct":
        return None
    narrow = plan_conv_grad_narrow(geometry, double_precision) if choose_narrow(geometry, _core.lanes(double_precision)) else None
    if narrow is not None:
        return narrow
    threads = threads_for(geometry)
    cuts = [(phase, _conv_cut(phase.geometry, double_precision, threads)) for phase in input_phases(geometry)]
    return _core.ConvPlan([(phase, cut[0], True, *cut[1:]) for phase, cut in cuts], double_precision, threads)


def choose_narrow(geometry: Geometry, lanes: int) -> bool:
    """Whether a shared convolution's gradient for the input has its pixels in the lanes, not its channels: where those are few."""
    channels = geometry.channels // geometry.groups
    if _forced_gradient is not None:
        return _forced_gradient == "boxed" and geometry.strides[2] * channels <= NARROW_ROWS
    return channels * 2 <= lanes and geometry.output[2] >= lanes and geometry.strides[2] <= geometry.kernel[2]


def plan_conv_grad_narrow(geometry: Geometry, double_precision: bool) -> _core.NarrowPlan | None:
    """The plan of a shared convolution's gradient for an input of few channels; None: even its smallest workspace is too large."""
    lanes = _core.lanes(double_precision)
    threads = threads_for(geometry)
    tasks = ceil(_tasks(geometry, threads) / geometry.batch)
    width = ceil(geometry.input[2] / geometry.strides[2]) + 1
    size = [*geometry.input[:2], width]

    def plan(vectors: int, block: list[int]) -> _core.NarrowPlan:
        return _core.NarrowPlan(geometry, double_precision, vectors, tuple(_even(n, b) for n, b in zip(size, block, strict=True)), threads)

    for vectors in range(min(4, ceil(width / lanes)), 0, -1):
        block = [1, 1, min(width, vectors * lanes)]
        best = plan(vectors, block)
        if best.workspace[1] <= WORKSPACE_LIMIT:
            break
    else:
        return None
    for axis in (2, 1, 0):
        while block[axis] < size[axis]:
            wider = list(block)
            wider[axis] = min(size[axis], 2 * block[axis])
            candidate = plan(vectors, wider)
            if candidate.workspace[1] > BOX_TARGET or prod(ceil(n / b) for n, b in zip(size, wider, strict=True)) < tasks:
                break
            best, block = candidate, wider
    return best


def _conv_cut(geometry: Geometry, double_precision: bool, threads: int) -> tuple[int, int, int, int]:
    """Vectors of a register tile, parts of the panels, parts of the tiles, tiles of a block."""
    lanes, itemsize = _core.lanes(double_precision), 8 if double_precision else 4
    group_filters = geometry.filters // geometry.groups
    vectors = _width(group_filters, lanes, double_precision)
    panels = ceil(group_filters / (vectors * lanes)) * geometry.groups
    panel_bytes = geometry.depth * vectors * lanes * itemsize
    panel_parts = min(panels, ceil(panels * panel_bytes / PANELS_TARGET))
    return vectors, panel_parts, ceil(_tasks(geometry, threads) / panel_parts), TILE_BLOCK


def plan_conv_grad_kernel(geometry: Geometry, double_precision: bool) -> _core.ReductionPlan | None:
    """The plan of a shared convolution's gradient for the kernel; None: by im2col. Nothing but the geometry cuts the sums."""
    if choose_conv(geometry) != "direct":
        return None
    lanes, itemsize = _core.lanes(double_precision), 8 if double_precision else 4
    group_filters = geometry.filters // geometry.groups
    vectors = _width(group_filters, lanes, double_precision)
    panels = ceil(group_filters / (vectors * lanes)) * geometry.groups
    kernel_bytes = geometry.depth * geometry.filters * itemsize
    tasks = max(1, min(REDUCTION_TASKS, geometry.products // PRODUCTS_PER_TASK))
    slices = ceil(kernel_bytes / SLICE_TARGET)
    position_parts = min(ceil(tasks / slices), max(1, geometry.batch * geometry.positions // REDUCTION_POSITIONS))
    slices = max(slices, ceil(tasks / position_parts))
    panel_parts = min(panels, slices)
    row_parts = min(ceil(slices / panel_parts), ceil(geometry.depth / _core.rows_limit(double_precision, vectors)))
    pack = geometry.filters > (1 if geometry.channels_first else vectors * lanes)
    return _core.ReductionPlan(geometry, double_precision, vectors, pack, position_parts, panel_parts, row_parts, threads_for(geometry))


# ------------------------------------------------------------------------------------------------------ locally connected convolution


def choose_local(geometry: Geometry, lanes: int) -> str:
    """The strategy of a locally connected convolution (plan.h says what they are)."""
    if _forced_local is not None:
        if _forced_local == "dot" and not _dot_fits(geometry):
            raise ValueError("the strategy 'dot' needs one filter and windows whose elements are contiguous")
        return _forced_local
    filters = geometry.filters // geometry.groups
    if _dot_fits(geometry) and geometry.batch < lanes:
        return "dot"
    images, in_lanes = _filled(geometry.batch, lanes), _filled(filters, lanes)
    if geometry.batch >= lanes and images > in_lanes:
        return "lanes"
    if geometry.batch >= 2 * lanes and images == in_lanes and (filters <= lanes or geometry.depth >= LANES_DEPTH):
        return "lanes"
    return "stream" if geometry.batch <= IN_PLACE_UP_TO else "rows"


def plan_local(geometry: Geometry, double_precision: bool) -> _core.LocalPlan:
    """The plan of a locally connected convolution."""
    lanes, itemsize = _core.lanes(double_precision), 8 if double_precision else 4
    strategy = choose_local(geometry, lanes)
    # An input without pixels, all padding, and no filters are sizes too.
    window, line = max(1, _window_bytes(geometry, itemsize)), max(1, geometry.filters * itemsize)
    vectors, panel_filters, tile = _local_tile(geometry, strategy, lanes, double_precision)
    if tile * {"rows": window, "lanes": max(window, line)}.get(strategy, 0) > CHUNK_LIMIT:
        # Not even one position of one tile of images fits: read the images where they are.
        strategy = "stream"
        vectors, panel_filters, tile = _local_tile(geometry, strategy, lanes, double_precision)
    interleaved = strategy in ("rows", "lanes")
    staged = strategy == "lanes" or (geometry.channels_first and geometry.filters > 1)
    if staged and strategy != "lanes":
        tile = max(1, min(tile, CHUNK_LIMIT // line))
    chunk = max(tile, min(ceil(geometry.batch / tile), CHUNK_LIMIT // (tile * window)) * tile) if interleaved else geometry.batch
    if staged:
        chunk = max(tile, min(chunk, CHUNK_LIMIT // (line * tile) * tile))
    threads = threads_for(geometry)
    tasks = _tasks(geometry, threads)
    element_bytes = chunk * geometry.channels * itemsize if interleaved else 0
    stage_bytes = chunk * line if staged else 0
    block = _local_block(geometry, element_bytes, stage_bytes, tasks)
    blocks = prod(ceil(o / b) for o, b in zip(geometry.output, block, strict=True))
    panels = ceil(geometry.filters // geometry.groups / panel_filters) * geometry.groups
    filter_parts = max(1, min(panels, threads * 2 // blocks)) if threads > 1 else 1
    return _core.LocalPlan(geometry, double_precision, strategy, vectors, panel_filters, block, chunk, tile, filter_parts, threads)


def plan_local_grad_kernel(geometry: Geometry, double_precision: bool) -> _core.GradientPlan:
    """The plan of a locally connected convolution's gradient for the kernel."""
    lanes, itemsize = _core.lanes(double_precision), 8 if double_precision else 4
    window = _window_bytes(geometry, itemsize)
    boxed = geometry.batch > IN_PLACE_UP_TO if _forced_gradient is None else _forced_gradient == "boxed"
    image_bytes = _spread_bytes(window) + _spread_bytes(geometry.filters * itemsize)
    boxed = boxed and image_bytes <= CHUNK_LIMIT
    chunk = geometry.batch
    if boxed or geometry.channels_first:
        chunk = max(1, min(chunk, BATCH_SUM if boxed else chunk, CHUNK_LIMIT // image_bytes))
    filters = geometry.filters // geometry.groups
    vectors = _width(filters, lanes, double_precision)
    threads = threads_for(geometry)
    block = _local_block(geometry, chunk * geometry.channels * itemsize if boxed else 0, 0, _tasks(geometry, threads))
    blocks = prod(ceil(o / b) for o, b in zip(geometry.output, block, strict=True))
    panels = ceil(filters / (vectors * lanes)) * geometry.groups
    filter_parts = max(1, min(panels, threads * 2 // blocks)) if threads > 1 else 1
    return _core.GradientPlan(geometry, double_precision, True, "boxed" if boxed else "placed", vectors, vectors * lanes, block,
                              _segment(block[2], chunk * geometry.filters * itemsize), chunk, 1, filter_parts, threads)


def plan_local_grad_input(geometry: Geometry, double_precision: bool) -> _core.GradientPlan:
    """The plan of a locally connected convolution's gradient for the input."""
    lanes, itemsize = _core.lanes(double_precision), 8 if double_precision else 4
    boxed = _images_in_lanes_pay(geometry, lanes) if _forced_gradient is None else _forced_gradient == "boxed"
    vectors = min(ceil(geometry.batch / lanes), 2)
    tile = vectors * lanes
    pixel_bytes = geometry.channels * itemsize
    image_bytes = max(_spread_bytes(pixel_bytes), _spread_bytes(geometry.filters * itemsize))
    if tile * image_bytes > CHUNK_LIMIT:
        boxed = False
    if not boxed:
        vectors = tile = 1
    chunk = geometry.batch
    if boxed or geometry.channels_first:
        chunk = max(tile, min(ceil(chunk / tile), CHUNK_LIMIT // (tile * image_bytes)) * tile)
    threads = threads_for(geometry)
    block = _input_block(geometry, chunk * pixel_bytes if boxed else 0, _tasks(geometry, threads))
    return _core.GradientPlan(geometry, double_precision, False, "boxed" if boxed else "placed", vectors, 1, block,
                              _segment(geometry.output[2], chunk * geometry.filters * itemsize), chunk, tile, 1, threads)


def _images_in_lanes_pay(geometry: Geometry, lanes: int) -> bool:
    """Whether LANES window elements cost less with the images in the lanes than one image at a time, by counting instructions.

    One image: its products, half a cycle each, and a transpose with additions, some five for each of them.
    """
    filters = geometry.filters // geometry.groups
    one_image = ceil(filters / lanes) * lanes / 2 + 5 * lanes
    return ceil(geometry.batch / lanes) * filters * lanes / 2 < geometry.batch * one_image


def _segment(width: int, position_bytes: int) -> int:
    """Positions whose output gradients are brought into the workspace together."""
    return max(1, min(width, SEGMENT_TARGET // max(1, position_bytes)))


def _input_block(geometry: Geometry, pixel_bytes: int, tasks: int) -> tuple[int, ...]:
    """Input pixels of a task along each axis: wide, while the box stays in the cache and there are tasks enough."""
    block = [1, 1, 1]

    def touching(b: list[int]) -> float:
        """Windows that touch the block, for each of its pixels."""
        reach = ((k - 1) * d + n for k, d, n in zip(geometry.kernel, geometry.dilation, b, strict=True))
        return prod(reach) / prod(b)

    while True:
        best = None
        for axis in (2, 1, 0):
            wider = list(block)
            wider[axis] = min(2 * block[axis], geometry.input[axis])
            if wider == block or prod(ceil(n / b) for n, b in zip(geometry.input, wider, strict=True)) < tasks:
                continue
            if prod(wider) * pixel_bytes > BOX_TARGET:
                continue
            if best is None or touching(wider) < best[0]:
                best = touching(wider), wider
        if best is None:
            break
        block = best[1]
    return tuple(_even(n, b) for n, b in zip(geometry.input, block, strict=True))


def _spread_bytes(size: int) -> int:
    """Bytes from one image to the next in a box of the gradients (`lc_box_stride` in plan.h)."""
    return (ceil(size / LINE) | 1) * LINE


def _window_bytes(geometry: Geometry, itemsize: int) -> int:
    """Bytes of the smallest box of one image that holds a window, the pixels between dilated taps with it."""
    axes = zip(geometry.input, geometry.kernel, geometry.dilation, strict=True)
    return prod(min(n, (k - 1) * d + 1) for n, k, d in axes) * geometry.channels * itemsize


def _local_tile(geometry: Geometry, strategy: str, lanes: int, double_precision: bool) -> tuple[int, int, int]:
    """Vectors of a register tile, filters of a panel, images of a tile."""
    filters = geometry.filters // geometry.groups
    if strategy == "dot":
        return 1, 1, 4
    if strategy == "lanes":
        vectors = min(ceil(geometry.batch / lanes), 2 if filters > _core.rows_limit(double_precision, 4) else 4)
        return vectors, _even(filters, _core.rows_limit(double_precision, vectors)), vectors * lanes
    vectors = min(ceil(filters / lanes), 4 if geometry.batch <= IN_PLACE_UP_TO // 2 else 2)
    return vectors, vectors * lanes, _even(max(geometry.batch, 1), _core.rows_limit(double_precision, vectors))


def _local_block(geometry: Geometry, element_bytes: int, stage_bytes: int, tasks: int) -> tuple[int, ...]:
    """Output positions of a task along each axis.

    A block's input box is interleaved once, and neighbouring windows share it, so the block grows along the axis that brings the
    box's size per position down most, while box and stage stay in the cache and there are tasks enough.
    """
    block = [1, 1, 1]

    def boxes(b: list[int]) -> float:
        reach = [
            min(n, (o - 1) * s + (k - 1) * d + 1)
            for n, o, s, k, d in zip(geometry.input, b, geometry.strides, geometry.kernel, geometry.dilation, strict=True)
        ]
        return prod(reach)

    while True:
        best = None
        for axis in (2, 1, 0):
            wider = list(block)
            wider[axis] = min(2 * block[axis], geometry.output[axis])
            if wider == block or prod(ceil(o / b) for o, b in zip(geometry.output, wider, strict=True)) < tasks:
                continue
            if boxes(wider) * element_bytes + wider[2] * stage_bytes > CACHE_TARGET:
                continue
            cost = boxes(wider) / prod(wider) if element_bytes else -wider[2]
            if best is None or cost < best[0]:
                best = cost, wider
        if best is None:
            break
        block = best[1]
    # Blocks of equal size: no short one at the end.
    return tuple(_even(o, b) for o, b in zip(geometry.output, block, strict=True))


def _dot_fits(geometry: Geometry) -> bool:
    """Whether windows are runs of contiguous elements that a vector can load, against one filter."""
    along_taps = geometry.channels_first or geometry.channels // geometry.groups == 1
    step = geometry.dilation[2] * (1 if geometry.channels_first else geometry.channels) if along_taps else 1
    return geometry.filters == 1 and step == 1


def _width(filters: int, lanes: int, double_precision: bool) -> int:
    """Vectors side by side in a register tile with the filters in its lanes.

    Wide tiles need the fewest broadcasts, where the registers leave them six rows; then the width is the one whose last panel is
    fullest.
    """
    needed = ceil(filters / lanes)
    widest = 4 if _core.rows_limit(double_precision, 4) >= 6 else 2
    if needed <= widest:
        return needed
    return max(range(2, widest + 1), key=lambda v: (((needed - 1) % v + 1) / v, v))


def _zones(geometry: Geometry) -> int:
    """At most so many rectangles of output positions meet different taps."""
    zones = 1
    axes = zip(geometry.input, geometry.output, geometry.kernel, geometry.strides, geometry.dilation, geometry.before, strict=True)
    for n, o, k, s, d, before in axes:
        if before or (o - 1) * s + (k - 1) * d >= n:
            zones *= min(o, 2 * k + 1)
    return zones


def _filled(n: int, lanes: int) -> float:
    """How full the vectors are that hold n elements."""
    return n / (ceil(n / lanes) * lanes)


def _even(n: int, limit: int) -> int:
    """The size of the parts when n is cut into as few as possible, none larger than `limit`, as equal as can be."""
    return ceil(n / ceil(n / limit))
