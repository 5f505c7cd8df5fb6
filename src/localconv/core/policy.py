"""Which algorithm an operation takes and how its work is cut: all policy, and nothing else.

A plan proposes an algorithm with its choices (job.h says what they mean); the core answers with the bytes that they
need, and the plan shrinks them until they fit. How work is cut never changes the order in which one output value is
summed within an algorithm, but for the gradients of kernels; these are cut by the geometry and the element type alone.
So results depend neither on the number of threads nor on the sizes of the caches.

Numbers without a word about their origin were measured: ``benchmarks/tune.py`` tries others, and
``benchmarks/TUNING.md`` has what came out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from math import ceil, prod
from typing import Any, NamedTuple

from .._core import ALGORITHMS, CHANNEL_LANES, OPERATIONS, Job, Refused, has_channel_lanes, tile_limits
from .arguments import Ints
from .arrays import ElementType
from .columns import ColumnsForward, ColumnsGradInput, ColumnsGradKernel
from .families import CONV, FILTER, LOCAL, is_of
from .geometry import Geometry
from .machine import caches
from .settings import COLUMNS, Settings

# A thread's workspace must stay below this, whatever the arrays' sizes, but for the list of a window's runs.
WORKSPACE_LIMIT = 16 * 2**20
# Images are cut into chunks that need no more of it, if one tile of them does not. Not from the machine: kernel
# gradients are summed by chunks.
CHUNK_TARGET = 2**20
# What a task brings together should stay in the second-level cache of its core, with room for what streams through:
# boxes of inputs and staged results, boxes of input gradients, and the packed kernel's panels.
BOX_TARGET = int(0.5 * caches.second)
GRADIENT_BOX_TARGET = int(0.6 * caches.second)
PANELS_TARGET = int(0.3 * caches.second)
# What Winograd's algorithm brings together, where its kernel lies in that cache and where it does not.
WINOGRAD_TILES_BYTES = int(0.2 * caches.second)
WINOGRAD_STREAM_BYTES = int(0.45 * caches.second)
# Output gradients brought together for a few positions.
SEGMENT_TARGET = 2 * caches.first
# Tasks for each thread: enough to even out what the machine's other users take, few enough to cost nothing; and the
# multiply-adds that a task should have at least.
TASKS_PER_THREAD = 6
PRODUCTS_PER_TASK = 600_000
# What a single task for each thread must leave of the work: more tasks even out what the machine's other users take.
FEWER_TASKS = 0.9
# Multiply-adds of a shared convolution that a thread should have: it costs more than it brings below. And as how many
# of them the reading of an element counts that serves one image alone, of a local kernel and of filters that come with
# data, and as how many a multiply-add of such filters.
PRODUCTS_PER_THREAD = 500_000
READ, FILTER_READ, FILTER_PRODUCT = 6, 14, 4
# Rows that a filter's tile should have before it gets wider; taps that make up for transposing pixels: of the forward
# result, and of the gradient for the input.
FILTER_ROWS, MANY_TAPS = 4, {"filter_forward": 64, "filter_grad_input": 32}
# Channels of a group that leave most lanes of a vector empty.
FEW_CHANNELS = 4
# Filters of one line of a block, brought together there.
FILTER_LINE_TARGET = int(0.1 * caches.second)
# Images up to which reading them in place costs nothing: a tile has few rows then, and they do not crowd each other out
# of a cache set. Bytes from image to image, or from channel to channel, of which multiples crowd sooner.
IN_PLACE_UP_TO = 16
CROWDING = 4096
# The same where windows have no pixel in common: a line of theirs fills one of a cache, or is less.
READ_ONCE_UP_TO, PARTIAL_LINES_BATCH_LIMIT = 64, 24
# Steps of a window that all tiles of a position sum before the next ones, where its kernel is larger than the
# first-level cache: few enough to stay there, enough to make up for leaving a tile and coming back to it.
PIECE = 96
# Products of one output value from which transposing it, with the images in the lanes, no longer shows.
IMAGES_WINDOW = 200
# Rectangles of output positions that padding clips alike, beyond which the direct kernel's tiles would be mostly
# borders; and phases of a strided gradient for the input beyond which its tiles, and its plan, would be mostly
# overhead.
ZONES_LIMIT = 50_000
PHASES_LIMIT = 256
# What a vector of positions costs a vector of filters, which needs no box.
LINES_FILLED = 0.75
# Channels, filters of a group and tiles of outputs from which Winograd's algorithm gains more than its sums cost.
WINOGRAD_CHANNELS = 16
WINOGRAD_SQUARES = 64
# Register tiles that go through all panels of a task before the next tiles do.
TILE_BLOCK = 16
# How far ahead of what is written, in bytes, lines are asked for of kernel gradients that no cache of a core holds; and
# up to how many images: of more, writing is a small part.
WRITTEN_AHEAD = 16 * 2**10
WRITTEN_AHEAD_UP_TO = 32
# Images that a kernel gradient is summed over before it is added to the sum so far.
BATCH_SUM = 128
# Tasks of a reduction over positions, positions that each should have at least, and bytes of the kernel's slice of one
# task.
REDUCTION_TASKS = 16
REDUCTION_POSITIONS = 256
SLICE_TARGET = 384 * 2**10


class Whole(NamedTuple):
    """The images and filters of a convolution of which a call computes a part."""

    batch: int
    filters: int


class Planner:
    """Makes jobs of proposals for one operation on one geometry.

    `whole`: what it is a part of, perhaps itself; `images` is what was given, `geometry` what compiled algorithms
    compute of it; `limit`: threads that may be used; `channel_lanes`: tiles take the channels of a depthwise geometry
    side by side, as though they were one group. `lanes`, `rows`: elements of a vector, and rows of the largest
    register tile by its width in vectors, minus one. `groups`, `filters`, `channels`: groups that tiles keep apart,
    and of one of them. `in_planes`: a window lies in planes, one for each channel.
    """

    def __init__(
        self,
        operation: str,
        geometry: Geometry,
        element: ElementType,
        settings: Settings,
        limit: int,
        whole: Whole | None,
        channel_lanes: bool,
    ) -> None:
        self.operation = operation
        self.whole = whole or Whole(geometry.batch, geometry.filters)
        self.images = geometry
        self.geometry = geometry.one_row() if is_of(operation, CONV) else geometry
        self.element, self.settings, self.channel_lanes = element, settings, channel_lanes
        self.lanes, self.itemsize, self.rows = tile_limits(settings.isa, element.number, channel_lanes)
        work = geometry.products
        if is_of(operation, LOCAL):
            work += READ * work // geometry.batch
        elif is_of(operation, FILTER):
            work = FILTER_PRODUCT * work + FILTER_READ * work * geometry.groups // geometry.channels
        self.threads = max(1, min(limit, work // PRODUCTS_PER_THREAD))
        self.tasks = 1
        if self.threads > 1:
            self.tasks = max(self.threads, min(self.threads * TASKS_PER_THREAD, work // PRODUCTS_PER_TASK))
        self.groups = 1 if channel_lanes else geometry.groups
        self.filters, self.channels = geometry.filters // self.groups, geometry.channels // self.groups
        self.in_planes = geometry.channels_first and geometry.channels > 1

    def job(self, algorithm: str, geometry: Geometry | None = None, **choices: Any) -> Job:
        """The job of a candidate; `Refused` if the algorithm cannot do it."""
        geometry, element = geometry or self.geometry, self.element
        isa, number, storage = self.settings.isa, element.number, element.storage
        return Job(geometry, isa, number, storage, algorithm, choices, self.threads, element.bank)

    def shrunk(self, chunk: int, tile: int, job: Callable[[int], Job]) -> Job:
        """The job of the largest chunk of images, up to `chunk`, whose workspace keeps to the target.

        Or that of one tile.
        """
        while True:
            candidate = job(chunk)
            if candidate.work_bytes <= CHUNK_TARGET or chunk <= tile:
                return candidate
            fitting = int(chunk * CHUNK_TARGET / 2 / candidate.work_bytes) // tile * tile
            chunk = max(tile, min(fitting, chunk - 1))

    def grown(
        self,
        size: Ints,
        job: Callable[[Ints], Job],
        fits: Callable[[Job, Ints], bool],
        cost: Callable[[Job, Ints], float],
        tasks: int,
    ) -> Ints:
        """The block that one of 1 x 1 x 1 grows to, an axis at a time the one that costs least,
        while it fits and leaves so many tasks.
        """
        block: Ints = (1, 1, 1)
        while True:
            candidates = []
            for axis in (2, 1, 0):
                wider = tuple(min(2 * n, size[axis]) if k == axis else n for k, n in enumerate(block))
                if wider == block or _blocks(size, wider) < tasks:
                    continue
                candidate = job(wider)
                if fits(candidate, wider):
                    candidates.append((cost(candidate, wider), wider))
            if not candidates:
                # Blocks of equal size: no short one at the end.
                return tuple(_even(n, b) for n, b in zip(size, block, strict=True))
            block = min(candidates, key=lambda candidate: candidate[0])[1]

    def width(self, filters: int) -> int:
        """Vectors side by side in a register tile with so many filters in its lanes.

        Wide tiles need the fewest broadcasts, where the registers leave them six rows; then the width is the one whose
        last panel is fullest.
        """
        needed = ceil(filters / self.lanes)
        widest = 4 if self.rows[-1] >= 6 else 2
        if needed <= widest:
            return needed
        return max(range(2, widest + 1), key=lambda v: (((needed - 1) % v + 1) / v, v))

    def in_place_up_to(self) -> int:
        """Images up to which they are read in place: fewer where a window lies in planes, more where no pixel would
        be read again.
        """
        g = self.geometry
        if self.in_planes:
            return 1 if self.planes_crowd() else IN_PLACE_UP_TO // 4
        if self.read_once():
            return READ_ONCE_UP_TO if self.side_by_side() * self.itemsize >= 64 else PARTIAL_LINES_BATCH_LIMIT
        return IN_PLACE_UP_TO // 2 if prod(g.input) * g.channels * self.itemsize % CROWDING == 0 else IN_PLACE_UP_TO

    def read_once(self) -> bool:
        """Whether windows have no pixel in common, and do not lie in planes."""
        g = self.geometry
        apart = all(axis.outputs == 1 or axis.stride >= axis.reach for axis in g.axes)
        return apart and not self.in_planes

    def side_by_side(self) -> int:
        """Elements of a window that are neighbours."""
        g = self.geometry
        if g.channels_first or g.channels == 1:
            return g.kernel[2]
        return g.channels * (g.kernel[2] if g.dilation[2] == 1 else 1)

    def planes_crowd(self) -> bool:
        """Whether the channels of a window fall into the same sets of a cache."""
        return self.in_planes and prod(self.geometry.input) * self.itemsize % CROWDING == 0

    def filter_parts(self, panel_filters: int, blocks: int) -> int:
        """Tasks that share a block where there are few blocks."""
        panels = ceil(self.filters / panel_filters) * self.groups
        return max(1, min(panels, self.threads * 2 // blocks)) if self.threads > 1 else 1

    def segment(self, width: int, images: int) -> int:
        """Positions whose output gradients are brought into the workspace together."""
        return max(1, min(width, SEGMENT_TARGET // max(1, images * self.geometry.filters * self.itemsize)))


def plan(
    operation: str, geometry: Geometry, element: ElementType, settings: Settings, limit: int, whole: Whole | None = None
) -> Any:
    """The job of an operation: a `Job`, or one of columns.py. whole: it is a part of that, and gets the bits that it
    has there.

    ValueError if a forced algorithm cannot do the geometry.
    """
    by_groups = planner = Planner(operation, geometry, element, settings, limit, whole, channel_lanes=False)
    if has_channel_lanes(geometry):
        planner = Planner(operation, geometry, element, settings, limit, whole, channel_lanes=True)
    candidates, make = _PLANS[operation]
    chosen: Iterable[str] = [name for name in settings.forced if name in make] or candidates(planner)
    for name in chosen:
        try:
            job = make[name](planner if name in CHANNEL_LANES else by_groups, name)
        except Refused:
            continue
        if job is not None:
            return job
    raise ValueError(f"the algorithm {', '.join(chosen)} cannot do this geometry: {geometry}")


# ---------------------------------------------------------------------------------------- locally connected convolution


def sums_by_lanes(batch: int, filters: int, side_by_side: int, lanes: int) -> bool:
    """Whether a locally connected convolution is a matter of dot products: one filter, and few images or full vectors.

    Their lanes sum parts of a window; everything else sums it in the kernel's order, one element after the other: so
    this is asked of a whole convolution, not of a part of it that is computed apart.
    """
    return filters == 1 and (batch < lanes or side_by_side >= lanes)


def _local_algorithms(p: Planner) -> list[str]:
    """The best algorithm for a locally connected convolution, and what does any geometry."""
    g = p.geometry
    if p.channel_lanes:
        return ["local_stream"]
    images, filters = _filled(g.batch, p.lanes), _filled(p.filters, p.lanes)
    in_place = g.batch <= p.in_place_up_to()
    if p.read_once():  # pixels would be transposed for one window alone
        in_lanes = images > (2 if in_place else 1) * filters
    else:
        full = g.batch >= 2 * p.lanes and (p.filters <= p.lanes or g.window >= IMAGES_WINDOW)
        in_lanes = images > filters or (full and images == filters)
    best = "local_images" if g.batch >= p.lanes and in_lanes else "local_stream" if in_place else "local_rows"
    dots = sums_by_lanes(*p.whole, p.side_by_side(), p.lanes)
    return [*(["local_dot"] if dots else []), best, "local_stream"]


def _local(p: Planner, algorithm: str) -> Job | None:
    """None: not even one position of one tile of images fits the workspace."""
    g, piece = p.geometry, 0
    if algorithm == "local_dot":
        vectors, panel_filters, tile = 1, 1, 4
    elif algorithm == "local_images":
        vectors = min(ceil(g.batch / p.lanes), 2 if p.filters > p.rows[3] else 4)
        panel_filters, tile = _even(p.filters, p.rows[vectors - 1]), vectors * p.lanes
    else:
        # All images in one tile read the kernel once; if there are more, tall tiles read it less often than wide ones.
        one_tile = g.batch <= p.rows[-1]
        vectors = min(ceil(p.filters / p.lanes), len(p.rows), 4 if one_tile else 2)
        panel_filters, tile = vectors * p.lanes, _even(g.batch, p.rows[vectors - 1])
        again = g.batch > tile or p.filters * p.groups > panel_filters
        if again and not one_tile and not p.channel_lanes and g.window * g.filters * p.itemsize > caches.first:
            piece = _even(g.window, PIECE)

    def job(block: Ints, chunk: int, tile: int = tile, parts: int = 1) -> Job:
        choices: dict[str, Any] = {"block": block, "batch_tile": tile, "batch_chunk": chunk, "filter_parts": parts}
        return p.job(algorithm, vectors=vectors, piece=piece, **choices)

    smallest = p.shrunk(ceil(g.batch / tile) * tile, tile, lambda chunk: job((1, 1, 1), chunk))
    while smallest.work_bytes > WORKSPACE_LIMIT:
        if algorithm != "local_stream" or tile == 1:
            return None if algorithm != "local_stream" else smallest
        tile //= 2
        smallest = job((1, 1, 1), tile, tile)
    chunk = smallest.batch_chunk

    def cost(candidate: Job, block: Ints) -> float:
        return candidate.box_bytes / prod(block) if candidate.box_bytes else -block[2]

    block = p.grown(
        g.output,
        lambda block: job(block, chunk, tile),
        lambda candidate, _: candidate.work_bytes <= BOX_TARGET,
        cost,
        p.tasks,
    )
    return job(block, chunk, tile, p.filter_parts(panel_filters, _blocks(g.output, block)))


def _local_grad_kernel_algorithms(p: Planner) -> list[str]:
    buffered = p.geometry.batch > p.in_place_up_to()
    return ["local_kernel_buffered" if buffered else "local_kernel_direct", "local_kernel_direct"]


def _local_grad_kernel(p: Planner, algorithm: str) -> Job | None:
    """None: not even one position of one image fits the workspace. The chunk of images is what sums follow."""
    g = p.geometry
    buffered = algorithm == "local_kernel_buffered"
    vectors = p.width(p.filters)
    row = g.filters * p.itemsize
    far = g.positions * g.window * row > caches.second and g.batch <= WRITTEN_AHEAD_UP_TO
    ahead = ceil(WRITTEN_AHEAD / row) if far else 0

    def job(block: Ints, chunk: int, segment: int = 1, parts: int = 1) -> Job:
        choices: dict[str, Any] = {"block": block, "batch_chunk": chunk, "segment": segment, "filter_parts": parts}
        return p.job(algorithm, vectors=vectors, rows_ahead=ahead, **choices)

    smallest = p.shrunk(min(g.batch, BATCH_SUM) if buffered else g.batch, 1, lambda chunk: job((1, 1, 1), chunk))
    if buffered and smallest.work_bytes > WORKSPACE_LIMIT:
        return None
    chunk = smallest.batch_chunk
    block = p.grown(
        g.output,
        lambda block: job(block, chunk),
        lambda candidate, _: candidate.box_bytes <= BOX_TARGET,
        lambda candidate, block: candidate.box_bytes / prod(block) if candidate.box_bytes else -block[2],
        p.tasks,
    )
    return job(block, chunk, p.segment(block[2], chunk), p.filter_parts(vectors * p.lanes, _blocks(g.output, block)))


def _local_grad_input_algorithms(p: Planner) -> list[str]:
    """Buffered where LANES window elements cost less with the images in the lanes than one image at a time, by counting
    instructions.

    One image: its products, half a cycle each, and a transpose with additions, some five for each of them. The box and
    the gradients brought into the lanes: as much as three images, with 16 filters. Planes that crowd cost one image
    twice as much.
    """
    if p.channel_lanes:
        return ["local_input_direct"]
    one_image = ceil(p.filters / p.lanes) * p.lanes / 2 + 5 * p.lanes
    together = ceil(p.geometry.batch / p.lanes) * p.filters * p.lanes / 2
    beside = 3 / 16 * min(p.filters, p.lanes) * one_image
    buffered = together + beside < p.geometry.batch * one_image * (2 if p.planes_crowd() else 1)
    return ["local_input_buffered" if buffered else "local_input_direct", "local_input_direct"]


def _local_grad_input(p: Planner, algorithm: str) -> Job | None:
    """None: not even one pixel of one tile of images fits the workspace."""
    g = p.geometry
    buffered = algorithm == "local_input_buffered"
    vectors = min(ceil(g.batch / p.lanes), 2) if buffered else 1
    tile = vectors * p.lanes if buffered else 1

    def job(block: Ints, chunk: int, segment: int = 1) -> Job:
        return p.job(algorithm, vectors=vectors, block=block, batch_tile=tile, batch_chunk=chunk, segment=segment)

    smallest = p.shrunk(ceil(g.batch / tile) * tile, tile, lambda chunk: job((1, 1, 1), chunk))
    if buffered and smallest.work_bytes > WORKSPACE_LIMIT:
        return None
    chunk, reaches = smallest.batch_chunk, [axis.reach for axis in g.axes]

    def touching(block: Ints) -> float:
        """Windows that touch the block, for each of its pixels."""
        return prod(reach - 1 + n for reach, n in zip(reaches, block, strict=True)) / prod(block)

    def fits(candidate: Job, block: Ints) -> bool:
        return candidate.box_bytes <= GRADIENT_BOX_TARGET

    def work(block: Ints) -> float:
        """How often a position is gone through, and how long the last tasks take, to one that has all to itself."""
        blocks = _blocks(g.input, block)
        return touching(block) * ceil(blocks / p.threads) * p.threads / blocks

    def grown(tasks: int) -> Ints:
        return p.grown(g.input, lambda block: job(block, chunk), fits, lambda _, block: touching(block), tasks)

    block = grown(p.tasks)
    if p.tasks > p.threads:
        few = grown(p.threads)
        block = few if work(few) < FEWER_TASKS * work(block) else block
    return job(block, chunk, p.segment(g.output[2], chunk))


# --------------------------------------------------------------------------------------------------- shared convolution


def _conv_algorithms(p: Planner, *compiled: str) -> list[str]:
    """The compiled algorithms, which read the input in place and win wherever their vectors are full, and what they
    leave.

    On Apple's processors NumPy's BLAS (Accelerate) drives matrix hardware that no vector kernel reaches, so there large
    products go through it. So does a kernel so large that nearly every position could be clipped by padding in a way of
    its own: the compiled algorithms refuse it.
    """
    g = p.geometry
    if sys.platform == "darwin" and g.groups == 1 and g.window >= 64 and g.filters >= 32:
        return [COLUMNS]
    return [*compiled, COLUMNS]


def _conv_forward_algorithms(p: Planner) -> list[str]:
    """Positions in the lanes where filters would leave more of them empty."""
    width = p.geometry.output[2]
    lines = (
        not p.channel_lanes
        and width >= p.lanes
        and _filled(p.filters, p.lanes) < LINES_FILLED * _filled(width, p.lanes)
    )
    winograd = p.settings.winograd and not p.channel_lanes and _gains_by_winograd(p)
    special = [*(["conv_winograd"] if winograd else []), *(["conv_lines"] if lines else [])]
    return _conv_algorithms(p, *special, "conv_direct")


def _gains_by_winograd(p: Planner) -> bool:
    """For what Winograd's algorithm can do: the core refuses the rest."""
    tiles = p.geometry.batch * p.geometry.positions // 4
    return min(p.channels, p.filters) >= WINOGRAD_CHANNELS and tiles >= WINOGRAD_SQUARES


