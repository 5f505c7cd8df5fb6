# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: embedsignature=False, freethreading_compatible=True
"""The compiled floor: typed memoryviews in, OpenMP `prange` over tasks, register tiles from ``include/localconv``.

Nothing is decided or checked here. Arrays come flat, contiguous, aligned and native (arrays.py); how the work is cut comes in a
plan (dispatch.py). What is here and nowhere else: threads, workspaces and the choice of the compiled instance.
"""

from cython.parallel cimport prange
from libc.stdint cimport uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from os import environ as _environ

cdef extern from "localconv/threads.h" nogil:
    int lc_openmp_version()
    int lc_openmp_threads()
    int lc_processors()
    int lc_thread()
    int lc_forked
    void lc_watch_forks()

cdef extern from "localconv/kernels.h" nogil:
    ctypedef struct lc_geometry:
        ptrdiff_t batch, channels, filters, groups
        ptrdiff_t[3] input, output, kernel, strides, dilation, before
        int channels_first
        ptrdiff_t positions, depth
        ptrdiff_t[3] output_stride
        ptrdiff_t output_batch, output_channel, output_origin
    ctypedef struct lc_ran:
        const char *isa
        const char *dtype
    ctypedef struct lc_call:
        const lc_geometry *geometry
        const void *input
        const void *kernel
        const void *gradient
        const void *bias
        void *output
        int accumulate
        ptrdiff_t bias_position, bias_filter
        int relu
        lc_ran *ran
    ctypedef struct lc_local_plan:
        int strategy, vectors
        ptrdiff_t panel_filters
        ptrdiff_t[3] block
        ptrdiff_t filter_parts, batch_chunk, batch_tile
        ptrdiff_t workspace
    ctypedef struct lc_zone:
        pass
    ctypedef struct lc_taps:
        int transposed
        ptrdiff_t[3] first, step, kernel
    ctypedef struct lc_conv_plan:
        int vectors, pack
        lc_taps taps
        ptrdiff_t panels, panel_parts, tile_parts, tiles, tile_block
        const lc_zone *zones
        ptrdiff_t zone_count
        ptrdiff_t packed_bytes, workspace
    ctypedef struct lc_gradient_plan:
        int strategy, vectors
        ptrdiff_t panel_filters
        ptrdiff_t[3] block
        ptrdiff_t filter_parts, segment, batch_chunk, batch_tile, workspace
    ctypedef struct lc_reduction_plan:
        int vectors, pack
        ptrdiff_t position_parts, panel_parts, row_parts, blocks
        const lc_zone *zones
        ptrdiff_t zone_count
        ptrdiff_t workspace, partial_bytes
    ctypedef struct lc_narrow_plan:
        int vectors
        ptrdiff_t[3] block
        ptrdiff_t packed_bytes, workspace
    ctypedef struct lc_kernels:
        int lanes
        int (*rows_limit)(int vectors) noexcept nogil
        void (*local_task)(const lc_call *, const lc_local_plan *, ptrdiff_t task, char *workspace) noexcept nogil
        void (*conv_pack)(const lc_call *, const lc_conv_plan *, ptrdiff_t task, ptrdiff_t parts, void *packed) noexcept nogil
        void (*conv_task)(const lc_call *, const lc_conv_plan *, ptrdiff_t task, const void *kernel, char *workspace) noexcept nogil
        void (*im2col_window)(const lc_geometry *, void *image, ptrdiff_t index, void *row, int scatter, lc_ran *) noexcept nogil
        void (*local_gradient_kernel_task)(const lc_call *, const lc_gradient_plan *, ptrdiff_t task, char *workspace) noexcept nogil
        void (*local_gradient_input_task)(const lc_call *, const lc_gradient_plan *, ptrdiff_t task, char *workspace) noexcept nogil
        void (*conv_gradient_kernel_task)(const lc_call *, const lc_reduction_plan *, ptrdiff_t task, void *partial,
                                          char *workspace) noexcept nogil
        void (*conv_gradient_kernel_sum)(const lc_call *, const lc_reduction_plan *, ptrdiff_t first, ptrdiff_t last,
                                         const void *partial) noexcept nogil
        void (*narrow_pack)(const lc_call *, const lc_narrow_plan *, void *packed) noexcept nogil
        void (*conv_narrow_task)(const lc_call *, const lc_narrow_plan *, ptrdiff_t task, const void *packed,
                                 char *workspace) noexcept nogil
    ctypedef struct lc_isa:
        const char *name
        int needs
        const lc_kernels *f32
        const lc_kernels *f64
    const lc_isa *lc_isas
    int lc_isa_count
    int LC_ALIGNMENT
    const char **lc_local_strategies
    int lc_local_strategy_count
    const char **lc_gradient_strategies
    int lc_gradient_strategy_count
    int lc_cpu_features()
    void lc_derive(lc_geometry *)
    ptrdiff_t lc_align(ptrdiff_t)
    ptrdiff_t lc_ceil_div(ptrdiff_t, ptrdiff_t)
    ptrdiff_t lc_finish_local_plan(const lc_geometry *, lc_local_plan *, ptrdiff_t itemsize)
    ptrdiff_t lc_count_zones(const lc_geometry *)
    ptrdiff_t lc_make_zones(const lc_geometry *, int rows, lc_zone *)
    void lc_finish_conv_plan(const lc_geometry *, lc_conv_plan *, int lanes, int rows, ptrdiff_t itemsize)
    ptrdiff_t lc_finish_gradient_plan(const lc_geometry *, lc_gradient_plan *, int for_kernel, ptrdiff_t itemsize)
    ptrdiff_t lc_make_reduction_zones(const lc_geometry *, lc_zone *)
    ptrdiff_t lc_finish_narrow_plan(const lc_geometry *, lc_narrow_plan *, int lanes, ptrdiff_t itemsize)
    void lc_finish_reduction_plan(const lc_geometry *, lc_reduction_plan *, int lanes, ptrdiff_t itemsize)

