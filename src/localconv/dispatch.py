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
from .geometry import Geometry

CONV_ALGORITHMS = ("direct", "im2col")
LOCAL_STRATEGIES = _core.STRATEGIES

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
# Kernel bytes of the panels that one task of a shared convolution keeps in the second-level cache.
PANELS_TARGET = 320 * 2**10

# Register tiles that go through all panels of a task before the next tiles do.
TILE_BLOCK = 16

_forced_conv: str | None = None
_forced_local: str | None = None


@contextlib.contextmanager
def forced(conv: str | None = None, local: str | None = None) -> Iterator[None]:
    """Force the algorithm of shared convolutions, the strategy of locally connected ones, or both, for tests and measurements.

    The setting is the process's, not the thread's. Raises ValueError for an unknown name; a call raises ValueError where the
    strategy cannot do its geometry ('dot' needs one filter and contiguous windows).
    """
    global _forced_conv, _forced_local
    if conv not in (None, *CONV_ALGORITHMS):
        raise ValueError(f"conv must be one of {CONV_ALGORITHMS} or None, got {conv!r}")
    if local not in (None, *LOCAL_STRATEGIES):
        raise ValueError(f"local must be one of {LOCAL_STRATEGIES} or None, got {local!r}")
    before = _forced_conv, _forced_local
    _forced_conv, _forced_local = conv, local
    try:
        yield
    finally:
        _forced_conv, _forced_local = before


def state() -> tuple[str | None, str | None, str, int]:
    """Everything besides the geometry and the element type that a plan depends on: a key for caches."""
    return _forced_conv, _forced_local, _core.get_isa(), _core.num_threads()


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


def plan_conv(geometry: Geometry, double_precision: bool) -> _core.ConvPlan:
    """The plan of a direct shared convolution."""
    lanes = _core.lanes(double_precision)
    threads = threads_for(geometry)
    group_filters = geometry.filters // geometry.groups
    vectors = _width(group_filters, lanes, double_precision)
    width = vectors * lanes
    panels = ceil(group_filters / width) * geometry.groups
    panel_bytes = geometry.depth * width * (8 if double_precision else 4)
    # The kernel's rows already lie in the order of the runs, and all filters fit one panel: read it in place.
    in_place = panels == 1 and (not geometry.channels_first or geometry.channels == 1)
    panel_parts = min(panels, ceil(panels * panel_bytes / PANELS_TARGET))
    tasks = _tasks(geometry, threads)
    tile_tasks = ceil(tasks / panel_parts)
    return _core.ConvPlan(geometry, double_precision, vectors, not in_place, panel_parts, tile_tasks, TILE_BLOCK, threads)


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
    window = geometry.depth * geometry.groups * itemsize
    vectors, panel_filters, tile = _local_tile(geometry, strategy, lanes, double_precision)
    if strategy in ("rows", "lanes") and tile * window > CHUNK_LIMIT:
        # Not even one position's window of one tile of images fits: read the images where they are.
        strategy = "stream"
        vectors, panel_filters, tile = _local_tile(geometry, strategy, lanes, double_precision)
    interleaved = strategy in ("rows", "lanes")
    chunk = max(tile, min(ceil(geometry.batch / tile), CHUNK_LIMIT // (tile * window)) * tile) if interleaved else geometry.batch
    staged = strategy == "lanes" or (geometry.channels_first and geometry.filters > 1)
    if staged:
        chunk = max(tile, min(chunk, CHUNK_LIMIT // (geometry.filters * itemsize * tile) * tile))
    threads = threads_for(geometry)
    tasks = _tasks(geometry, threads)
    element_bytes = chunk * geometry.channels * itemsize if interleaved else 0
    stage_bytes = chunk * geometry.filters * itemsize if staged else 0
    block = _local_block(geometry, element_bytes, stage_bytes, tasks)
    blocks = prod(ceil(o / b) for o, b in zip(geometry.output, block, strict=True))
    panels = ceil(geometry.filters // geometry.groups / panel_filters) * geometry.groups
    filter_parts = max(1, min(panels, threads * 2 // blocks)) if threads > 1 else 1
    return _core.LocalPlan(geometry, double_precision, strategy, vectors, panel_filters, block, chunk, tile, filter_parts, threads)


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