def _conv_grad_input_algorithms(p: Planner) -> list[str]:
    """Pixels in the lanes where channels are few; by phases while these are."""
    g = p.geometry
    if prod(min(s, k, n) for s, k, n in zip(g.strides, g.kernel, g.input, strict=True)) > PHASES_LIMIT:
        return [COLUMNS]
    narrow = (
        not p.channel_lanes and p.channels * 2 <= p.lanes and g.output[2] >= p.lanes and g.strides[2] <= g.kernel[2]
    )
    return _conv_algorithms(p, *(["conv_narrow"] if narrow else []), "conv_phases")


def _conv_grad_kernel_algorithms(p: Planner) -> list[str]:
    return _conv_algorithms(p, "conv_reduction")


def _conv(p: Planner, algorithm: str) -> Job:
    filters = p.filters if algorithm == "conv_direct" else p.channels
    return p.job(
        algorithm,
        vectors=p.width(filters),
        tasks=p.tasks,
        panel_bytes=PANELS_TARGET,
        tile_block=TILE_BLOCK,
        zone_limit=ZONES_LIMIT,
    )


def _conv_winograd(p: Planner, algorithm: str) -> Job | None:
    """As many tiles of outputs together as the second-level cache has room for: beside the kernel where that fits
    too, else more of them, since the kernel comes from farther away for each batch. None: one batch is too large.
    """
    g = p.geometry
    vectors = p.width(p.filters)
    rows = p.rows[vectors - 1]

    def job(tiles: int) -> Job:
        return p.job(algorithm, vectors=vectors, tile_block=tiles)

    smallest = job(rows)
    if smallest.thread_bytes > WORKSPACE_LIMIT:
        return None
    tiles = g.batch * g.output[0] * ceil(g.output[1] / min(2, g.kernel[1])) * ceil(g.output[2] / 2)
    near = smallest.shared_bytes <= caches.second // 2
    target, tasks = (WINOGRAD_TILES_BYTES, p.tasks) if near else (WINOGRAD_STREAM_BYTES, p.threads)
    batches = max(tasks, ceil(tiles / (rows * max(1, target // smallest.thread_bytes))))
    return job(ceil(tiles / (ceil(batches / p.threads) * p.threads)))


def _conv_narrow(p: Planner, algorithm: str) -> Job | None:
    """Cut along the width are pixels of the padded input in steps of the stride (conv_narrow.h has the letters)."""
    g = p.geometry
    step, before = g.strides[2], g.before[2]
    return _by_lines(p, algorithm, (*g.input[:2], (before + g.input[2] - 1) // step + 1 - before // step))


def _conv_lines(p: Planner, algorithm: str) -> Job | None:
    return _by_lines(p, algorithm, p.geometry.output)


def _by_lines(p: Planner, algorithm: str, size: Ints) -> Job | None:
    """Blocks of lines, as large as fit. None: even the smallest workspace is too large."""
    tasks = ceil(p.tasks / p.geometry.batch)

    def job(vectors: int, block: Ints) -> Job:
        blocks = tuple(_even(n, b) for n, b in zip(size, block, strict=True))
        return p.job(algorithm, vectors=vectors, block=blocks, zone_limit=ZONES_LIMIT)

    for vectors in range(min(4, ceil(size[2] / p.lanes)), 0, -1):
        block: Ints = (1, 1, min(size[2], vectors * p.lanes))
        best = job(vectors, block)
        if best.work_bytes <= WORKSPACE_LIMIT:
            break
    else:
        return None
    for axis in (2, 1, 0):
        while block[axis] < size[axis]:
            wider = tuple(min(size[axis], 2 * n) if k == axis else n for k, n in enumerate(block))
            try:
                candidate = job(vectors, wider)
            except Refused:  # too large to be counted
                break
            if candidate.work_bytes > GRADIENT_BOX_TARGET or _blocks(size, wider) < tasks:
                break
            best, block = candidate, wider
    return best


def _conv_reduction(p: Planner, algorithm: str) -> Job:
    """Nothing but the geometry and the element type cuts the sums."""
    g = p.geometry
    vectors = p.width(p.filters)
    panels = ceil(p.filters / (vectors * p.lanes)) * p.groups
    tasks = max(1, min(REDUCTION_TASKS, g.products // PRODUCTS_PER_TASK))
    slices = ceil(g.window * g.filters * p.itemsize / SLICE_TARGET)
    position_parts = min(ceil(tasks / slices), max(1, g.batch * g.positions // REDUCTION_POSITIONS))
    slices = max(slices, ceil(tasks / position_parts))
    panel_parts = min(panels, slices)
    row_parts = min(ceil(slices / panel_parts), ceil(g.window / p.rows[vectors - 1]))
    return p.job(
        algorithm,
        vectors=vectors,
        position_parts=position_parts,
        panel_parts=panel_parts,
        row_parts=row_parts,
        zone_limit=ZONES_LIMIT,
    )


# ------------------------------------------------------------------------------------------ filters that come with data


def _filter_algorithms(p: Planner) -> list[str]:
    """Results in the lanes where channels would leave most of them empty, or where lines lie in planes and a window has
    too few taps to make up for transposing pixels.
    """
    g = p.geometry
    channels = g.channels // g.groups
    if g.channels_first:
        few = channels < p.lanes or (channels <= 2 * p.lanes and g.window <= MANY_TAPS[p.operation])
    else:
        few = channels < p.lanes and channels <= max(p.lanes // 4, FEW_CHANNELS)
    by_channels = "filter_channels" if p.operation == "filter_forward" else "filter_input_channels"
    return [*([by_channels.replace("channels", "positions")] if few else []), by_channels]


def _filter_grad_kernel_algorithms(p: Planner) -> list[str]:
    """Positions in the lanes where dot products would be short, or lines lie in planes."""
    few = p.geometry.channels_first or p.geometry.channels // p.geometry.groups < p.lanes
    return [*(["filter_kernel_positions"] if few else []), "filter_dots"]


def _filter(p: Planner, algorithm: str) -> Job | None:
    """Blocks of neighbouring results, as large as the cache has room for what a task brings together.

    None: lines of planes, zeros around them included, are too long. With channels in the lanes one result's pixels and
    filters are brought together at least, which are no more than the arrays have.
    """
    g = p.geometry
    size = g.input if algorithm.startswith("filter_input") else g.output
    channels = g.channels // g.groups
    by_positions = algorithm.endswith("positions")
    images = g.kernel_batch if OPERATIONS[ALGORITHMS[algorithm]][2] == "kernel" else g.batch
    tasks = ceil(p.tasks / (images * (g.groups if by_positions else 1)))
    rows = g.kernel[2] if algorithm == "filter_kernel_positions" else channels if by_positions else FILTER_ROWS
    widest = 4 if p.rows[3] >= min(rows, FILTER_ROWS) else 2
    vectors = max(1, min(widest, ceil(size[2] / p.lanes) if by_positions else channels // p.lanes))

    def job(block: Ints) -> Job:
        return p.job(algorithm, vectors=vectors, block=block)

    def cost(_: Job, block: Ints) -> float:
        """Pixels that are brought together for each result."""
        return prod(n + reach for n, reach in zip(block, (a.reach for a in g.axes), strict=True)) / prod(block)

    def fits(candidate: Job, block: Ints) -> bool:
        line = block[2] * prod(g.kernel) * p.itemsize if by_positions and not g.channels_first else 0
        return candidate.thread_bytes <= BOX_TARGET and (line <= FILTER_LINE_TARGET or block[2] <= vectors * p.lanes)

    if by_positions and job((1, 1, 1)).work_bytes > GRADIENT_BOX_TARGET:
        return None
    return job(p.grown(size, job, fits, cost, tasks))


# -------------------------------------------------------------------------------------------------------------- columns


def _windows(p: Planner, algorithm: str) -> Job:
    return p.job(algorithm, tasks=p.tasks)


def _columns(kind: Callable[..., Any]) -> Callable[[Planner, str], Any]:
    """The plan of an operation by columns of one image and group at a time."""

    def make(p: Planner, _: str) -> Any:
        one = p.images.one_group()
        return kind(p.images, one, p.job("im2col", one, tasks=p.tasks), p.job("col2im", one, tasks=1))

    return make


_PLANS: dict[str, tuple[Callable[[Planner], list[str]], dict[str, Callable[[Planner, str], Any]]]] = {
    "local_forward": (
        _local_algorithms,
        dict.fromkeys(("local_dot", "local_stream", "local_rows", "local_images"), _local),
    ),
    "local_grad_kernel": (
        _local_grad_kernel_algorithms,
        dict.fromkeys(("local_kernel_direct", "local_kernel_buffered"), _local_grad_kernel),
    ),
    "local_grad_input": (
        _local_grad_input_algorithms,
        dict.fromkeys(("local_input_direct", "local_input_buffered"), _local_grad_input),
    ),
    "conv_forward": (
        _conv_forward_algorithms,
        {
            "conv_direct": _conv,
            "conv_lines": _conv_lines,
            "conv_winograd": _conv_winograd,
            COLUMNS: _columns(ColumnsForward),
        },
    ),
    "conv_grad_input": (
        _conv_grad_input_algorithms,
        {"conv_phases": _conv, "conv_narrow": _conv_narrow, COLUMNS: _columns(ColumnsGradInput)},
    ),
    "conv_grad_kernel": (
        _conv_grad_kernel_algorithms,
        {"conv_reduction": _conv_reduction, COLUMNS: _columns(ColumnsGradKernel)},
    ),
    "filter_forward": (_filter_algorithms, dict.fromkeys(("filter_channels", "filter_positions"), _filter)),
    "filter_grad_input": (
        _filter_algorithms,
        dict.fromkeys(("filter_input_channels", "filter_input_positions"), _filter),
    ),
    "filter_grad_kernel": (
        _filter_grad_kernel_algorithms,
        dict.fromkeys(("filter_dots", "filter_kernel_positions"), _filter),
    ),
    "im2col": (lambda _: ["im2col"], {"im2col": _windows}),
    "col2im": (lambda _: ["col2im"], {"col2im": _windows}),
}


def _blocks(size: Ints, block: Ints) -> int:
    """Into how many blocks of that size, or less at the ends, something is cut."""
    return prod(ceil(n / b) for n, b in zip(size, block, strict=True))


def _filled(n: int, lanes: int) -> float:
    """How full the vectors are that hold n elements."""
    return n / (ceil(n / lanes) * lanes)


def _even(n: int, limit: int) -> int:
    """The size of the parts when n is cut into as few as possible, none larger than `limit`, as equal as can be."""
    return ceil(n / ceil(n / limit))