ctypedef fused real:
    float
    double

cdef int _strategy
LOCAL_STRATEGIES = tuple([lc_local_strategies[_strategy].decode() for _strategy in range(lc_local_strategy_count)])
GRADIENT_STRATEGIES = tuple([lc_gradient_strategies[_strategy].decode() for _strategy in range(lc_gradient_strategy_count)])


# ---------------------------------------------------------------------------------------------------------------- instruction sets

cdef const lc_isa *_isa = NULL


def available_isas():
    """Names of the instruction sets that were compiled in and that this machine can run, best first."""
    cdef int features = lc_cpu_features(), i
    return tuple([lc_isas[i].name.decode() for i in range(lc_isa_count) if lc_isas[i].needs & features == lc_isas[i].needs])


def set_isa(str name not None):
    """Use the instruction set of that name for the calls that follow. Raises ValueError if it cannot run here."""
    global _isa
    cdef int features = lc_cpu_features(), i
    for i in range(lc_isa_count):
        if lc_isas[i].name.decode() == name and lc_isas[i].needs & features == lc_isas[i].needs:
            _isa = &lc_isas[i]
            return
    raise ValueError(f"instruction set {name!r} is unknown or cannot run here; available: {', '.join(available_isas())}")


def get_isa():
    """Name of the instruction set in use."""
    return _isa.name.decode()


def lanes(bint double_precision):
    """Elements of one vector of the instruction set in use."""
    return _kernels(double_precision).lanes


def rows_limit(bint double_precision, int vectors):
    """Rows of the largest register tile that is `vectors` (1 to 4) vectors wide."""
    return _kernels(double_precision).rows_limit(vectors)


cdef inline const lc_kernels *_kernels(bint double_precision) noexcept nogil:
    return _isa.f64 if double_precision else _isa.f32


# ------------------------------------------------------------------------------------------------------------------------- threads

cdef int _threads_set = 0        # by set_num_threads; 0: not
cdef int _threads_environment = 0  # LOCALCONV_NUM_THREADS; 0: not set, -1: refused at first use


def set_num_threads(n):
    """The core of `config.set_num_threads`: 0 goes back to the environment."""
    global _threads_set
    _threads_set = n


def openmp_version():
    """The OpenMP version (yyyymm) that this module was compiled with, 0 without OpenMP."""
    return lc_openmp_version()


def num_threads():
    """Threads that a large call would use now."""
    cdef int n = _threads_set or _threads_environment or lc_openmp_threads()
    if n < 0:
        raise ValueError(f"LOCALCONV_NUM_THREADS must be an integer of at least 1, got {_environ.get('LOCALCONV_NUM_THREADS')!r}")
    if lc_forked:
        return 1  # forks.h says why
    return max(1, min(n, lc_processors()))


# --------------------------------------------------------------------------------------------------------------------- the last run

cdef struct Run:
    const char *operation
    lc_ran ran
    const char *strategy
    int threads

cdef Run _last

# What a call's signature is until a kernel signs: a body that forgets to is found out by `last_run`, and crashes nothing.
cdef lc_ran NOTHING_RAN
NOTHING_RAN.isa = b"nothing"
NOTHING_RAN.dtype = b"nothing"
_last.ran, _last.strategy = NOTHING_RAN, b"nothing"


def last_run():
    """What the newest call in this process ran: operation, isa and dtype (as signed by the compiled kernel), strategy, threads."""
    if _last.operation == NULL:
        return None
    return {
        "operation": _last.operation.decode(),
        "isa": _last.ran.isa.decode(),
        "dtype": {b"f32": "float32", b"f64": "float64"}[_last.ran.dtype],
        "strategy": _last.strategy.decode(),
        "threads": _last.threads,
    }


cdef void _remember(const char *operation, lc_ran ran, const char *strategy, int threads) noexcept:
    _last.ran = ran
    _last.strategy = strategy
    _last.threads = threads
    _last.operation = operation  # last: whoever sees it finds the others


# --------------------------------------------------------------------------------------------------------------------------- plans

cdef void _read_geometry(lc_geometry *g, geometry) except *:
    cdef int axis
    g.batch, g.channels, g.filters, g.groups = geometry.batch, geometry.channels, geometry.filters, geometry.groups
    for axis in range(3):
        g.input[axis], g.output[axis], g.kernel[axis] = geometry.input[axis], geometry.output[axis], geometry.kernel[axis]
        g.strides[axis], g.dilation[axis] = geometry.strides[axis], geometry.dilation[axis]
        g.before[axis] = geometry.before[axis]
    g.channels_first = geometry.channels_first
    lc_derive(g)


cdef class LocalPlan:
    """How one locally connected convolution is cut into tasks, for one element type and instruction set.

    Made by dispatch.py. `block`: output positions of a task along the three axes; `batch_chunk`, `batch_tile`: images that are
    interleaved together, and those of one register tile; `panel_filters`: filters of one register tile; `filter_parts`: tasks
    that share a block.
    """
    cdef lc_geometry geometry
    cdef lc_local_plan plan
    cdef const lc_kernels *kernels
    cdef ptrdiff_t tasks
    cdef int threads

    def __cinit__(self, geometry, bint double_precision, str strategy, int vectors, ptrdiff_t panel_filters, block,
                  ptrdiff_t batch_chunk, ptrdiff_t batch_tile, ptrdiff_t filter_parts, int threads):
        cdef int axis
        cdef lc_local_plan *p = &self.plan
        _read_geometry(&self.geometry, geometry)
        self.kernels = _kernels(double_precision)
        self.threads = threads
        p.strategy = LOCAL_STRATEGIES.index(strategy)
        p.vectors, p.panel_filters, p.filter_parts = vectors, panel_filters, filter_parts
        p.batch_chunk, p.batch_tile = batch_chunk, batch_tile
        for axis in range(3):
            p.block[axis] = block[axis]
        self.tasks = lc_finish_local_plan(&self.geometry, p, 8 if double_precision else 4)

    @property
    def workspace(self):
        """Bytes of one thread's workspace."""
        return self.plan.workspace

    @property
    def strategy(self):
        """Name of the strategy."""
        return LOCAL_STRATEGIES[self.plan.strategy]


cdef struct Phase:
    lc_geometry geometry
    lc_conv_plan plan
    lc_zone *zones
    ptrdiff_t first_task, first_pack, packed_at


cdef void _place_phase(lc_geometry *g, lc_taps *taps, phase) except *:
    """Lets a phase write every `step`-th pixel of the array that all phases share, and read its own taps of the caller's kernel."""
    cdef int axis
    g.output_stride[2] = 1 if g.channels_first else g.filters
    g.output_stride[1] = g.output_stride[2] * <ptrdiff_t> phase.pixels[2]
    g.output_stride[0] = g.output_stride[1] * <ptrdiff_t> phase.pixels[1]
    g.output_batch = g.output_stride[0] * <ptrdiff_t> phase.pixels[0] * (g.filters if g.channels_first else 1)
    g.output_channel = g.output_stride[0] * <ptrdiff_t> phase.pixels[0] if g.channels_first else 1
    g.output_origin = 0
    taps.transposed = 1
    for axis in range(3):
        g.output_origin += <ptrdiff_t> phase.first_pixel[axis] * g.output_stride[axis]
        g.output_stride[axis] *= <ptrdiff_t> phase.step[axis]
        taps.first[axis], taps.step[axis], taps.kernel[axis] = phase.first_tap[axis], phase.step[axis], phase.kernel[axis]


cdef class ConvPlan:
    """How one direct shared convolution is cut into tasks, for one element type and instruction set.

    Made by dispatch.py. `cuts`: for every phase (one, unless this is a strided gradient for the input) what follows. The phase: a
    Geometry, or a geometry.Phase of a gradient for the input. `vectors`: width of a register tile and of a packed panel;
    `panel_parts`, `tile_parts`: the tasks, as parts of the panels and of the register tiles; `tile_block`: tiles that meet all
    panels of a part before the next tiles do; `pack`: whether the kernel must be packed or already lies as one panel.
    """
    cdef Phase *phases
    cdef ptrdiff_t count, tasks, pack_tasks, packed_bytes, workspace_bytes
    cdef const lc_kernels *kernels
    cdef int threads

    def __cinit__(self, cuts, bint double_precision, int threads):
        cdef Phase *phase
        self.kernels = _kernels(double_precision)
        self.threads = threads
        self.phases = <Phase *> calloc(len(cuts), sizeof(Phase))
        if self.phases == NULL:
            raise MemoryError
        for cut in cuts:
            phase = &self.phases[self.count]
            self.count += 1
            phase.first_task, phase.first_pack, phase.packed_at = self.tasks, self.pack_tasks, self.packed_bytes
            self._cut(phase, cut, 8 if double_precision else 4)
            self.tasks += phase.plan.panel_parts * phase.plan.tile_parts
            self.pack_tasks += phase.plan.panels * _pack_parts(phase) if phase.plan.pack else 0
            self.packed_bytes += lc_align(phase.plan.packed_bytes)
            self.workspace_bytes = max(self.workspace_bytes, lc_align(phase.plan.workspace))

    cdef int _cut(self, Phase *phase, cut, ptrdiff_t itemsize) except -1:
        cdef lc_geometry *g = &phase.geometry
        cdef lc_conv_plan *p = &phase.plan
        cdef int rows
        shape, p.vectors, p.pack, p.panel_parts, p.tile_parts, p.tile_block = cut
        if hasattr(shape, "first_tap"):
            _read_geometry(g, shape.geometry)
            _place_phase(g, &p.taps, shape)
        else:
            _read_geometry(g, shape)
        rows = self.kernels.rows_limit(p.vectors)
        p.zone_count = lc_count_zones(g)
        phase.zones = <lc_zone *> malloc(p.zone_count * sizeof(lc_zone))
        if phase.zones == NULL:
            raise MemoryError
        p.zones = phase.zones
        p.tiles = lc_make_zones(g, rows, phase.zones)
        lc_finish_conv_plan(g, p, self.kernels.lanes, rows, itemsize)
        return 0

    def __dealloc__(self):
        cdef ptrdiff_t i
        if self.phases != NULL:
            for i in range(self.count):
                free(self.phases[i].zones)
        free(self.phases)

    @property
    def workspace(self):
        """Bytes of the packed kernel, and of one thread's workspace."""
        return self.packed_bytes, self.workspace_bytes


cdef inline ptrdiff_t _pack_parts(const Phase *phase) noexcept nogil:
    return lc_ceil_div(phase.geometry.depth, 64)


cdef class GradientPlan:
    """How one gradient of a locally connected convolution is cut into tasks, for one element type and instruction set.

    Made by dispatch.py. `for_kernel`: the gradient for the kernel, else for the input; `block`: output positions of a task (kernel)
    or input pixels (input); `segment`: positions whose output gradients are brought into the workspace together; the rest as in
    `LocalPlan`.
    """
    cdef lc_geometry geometry
    cdef lc_gradient_plan plan
    cdef const lc_kernels *kernels
    cdef ptrdiff_t tasks
    cdef int threads
    cdef bint for_kernel

    def __cinit__(self, geometry, bint double_precision, bint for_kernel, str strategy, int vectors, ptrdiff_t panel_filters, block,
                  ptrdiff_t segment, ptrdiff_t batch_chunk, ptrdiff_t batch_tile, ptrdiff_t filter_parts, int threads):
        cdef int axis
        cdef lc_gradient_plan *p = &self.plan
        _read_geometry(&self.geometry, geometry)
        self.kernels = _kernels(double_precision)
        self.threads = threads
        self.for_kernel = for_kernel
        p.strategy = GRADIENT_STRATEGIES.index(strategy)
        p.vectors, p.panel_filters, p.filter_parts, p.segment = vectors, panel_filters, filter_parts, segment
        p.batch_chunk, p.batch_tile = batch_chunk, batch_tile
        for axis in range(3):
            p.block[axis] = block[axis]
        self.tasks = lc_finish_gradient_plan(&self.geometry, p, for_kernel, 8 if double_precision else 4)

    @property
    def workspace(self):
        """Bytes of one thread's workspace."""
        return self.plan.workspace

    @property
    def strategy(self):
        """Name of the strategy."""
        return GRADIENT_STRATEGIES[self.plan.strategy]


cdef class ReductionPlan:
    """How the gradient for a shared kernel is cut into tasks, for one element type and instruction set.

    Made by dispatch.py, from the geometry alone. `position_parts`: partial gradients; `panel_parts`, `row_parts`: slices of the
    kernel; `pack`: whether output gradients are brought together before they are read.
    """
    cdef lc_geometry geometry
    cdef lc_reduction_plan plan
    cdef const lc_kernels *kernels
    cdef lc_zone *zones
    cdef int threads

    def __cinit__(self, geometry, bint double_precision, int vectors, bint pack, ptrdiff_t position_parts, ptrdiff_t panel_parts,
                  ptrdiff_t row_parts, int threads):
        cdef lc_geometry *g = &self.geometry
        cdef lc_reduction_plan *p = &self.plan
        _read_geometry(g, geometry)
        self.kernels = _kernels(double_precision)
        self.threads = threads
        p.vectors, p.pack = vectors, pack
        p.position_parts, p.panel_parts, p.row_parts = position_parts, panel_parts, row_parts
        p.zone_count = lc_count_zones(g)
        self.zones = <lc_zone *> malloc(p.zone_count * sizeof(lc_zone))
        if self.zones == NULL:
            raise MemoryError
        p.zones = self.zones
        p.blocks = lc_make_reduction_zones(g, self.zones)
        cdef ptrdiff_t itemsize = 8 if double_precision else 4
        lc_finish_reduction_plan(g, p, self.kernels.lanes, itemsize)

    def __dealloc__(self):
        free(self.zones)

    @property
    def workspace(self):
        """Bytes of the partial gradients, and of one thread's workspace."""
        return self.plan.partial_bytes, self.plan.workspace


cdef class NarrowPlan:
    """How the gradient for an input of few channels is cut into tasks, for one element type and instruction set.

    Made by dispatch.py. `vectors`: width of a register tile, in pixels; `block`: a task's pixels along depth and height, and along
    the width its m (conv_narrow.h).
    """
    cdef lc_geometry geometry
    cdef lc_narrow_plan plan
    cdef const lc_kernels *kernels
    cdef ptrdiff_t tasks
    cdef int threads

    def __cinit__(self, geometry, bint double_precision, int vectors, block, int threads):
        cdef int axis
        _read_geometry(&self.geometry, geometry)
        self.kernels = _kernels(double_precision)
        self.threads = threads
        self.plan.vectors = vectors
        for axis in range(3):
            self.plan.block[axis] = block[axis]
        cdef ptrdiff_t itemsize = 8 if double_precision else 4
        self.tasks = lc_finish_narrow_plan(&self.geometry, &self.plan, self.kernels.lanes, itemsize)

    @property
    def workspace(self):
        """Bytes of the packed kernel, and of one thread's workspace."""
        return self.plan.packed_bytes, self.plan.workspace


# ---------------------------------------------------------------------------------------------------------------------- operations

# Elements of a kernel whose partial gradients are added up together.
cdef enum: SUM_ELEMENTS = 4096


cdef inline char *_aligned(void *memory) noexcept nogil:
    return <char *> ((<uintptr_t> memory + LC_ALIGNMENT - 1) // LC_ALIGNMENT * LC_ALIGNMENT)


cdef inline lc_call _call(const lc_geometry *g, real[::1] out, lc_ran *ran) noexcept:
    """A call with its result and nothing else yet."""
    cdef lc_call call
    memset(&call, 0, sizeof(call))
    call.geometry = g
    call.output = <void *> &out[0]
    call.bias_filter = 1
    call.ran = ran
    return call


def local_forward(LocalPlan plan not None, const real[::1] x not None, const real[::1] kernel not None, const real[::1] bias,
                  real[::1] out not None, bint relu=False):
    """Locally connected convolution: out = act(sum over the window of x * kernel + bias).

    All arrays flat: x (batch, input, channels) or (batch, channels, input), kernel (positions, depth, filters), bias None or
    (filters,) or positions * filters values as Keras stores them, out (batch, positions, filters) or (batch, filters, positions).
    The batch must not be empty. relu: act is max(0, .), else the identity.
    """
    cdef lc_ran ran = NOTHING_RAN
    cdef lc_call call = _call(&plan.geometry, out, &ran)
    cdef ptrdiff_t task, tasks = plan.tasks, size = lc_align(plan.plan.workspace)
    cdef int threads = plan.threads
    cdef void *memory
    cdef char *workspace
    call.input, call.kernel, call.relu = <const void *> &x[0], <const void *> &kernel[0], relu
    if bias is not None:
        call.bias = <const void *> &bias[0]
    if bias is not None and bias.shape[0] > plan.geometry.filters:
        # Keras reshapes a full bias to (filters, positions) for channels_first: layers in layouts of their own rely on it.
        call.bias_position = 1 if plan.geometry.channels_first else plan.geometry.filters
        call.bias_filter = plan.geometry.positions if plan.geometry.channels_first else 1
    with nogil:
        memory = malloc(threads * size + LC_ALIGNMENT)
        if memory != NULL:
            workspace = _aligned(memory)
            if threads == 1:  # without OpenMP's half microsecond
                for task in range(tasks):
                    plan.kernels.local_task(&call, &plan.plan, task, workspace)
            else:
                for task in prange(tasks, schedule="dynamic", chunksize=1, num_threads=threads):
                    plan.kernels.local_task(&call, &plan.plan, task, workspace + lc_thread() * size)
            free(memory)
    if memory == NULL:
        raise MemoryError(f"no {threads * size} bytes of workspace for local_forward")
    _remember("local_forward", ran, lc_local_strategies[plan.plan.strategy], threads)


def conv_forward(ConvPlan plan not None, const real[::1] x not None, const real[::1] kernel not None, const real[::1] bias,
                 real[::1] out not None, bint relu=False):
    """Shared convolution, direct: out = act(sum over the window of x * kernel + bias).

    All arrays flat: x (batch, input, channels) or (batch, channels, input), kernel (taps, channels / groups, filters), bias None
    or (filters,), out (batch, positions, filters) or (batch, filters, positions). The batch must not be empty.
    """
    cdef lc_ran ran = NOTHING_RAN
    cdef lc_call call = _call(&plan.phases[0].geometry, out, &ran)
    cdef int threads
    call.input, call.kernel, call.relu = <const void *> &x[0], <const void *> &kernel[0], relu
    if bias is not None:
        call.bias = <const void *> &bias[0]
    threads = _run_conv(plan, &call)
    _remember("conv_forward", ran, "direct", threads)


cdef inline const Phase *_phase_of(ConvPlan plan, ptrdiff_t task, bint packing) noexcept nogil:
    cdef ptrdiff_t i = plan.count - 1
    while i > 0 and (plan.phases[i].first_pack if packing else plan.phases[i].first_task) > task:
        i -= 1
    return &plan.phases[i]


cdef void _conv_task(ConvPlan plan, const lc_call *call, ptrdiff_t task, char *packed, char *workspace) noexcept nogil:
    cdef const Phase *phase = _phase_of(plan, task, False)
    cdef const void *lanes = packed + phase.packed_at if phase.plan.pack else call.kernel
    plan.kernels.conv_task(call, &phase.plan, task - phase.first_task, lanes, workspace)


cdef void _pack_task(ConvPlan plan, const lc_call *call, ptrdiff_t task, char *packed) noexcept nogil:
    cdef const Phase *phase = _phase_of(plan, task, True)
    plan.kernels.conv_pack(call, &phase.plan, task - phase.first_pack, _pack_parts(phase), packed + phase.packed_at)


cdef int _run_conv(ConvPlan plan, const lc_call *call) except -1:
    """Packs the kernel and runs all phases; returns the threads used."""
    cdef ptrdiff_t task, size = plan.workspace_bytes, bytes_needed
    cdef int threads = plan.threads
    cdef void *memory
    cdef char *packed
    cdef char *workspace
    bytes_needed = plan.packed_bytes + threads * size
    with nogil:
        memory = malloc(bytes_needed + LC_ALIGNMENT)
        if memory != NULL:
            packed = _aligned(memory)
            workspace = packed + plan.packed_bytes
            for task in prange(plan.pack_tasks, schedule="static", num_threads=threads, use_threads_if=threads > 1):
                _pack_task(plan, call, task, packed)
            if threads == 1:
                for task in range(plan.tasks):
                    _conv_task(plan, call, task, packed, workspace)
            else:
                for task in prange(plan.tasks, schedule="dynamic", chunksize=1, num_threads=threads):
                    _conv_task(plan, call, task, packed, workspace + lc_thread() * size)
            free(memory)
    if memory == NULL:
        raise MemoryError(f"no {bytes_needed} bytes of workspace for a convolution")
    return threads


def local_grad_kernel(GradientPlan plan not None, const real[::1] x not None, const real[::1] grad_output not None,
                      real[::1] out not None, bint accumulate=False):
    """Gradient of `local_forward` for its kernel: out[p] (+)= sum over the images of window(p) x grad_output[p].

    All arrays flat, laid out as in `local_forward`. The batch must not be empty.
    """
    cdef lc_ran ran = NOTHING_RAN
    cdef lc_call call = _call(&plan.geometry, out, &ran)
    call.input, call.gradient, call.accumulate = <const void *> &x[0], <const void *> &grad_output[0], accumulate
    _run_gradient(plan, &call, "local_grad_kernel")


def local_grad_input(GradientPlan plan not None, const real[::1] kernel not None, const real[::1] grad_output not None,
                     real[::1] out not None):
    """Gradient of `local_forward` for its input: out = sum over the positions that see a pixel of their kernel x grad_output.

    All arrays flat, laid out as in `local_forward`. The batch must not be empty.
    """
    cdef lc_ran ran = NOTHING_RAN
    cdef lc_call call = _call(&plan.geometry, out, &ran)
    call.kernel, call.gradient = <const void *> &kernel[0], <const void *> &grad_output[0]
    _run_gradient(plan, &call, "local_grad_input")


cdef int _run_gradient(GradientPlan plan, lc_call *call, const char *operation) except -1:
    cdef ptrdiff_t task, size = lc_align(plan.plan.workspace)
    cdef int threads = plan.threads
    cdef void *memory
    cdef char *workspace
    with nogil:
        memory = malloc(threads * size + LC_ALIGNMENT)
        if memory != NULL:
            workspace = _aligned(memory)
            if threads == 1:
                for task in range(plan.tasks):
                    _gradient_task(plan, call, task, workspace)
            else:
                for task in prange(plan.tasks, schedule="dynamic", chunksize=1, num_threads=threads):
                    _gradient_task(plan, call, task, workspace + lc_thread() * size)
            free(memory)
    if memory == NULL:
        raise MemoryError(f"no {threads * size} bytes of workspace for {operation.decode()}")
    _remember(operation, call.ran[0], lc_gradient_strategies[plan.plan.strategy], threads)
    return 0


cdef void _gradient_task(GradientPlan plan, const lc_call *call, ptrdiff_t task, char *workspace) noexcept nogil:
    if plan.for_kernel:
        plan.kernels.local_gradient_kernel_task(call, &plan.plan, task, workspace)
    else:
        plan.kernels.local_gradient_input_task(call, &plan.plan, task, workspace)


def conv_grad_input(ConvPlan plan not None, const real[::1] kernel not None, const real[::1] grad_output not None,
                    real[::1] out not None):
    """Gradient of `conv_forward` for its input: a convolution of grad_output, in phases where it was strided.

    All arrays flat, laid out as in `conv_forward`. Pixels that no phase has are not written. The batch must not be empty.
    """
    cdef lc_ran ran = NOTHING_RAN
    cdef lc_call call
    cdef int threads
    if plan.count == 0:
        return  # no window meets a pixel
    call = _call(&plan.phases[0].geometry, out, &ran)
    call.input, call.kernel = <const void *> &grad_output[0], <const void *> &kernel[0]
    threads = _run_conv(plan, &call)
    _remember("conv_grad_input", ran, "direct", threads)


def conv_grad_input_narrow(NarrowPlan plan not None, const real[::1] kernel not None, const real[::1] grad_output not None,
                           real[::1] out not None):
    """`conv_grad_input` for few channels. Every pixel is written."""
    cdef lc_ran ran = NOTHING_RAN
    cdef lc_call call = _call(&plan.geometry, out, &ran)
    cdef ptrdiff_t task, size = lc_align(plan.plan.workspace), packed_size = lc_align(plan.plan.packed_bytes)
    cdef int threads = plan.threads
    cdef void *memory
    cdef char *packed
    call.kernel, call.gradient = <const void *> &kernel[0], <const void *> &grad_output[0]
    with nogil:
        memory = malloc(packed_size + threads * size + LC_ALIGNMENT)
        if memory != NULL:
            packed = _aligned(memory)
            plan.kernels.narrow_pack(&call, &plan.plan, packed)
            for task in prange(plan.tasks, schedule="dynamic", chunksize=1, num_threads=threads, use_threads_if=threads > 1):
                plan.kernels.conv_narrow_task(&call, &plan.plan, task, packed, packed + packed_size + lc_thread() * size)
            free(memory)
    if memory == NULL:
        raise MemoryError(f"no {packed_size + threads * size} bytes of workspace for conv_grad_input")
    _remember("conv_grad_input", ran, "narrow", threads)


def conv_grad_kernel(ReductionPlan plan not None, const real[::1] x not None, const real[::1] grad_output not None,
                     real[::1] out not None, bint accumulate=False):
    """Gradient of `conv_forward` for its kernel: out (+)= sum over images and positions of window x grad_output.

    All arrays flat, laid out as in `conv_forward`. The batch must not be empty.
    """
    cdef lc_ran ran = NOTHING_RAN
    cdef lc_call call = _call(&plan.geometry, out, &ran)
    cdef lc_reduction_plan *p = &plan.plan
    cdef ptrdiff_t task, size = lc_align(p.workspace), partial_size = lc_align(p.partial_bytes), elements = out.shape[0]
    cdef ptrdiff_t tasks = p.position_parts * p.panel_parts * p.row_parts, sums = lc_ceil_div(elements, SUM_ELEMENTS)
    cdef int threads = plan.threads
    cdef void *memory
    cdef void *partial
    cdef char *workspace
    call.input, call.gradient, call.accumulate = <const void *> &x[0], <const void *> &grad_output[0], accumulate
    with nogil:
        memory = malloc(partial_size + threads * size + LC_ALIGNMENT)
        if memory != NULL:
            workspace = _aligned(memory) + partial_size
            partial = _aligned(memory) if partial_size else NULL
            for task in prange(tasks, schedule="dynamic", chunksize=1, num_threads=threads, use_threads_if=threads > 1):
                plan.kernels.conv_gradient_kernel_task(&call, p, task, partial, workspace + lc_thread() * size)
            if partial != NULL:
                for task in prange(sums, schedule="static", num_threads=threads, use_threads_if=threads > 1):
                    plan.kernels.conv_gradient_kernel_sum(&call, p, task * SUM_ELEMENTS, min(elements, (task + 1) * SUM_ELEMENTS),
                                                          partial)
            free(memory)
    if memory == NULL:
        raise MemoryError(f"no {partial_size + threads * size} bytes of workspace for conv_grad_kernel")
    _remember("conv_grad_kernel", ran, "direct", threads)


def im2col(geometry, const real[::1] x not None, real[::1] columns not None, ptrdiff_t first=0, int threads=1):
    """Windows first, first + 1, ... of all images' positions, each a row of `columns`, as many as it has room for."""
    cdef lc_geometry g
    cdef lc_ran ran = NOTHING_RAN
    cdef const lc_kernels *kernels = _kernels(real is double)
    cdef ptrdiff_t i, count
    cdef lc_ran *record
    cdef int team = threads
    _read_geometry(&g, geometry)
    count = columns.shape[0] // g.depth
    for i in prange(count, schedule="static", num_threads=team, use_threads_if=team > 1, nogil=True):
        record = &ran if i == 0 else NULL
        kernels.im2col_window(&g, <void *> &x[0], first + i, <void *> &columns[i * g.depth], 0, record)
    _remember("im2col", ran, "im2col", team)


def col2im(geometry, const real[::1] columns not None, real[::1] x not None, ptrdiff_t first=0, int threads=1):
    """Adds every row of `columns`, those of windows first, first + 1, ..., to the window of `x` that it came from.

    One image is one task, so that sums keep their order.
    """
    cdef lc_geometry g
    cdef lc_ran ran = NOTHING_RAN
    cdef const lc_kernels *kernels = _kernels(real is double)
    cdef ptrdiff_t image, i, last
    cdef lc_ran *record
    cdef int team = threads
    _read_geometry(&g, geometry)
    last = first + columns.shape[0] // g.depth
    for image in prange(g.batch, schedule="static", num_threads=team, use_threads_if=team > 1, nogil=True):
        for i in range(max(first, image * g.positions), min(last, (image + 1) * g.positions)):
            record = &ran if i == first else NULL
            kernels.im2col_window(&g, <void *> &x[0], i, <void *> &columns[(i - first) * g.depth], 1, record)
    _remember("col2im", ran, "im2col", team)


# ---------------------------------------------------------------------------------------------------------------- the environment

cdef int _read_environment() except -1:
    global _threads_environment
    set_isa(available_isas()[0])
    if "LOCALCONV_ISA" in _environ:
        try:
            set_isa(_environ["LOCALCONV_ISA"])
        except ValueError as error:
            raise ValueError(f"LOCALCONV_ISA: {error}") from None
    if "LOCALCONV_NUM_THREADS" in _environ:
        # Short enough for int(), which refuses thousands of digits.
        digits = _environ["LOCALCONV_NUM_THREADS"].strip().lstrip("0")
        _threads_environment = int(digits) if digits.isdecimal() and len(digits) <= 10 and 1 <= int(digits) < 2**31 else -1
    return 0


_read_environment()
lc_watch_forks()
