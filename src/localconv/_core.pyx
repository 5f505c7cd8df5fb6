# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: embedsignature=False, freethreading_compatible=True
"""The compiled floor: buffers in, OpenMP `prange` over tasks, register tiles from ``include/localconv``.

Nothing is decided or checked here. Arrays come contiguous, aligned and native (arrays.py); which algorithm and
how its work is cut is proposed by policy.py. What is here and nowhere else: making a `Job` of that, and the one runner,
with its threads and workspaces.
"""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.pycapsule cimport PyCapsule_New
from cython.parallel cimport prange
from libc.stdint cimport int32_t, int64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset, strcmp

from os import environ as _environ
from sys import byteorder as _byteorder

cdef extern from "localconv/threads.h" nogil:
    int lc_openmp_version()
    uintptr_t lc_openmp_address()
    int lc_openmp_threads()
    int lc_processors()
    int lc_thread()
    int64_t lc_now()
    ctypedef struct lc_first_thread:
        int64_t began, ended
    int lc_forked
    void lc_watch_forks()

cdef extern from "localconv/busy.h" nogil:
    ctypedef struct lc_pace:
        int64_t alone
    void lc_forget_stalls()
    int lc_team(const lc_pace *, double products, int threads, int64_t now)
    void lc_note_call(lc_pace *, int threads, int64_t start, int64_t now, int64_t waited)

cdef extern from "localconv/machine.h" nogil:
    ctypedef struct lc_caches:
        ptrdiff_t first, second, last
    lc_caches lc_read_caches()
    void lc_ask_for_huge_pages(uintptr_t address, size_t size)

cdef extern from "localconv/kernels.h" nogil:
    ctypedef struct lc_geometry:
        ptrdiff_t batch, channels, filters, groups
        ptrdiff_t[3] input, output, kernel, strides, dilation, pad_before
        int channels_first, channel_lanes, by_group, inside
        ptrdiff_t kernel_batch
        ptrdiff_t positions
    ctypedef struct lc_ran:
        const char *isa
        const char *dtype
    ctypedef struct lc_call:
        const void *input
        const void *kernel
        const void *gradient
        const void *bias
        const float *scales
        const void *weights
        const int32_t *indices
        const char *packed
        void *result
        int accumulate, relu
        ptrdiff_t bias_position, bias_filter, first, count
        lc_ran *ran
    ctypedef struct lc_family:
        const char *name
    ctypedef struct lc_operation:
        const char *name
        const lc_family *family
        int reads[2]
        int makes
    ctypedef struct lc_algorithm:
        const char *name
        const lc_operation *operation
    ctypedef struct lc_choices:
        ptrdiff_t vectors, batch_chunk, piece
    ctypedef struct lc_choice:
        const char *name
        size_t count, offset
    ctypedef struct lc_dtype:
        const char *name
        const char *numpy
    ctypedef struct lc_storage:
        const char *numpy
        int scaled
    ctypedef struct lc_kernels:
        const char *isa
        int lanes, itemsize
        int *rows
    ctypedef struct lc_isa:
        const char *name
        int needs
        const lc_kernels **kernels
    ctypedef struct lc_bank:
        ptrdiff_t filters, terms
        int indexed, weighted
    ctypedef struct lc_job:
        lc_geometry geometry
        lc_choices choices
        const lc_kernels *kernels
        int algorithm, storage
        lc_bank bank
        ptrdiff_t *tasks
        ptrdiff_t shared_bytes, thread_bytes, list_bytes, box_bytes, memory_bytes
    const char *const *lc_arrays
    const lc_operation *lc_operations
    const lc_algorithm *lc_algorithms
    const lc_choice *lc_choice_table
    const lc_dtype *lc_dtypes
    const lc_storage *lc_storages
    const lc_isa *lc_isas
    int lc_operation_count, lc_algorithm_count, lc_choice_count, lc_dtype_count, lc_storage_count, lc_isa_count
    int LC_OK, LC_NO_MEMORY, LC_f32, LC_native, LC_ALIGNMENT, LC_TILE_VECTORS, LC_PASSES
    int LC_CHANNEL_LANES_ROWS, LC_CHANNEL_LANES_VECTORS
    int LC_input, LC_kernel, LC_output, LC_columns
    int lc_can_have_channel_lanes(int algorithm) noexcept nogil
    int lc_packs_kernel(const lc_job *) noexcept nogil
    int lc_cpu_features()
    ptrdiff_t lc_align(ptrdiff_t)
    ptrdiff_t lc_elements(const lc_job *, const lc_call *, int array)
    ptrdiff_t lc_scale_count(const lc_job *)
    ptrdiff_t lc_kernel_size(const lc_job *)
    bint lc_reads(const lc_job *, int array)
    void lc_derive(lc_geometry *)
    double lc_products(const lc_geometry *)
    int lc_make_job(lc_job *)
    void lc_free_job(lc_job *)
    void lc_run_task(const lc_job *, const lc_call *, int, ptrdiff_t, char *, char *)

cdef extern from "localconv/runner.h" nogil:
    ctypedef struct lc_runner:
        int (*threads)() noexcept nogil
        int64_t (*settings)() noexcept nogil
        int (*run)(void *job, lc_call *call) noexcept nogil
    const char *LC_RUNNER_CAPSULE
    int LC_KEPT_BYTES, LC_KEPT_PARTS

# -------------------------------------------------------------------------------------------------- what is compiled in

cdef int _i

# How formats of buffers name this machine's byte order.
cdef char _native_order = b"<" if _byteorder == "little" else b">"

# Bytes of the plans that a cache keeps, and the parts of them of which a plan may be one.
KEPT_BYTES, KEPT_PARTS = LC_KEPT_BYTES, LC_KEPT_PARTS

# The family of every operation, the arrays that it reads, and the one that it makes.
OPERATIONS = {
    lc_operations[_i].name.decode(): (
        lc_operations[_i].family.name.decode(),
        (lc_arrays[lc_operations[_i].reads[0]].decode(), lc_arrays[lc_operations[_i].reads[1]].decode()),
        lc_arrays[lc_operations[_i].makes].decode(),
    )
    for _i in range(lc_operation_count)
}
# The operation of every algorithm, in the order of the list in job.h.
ALGORITHMS = {
    lc_algorithms[_i].name.decode(): lc_algorithms[_i].operation.name.decode() for _i in range(lc_algorithm_count)
}
# Those whose tiles can have channel lanes.
CHANNEL_LANES = frozenset([name for _i, name in enumerate(ALGORITHMS) if lc_can_have_channel_lanes(_i)])
# NumPy's names of the element types, in the order of the list in dtypes.h.
DTYPES = tuple([lc_dtypes[_i].numpy.decode() for _i in range(lc_dtype_count)])

# NumPy's names of the types in which kernels may be stored while all else is float32; the first: as all else is.
STORAGES = tuple([lc_storages[_i].numpy.decode() for _i in range(lc_storage_count)])


class Refused(ValueError):
    """An algorithm cannot do a geometry with the choices that were proposed."""


def available_isas():
    """Names of the instruction sets that were compiled in and that this machine can run, best first."""
    cdef int i
    return tuple([lc_isas[i].name.decode() for i in range(lc_isa_count) if _runs_here(i)])


cdef bint _runs_here(int isa) noexcept:
    return lc_isas[isa].needs & lc_cpu_features() == lc_isas[isa].needs


cdef const lc_kernels *_find_kernels(str isa, int dtype) except NULL:
    cdef int i
    for i in range(lc_isa_count):
        if lc_isas[i].name.decode() == isa and _runs_here(i):
            return lc_isas[i].kernels[dtype]
    raise ValueError(f"instruction set {isa!r} is unknown or cannot run here; available: {', '.join(available_isas())}")


def tile_limits(str isa not None, int dtype, bint channel_lanes=False):
    """Elements of a vector, bytes of an element, rows of the largest register tile that is 1, 2, 3, 4 vectors wide;
    of tiles with channel lanes there are fewer widths.
    """
    cdef const lc_kernels *kernels = _find_kernels(isa, dtype)
    cdef int vectors
    if channel_lanes:
        return kernels.lanes, kernels.itemsize, (LC_CHANNEL_LANES_ROWS,) * LC_CHANNEL_LANES_VECTORS
    return kernels.lanes, kernels.itemsize, tuple([kernels.rows[vectors] for vectors in range(1, LC_TILE_VECTORS + 1)])


def cache_sizes():
    """Bytes of the first-level data cache, the second-level and the last-level one; 0: the system does not tell."""
    cdef lc_caches caches = lc_read_caches()
    return caches.first, caches.second, caches.last


def ask_for_huge_pages(uintptr_t address, size_t size):
    """Ask for huge pages for an array that nobody has touched yet, as NumPy does for its own."""
    lc_ask_for_huge_pages(address, size)


# -------------------------------------------------------------------------------------------------------------- threads

# By the user, by the environment, by the container's quota; 0: nothing.
cdef int _threads_set = 0, _threads_default = 0, _threads_quota = 0
# Of settings.py: a bridge that runs without the GIL knows them by it.
cdef int64_t _settings_number = 0


def use_threads(int n):
    """So many threads; 0: what the environment says."""
    global _threads_set
    _threads_set = n


def set_thread_limits(int default, int quota):
    """So many threads if the user sets no other number (-1: a wrong one), and at most the quota; 0: there is none."""
    global _threads_default, _threads_quota
    _threads_default, _threads_quota = default, quota


def openmp_version():
    """The OpenMP version (yyyymm) that this module was compiled with, 0 without OpenMP."""
    return lc_openmp_version()


def openmp_address():
    """Where the OpenMP runtime's omp_get_max_threads is that this module calls, 0 without OpenMP."""
    return lc_openmp_address()


def num_threads():
    """Threads that a large call would use now. ValueError if the environment asks for what is no number of threads."""
    cdef int n = _threads_now()
    if n < 0:
        wrong = _environ.get("LOCALCONV_NUM_THREADS")
        raise ValueError(f"LOCALCONV_NUM_THREADS must be an integer of at least 1, got {wrong!r}")
    return n


cdef int _threads_now() noexcept nogil:
    """Threads that a large call would use now; -1: the environment asks for what is no number of threads."""
    cdef int n = _threads_set or _threads_default or lc_openmp_threads()
    if n < 0:
        return -1
    if n == 1 or lc_forked:  # forks.h says why
        return 1
    if _threads_quota:
        n = min(n, _threads_quota)
    return max(1, min(n, lc_processors()))


def use_settings(int64_t number):
    """The settings in force are those of that number (settings.py)."""
    global _settings_number
    _settings_number = number


def forget_stalls():
    """Let the calls that follow use all their threads, whatever was waited for before (busy.h)."""
    lc_forget_stalls()


# --------------------------------------------------------------------------------------------------------- the last run

cdef struct Run:
    int algorithm
    lc_ran ran
    int threads, team

cdef Run _last
_last.algorithm = -1

# What a call's signature is until a kernel signs: a body that forgets to is seen by `last_run`, and crashes nothing.
cdef lc_ran NOTHING_RAN
NOTHING_RAN.isa = b"nothing"
NOTHING_RAN.dtype = b"nothing"
_last.ran = NOTHING_RAN


def last_run():
    """What the newest call in this process ran: operation, algorithm, threads; isa and dtype as signed by the kernel.

    `threads`: those that it could have; `team`: those that it took, fewer if they would have to wait (busy.h).
    """
    cdef int i
    if _last.algorithm < 0:
        return None
    names = {lc_dtypes[i].name: lc_dtypes[i].numpy.decode() for i in range(lc_dtype_count)}
    return {
        "operation": lc_algorithms[_last.algorithm].operation.name.decode(),
        "algorithm": lc_algorithms[_last.algorithm].name.decode(),
        "isa": _last.ran.isa.decode(),
        "dtype": names.get(_last.ran.dtype, "nothing"),
        "threads": _last.threads,
        "team": _last.team,
    }


# ----------------------------------------------------------------------------------------------------------------- jobs

cdef int _read_geometry(lc_geometry *g, geometry) except -1:
    cdef int axis
    g.batch, g.channels, g.filters, g.groups = geometry.batch, geometry.channels, geometry.filters, geometry.groups
    for axis in range(3):
        g.input[axis], g.output[axis] = geometry.input[axis], geometry.output[axis]
        g.kernel[axis], g.strides[axis] = geometry.kernel[axis], geometry.strides[axis]
        g.dilation[axis], g.pad_before[axis] = geometry.dilation[axis], geometry.before[axis]
    g.channels_first, g.by_group = geometry.channels_first, geometry.by_group
    g.kernel_batch, g.inside = geometry.kernel_batch, geometry.inside
    return 0


def has_channel_lanes(geometry):
    """Whether tiles can have channel lanes: depthwise, one filter for each channel, with a pixel's channels side by
    side.
    """
    cdef lc_geometry g
    _read_geometry(&g, geometry)
    lc_derive(&g)
    return bool(g.channel_lanes)


cdef int _read_choices(lc_choices *choices, dict given) except -1:
    """Puts every choice into its place by its name."""
    cdef int i
    cdef size_t k
    cdef ptrdiff_t *place
    left = dict(given)
    for i in range(lc_choice_count):
        value = left.pop(lc_choice_table[i].name.decode(), None)
        if value is None:
            continue
        place = <ptrdiff_t *> (<char *> choices + lc_choice_table[i].offset)
        for k, number in enumerate(value if lc_choice_table[i].count > 1 else (value,)):
            place[k] = number
    if left:
        raise TypeError(f"no such choices: {', '.join(left)}")
    return 0


cdef class Job:
    """One operation on one geometry, cut into tasks by an algorithm and its choices.

    `dtype`: number of the element type in `DTYPES`; `store`: of the kernel's in `STORAGES`; `choices`: as job.h lists
    them; `threads`: how many run it; `bank`: filters, terms, indexed, weighted of a kernel that is a bank (job.h).
    Raises `Refused` where the algorithm cannot do that.
    """
    cdef lc_job job
    cdef int dtype
    cdef readonly int threads
    cdef lc_pace pace
    cdef double products

    def __cinit__(self, geometry, str isa not None, int dtype, int store, str algorithm not None, dict choices not None,
                  int threads, bank=None):
        cdef int status
        self.dtype, self.threads = dtype, threads
        self.job.algorithm = list(ALGORITHMS).index(algorithm)
        self.job.kernels = _find_kernels(isa, dtype)
        self.job.storage = store
        if bank is not None:
            self.job.bank.filters, self.job.bank.terms, self.job.bank.indexed, self.job.bank.weighted = bank
        _read_geometry(&self.job.geometry, geometry)
        _read_choices(&self.job.choices, choices)
        status = lc_make_job(&self.job)
        if status == LC_NO_MEMORY:
            raise MemoryError(f"no memory to plan {algorithm}")
        if status != LC_OK:
            raise Refused(f"{algorithm} cannot do {geometry} with {choices}")
        self.products = lc_products(&self.job.geometry)

    def __dealloc__(self):
        lc_free_job(&self.job)

    @property
    def algorithm(self):
        """The algorithm's name."""
        return lc_algorithms[self.job.algorithm].name.decode()

    @property
    def tasks(self):
        """Tasks of all passes."""
        cdef int i
        return sum([self.job.tasks[i] for i in range(LC_PASSES)])

    @property
    def shared_bytes(self):
        """Bytes of the workspace that all threads of a call share."""
        return self.job.shared_bytes

    @property
    def thread_bytes(self):
        """Bytes of each thread's own workspace."""
        return self.job.thread_bytes

    @property
    def work_bytes(self):
        """Those of `thread_bytes` that choices can change: all but the lists of a window's runs."""
        return self.job.thread_bytes - self.job.list_bytes

    @property
    def batch_chunk(self):
        """The choice of that name."""
        return self.job.choices.batch_chunk

    @property
    def piece(self):
        """The choice of that name."""
        return self.job.choices.piece

    @property
    def box_bytes(self):
        """Bytes of the box of pixels that a task brings together, a part of `thread_bytes`."""
        return self.job.box_bytes

    @property
    def packed_bytes(self):
        """Bytes of what `pack` fills; 0: nothing is packed that could be kept."""
        return self.job.shared_bytes + LC_ALIGNMENT if lc_packs_kernel(&self.job) else 0

    @property
    def packing(self):
        """Equal for two jobs of one `Spec` that pack a kernel alike."""
        return self.job.algorithm, self.job.kernels.isa, self.dtype, self.job.storage, self.job.choices.vectors

    @property
    def nbytes(self):
        """Bytes of the job itself."""
        return <ptrdiff_t> sizeof(lc_job) + self.job.memory_bytes

    def pack(self, kernel, unsigned char[::1] packed not None):
        """Fills `packed_bytes` bytes with the kernel as `run` takes it then; kernel: the bytes that are stored."""
        cdef lc_call call
        cdef ptrdiff_t task, packed_bytes = self.packed_bytes
        memset(&call, 0, sizeof(call))
        _bind_stored(self, &call, kernel)
        _check_length("packed", packed.shape[0], packed_bytes)
        with nogil:
            for task in range(self.job.tasks[0]):
                lc_run_task(&self.job, &call, 0, task, _aligned(&packed[0]), NULL)

    def run(self, result, input, kernel, gradient, bias=None, bint relu=False, bint accumulate=False, ptrdiff_t first=0,
            ptrdiff_t count=0, packed=None):
        """Computes `result` from the other arrays; those that the operation does not need are None.

        Arrays are C-contiguous and of the job's dtype, in any number of dimensions; bytes have one. ValueError where an
        array has not the length that the job was made for: whatever happened to it since it was checked, no memory
        beside it is touched.

        kernel: if it is stored in fewer bytes, these bytes; of int8 these and the scales; of a bank its filters,
        weights and indices.
        bias: None, or a value for each filter, or one for each position and filter as Keras stores them; relu: what
        comes out is max(0, .); accumulate: add to what the result holds (kernel gradients); first, count: which windows
        (im2col, col2im); packed: what `pack` has filled, then the kernel is not packed again.
        """
        cdef lc_call call
        cdef const lc_operation *operation = lc_algorithms[self.job.algorithm].operation
        cdef const void *added = NULL
        cdef ptrdiff_t size
        cdef const unsigned char[::1] kept = packed
        memset(&call, 0, sizeof(call))
        if kept is not None:
            size = self.packed_bytes
            _check_length("packed", kept.shape[0], size)
            call.packed = _aligned(&kept[0])
        call.relu, call.accumulate, call.first, call.count = relu, accumulate, first, count
        call.result = _operand(self, &call, operation.makes, "result", result, PyBUF_WRITABLE)
        if lc_reads(&self.job, LC_kernel):
            if self.job.storage != LC_native:
                _bind_stored(self, &call, kernel)
            elif self.job.bank.filters:
                _bind_bank(self, &call, kernel)
            else:
                call.kernel = _operand(self, &call, LC_kernel, "kernel", kernel)
        if lc_reads(&self.job, LC_input):
            call.input = _operand(self, &call, LC_input, "input", input)
        if lc_reads(&self.job, LC_output):
            call.gradient = _operand(self, &call, LC_output, "gradient", gradient)
        elif lc_reads(&self.job, LC_columns):
            call.gradient = _operand(self, &call, LC_columns, "columns", gradient)
        size = 0
        if bias is not None:
            size = self.job.geometry.filters
            if bias.size != size:
                size *= self.job.geometry.positions
            added = _elements(self, "bias", bias, size)
        # Keras reshapes a full bias to (filters, positions) for channels_first: layers in layouts of their own rely on
        # it.
        _set_bias(self, &call, added, size, self.job.geometry.channels_first)
        _run(self, &call)

    def run_at(self, uintptr_t result, uintptr_t input, uintptr_t kernel, uintptr_t gradient, uintptr_t bias=0,
               ptrdiff_t bias_size=0, bint by_filter=False, uintptr_t scales=0):
        """`run` for a bridge that knows where its arrays' elements begin and keeps them alive; 0: there is none.

        Nothing is known here of what lies there: arrays must have the sizes and element types that the job was made
        for. bias_size: the bias's elements; by_filter: one filter's lie side by side, not one position's.
        """
        cdef lc_call call
        memset(&call, 0, sizeof(call))
        call.result, call.input, call.kernel = <void *> result, <const void *> input, <const void *> kernel
        call.gradient, call.scales = <const void *> gradient, <const float *> scales
        _set_bias(self, &call, <const void *> bias, bias_size, by_filter)
        _run(self, &call)


cdef void _set_bias(Job job, lc_call *call, const void *bias, ptrdiff_t size, bint by_filter) noexcept:
    call.bias, call.bias_filter = bias, 1
    if size > job.job.geometry.filters:
        call.bias_position = 1 if by_filter else job.job.geometry.filters
        call.bias_filter = job.job.geometry.positions if by_filter else 1


cdef int _bind_stored(Job job, lc_call *call, kernel) except -1:
    """Puts a kernel's bytes, or these and its scales, into a call."""
    values, factors = kernel if isinstance(kernel, tuple) else (kernel, None)
    cdef const unsigned char[::1] stored = values
    cdef const float[::1] scales = factors
    cdef ptrdiff_t expected = lc_elements(&job.job, call, LC_kernel) * lc_kernel_size(&job.job)
    cdef ptrdiff_t expected_scales = lc_scale_count(&job.job)
    _check_length("kernel", stored.shape[0], expected)
    call.kernel = <const void *> &stored[0]
    if lc_storages[job.job.storage].scaled:
        _check_length("scales", 0 if scales is None else scales.shape[0], expected_scales)
        call.scales = &scales[0]
    return 0


cdef int _bind_bank(Job job, lc_call *call, kernel) except -1:
    """Puts a bank's filters, and its weights and indices if it has these, into a call."""
    filters, weights, indices = kernel
    cdef const int32_t[:, ::1] numbers = indices
    cdef ptrdiff_t count = job.job.geometry.positions * job.job.bank.terms
    call.kernel = _operand(job, call, LC_kernel, "kernel", filters)
    if job.job.bank.weighted:
        call.weights = _elements(job, "weights", weights, count)
    if job.job.bank.indexed:
        _check_length("indices", 0 if numbers is None else numbers.shape[0] * numbers.shape[1], count)
        call.indices = &numbers[0, 0]
    return 0


cdef void *_operand(Job job, const lc_call *call, int which, str name, array, int writable=0) except NULL:
    """Where the elements of one of a call's arrays begin."""
    cdef ptrdiff_t count = lc_elements(&job.job, call, which)
    return _elements(job, name, array, count, writable)


cdef void *_elements(Job job, str name, array, ptrdiff_t count, int writable=0) except NULL:
    """Where the elements of an array begin, which is C-contiguous, of the job's dtype and has so many.

    By the buffer protocol itself: typed memoryviews of all arrays would be a sixth of what a small call costs.
    """
    cdef Py_buffer view
    cdef const char *format
    cdef bytes other = None
    PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | writable)
    format = view.format
    if format[0] == _native_order:  # dtypes may name it
        format += 1
    if strcmp(format, b"f" if job.dtype == LC_f32 else b"d") != 0:
        other = view.format
    PyBuffer_Release(&view)  # whoever calls `run` holds the arrays
    if other is not None:
        raise ValueError(f"expected an array of {DTYPES[job.dtype]}, got one of format {other.decode()!r}")
    _check_length(name, view.len, count * job.job.kernels.itemsize)
    return view.buf


cdef int _check_length(str name, ptrdiff_t length, ptrdiff_t expected) except -1:
    """The last look at an array before kernels run: nothing that happens after it can change what they touch."""
    if length != expected:
        raise ValueError(f"{name} must have {expected} bytes or scales for this operation, got {length}: arrays must "
                         "keep their sizes while they are computed with")
    return 0


# ----------------------------------------------------------------------------------------------------------- the runner

cdef inline char *_aligned(const void *memory) noexcept nogil:
    return <char *> ((<uintptr_t> memory + LC_ALIGNMENT - 1) // LC_ALIGNMENT * LC_ALIGNMENT)


cdef int _run(Job owner, lc_call *call) except -1:
    cdef lc_job *job = &owner.job
    cdef int status
    with nogil:
        status = _run_passes(owner, call)
    if status != LC_OK:
        needed = lc_align(job.shared_bytes) + owner.threads * lc_align(job.thread_bytes)
        raise MemoryError(f"no {needed} bytes of workspace for {lc_algorithms[job.algorithm].operation.name.decode()}")
    return 0


cdef int _run_passes(Job owner, lc_call *call) noexcept nogil:
    """Runs the passes one after the other, by the job's threads or, where others want these, by one (busy.h).

    LC_OK, or LC_NO_MEMORY.
    """
    cdef lc_ran ran = NOTHING_RAN
    cdef lc_job *job = &owner.job
    cdef ptrdiff_t shared_bytes = lc_align(job.shared_bytes), thread_bytes = lc_align(job.thread_bytes)
    cdef int64_t start = 0, waited = 0
    cdef int team = owner.threads, i, first = 0
    cdef void *memory
    cdef char *shared = <char *> call.packed
    call.ran = &ran
    if shared != NULL:  # what the first pass fills
        first, shared_bytes = 1, 0
    if owner.threads > 1:
        start = lc_now()
        team = lc_team(&owner.pace, owner.products, owner.threads, start)
    memory = malloc(shared_bytes + team * thread_bytes + LC_ALIGNMENT)
    if memory == NULL:
        return LC_NO_MEMORY
    if first == 0:
        shared = _aligned(memory)
    for i in range(first, LC_PASSES):
        waited += _run_pass(job, call, i, team, shared, _aligned(memory) + shared_bytes, thread_bytes)
    free(memory)
    if owner.threads > 1:
        lc_note_call(&owner.pace, team, start, lc_now(), waited)
    _last.ran, _last.threads, _last.team = ran, owner.threads, team
    _last.algorithm = job.algorithm  # last: whoever sees it finds the others
    return LC_OK


cdef int64_t _run_pass(lc_job *job, lc_call *call, int number, int team, char *shared, char *workspaces,
                       ptrdiff_t thread_bytes) noexcept nogil:
    """Runs a pass; returns for how many nanoseconds the first thread had to wait for the others."""
    cdef ptrdiff_t task, tasks = job.tasks[number]
    cdef lc_first_thread first
    cdef int64_t start
    if team == 1 or tasks == 1:  # without OpenMP's half microsecond
        for task in range(tasks):
            lc_run_task(job, call, number, task, shared, workspaces)
        return 0
    start = first.began = first.ended = lc_now()
    for task in prange(tasks, schedule="dynamic", chunksize=1, num_threads=team):
        _run_timed(job, call, number, task, shared, workspaces + lc_thread() * thread_bytes, &first, start)
    return (first.began - start) + (lc_now() - first.ended)


cdef inline void _run_timed(lc_job *job, lc_call *call, int number, ptrdiff_t task, char *shared, char *workspace,
                            lc_first_thread *first, int64_t start) noexcept nogil:
    """Runs a task; the first thread takes note of the time."""
    cdef bint timed = lc_thread() == 0
    if timed and first.began == start:
        first.began = lc_now()
    lc_run_task(job, call, number, task, shared, workspace)
    if timed:
        first.ended = lc_now()


# --------------------------------------------------------------------------------------------- for bridges (runner.h)

cdef int64_t _settings_now() noexcept nogil:
    return _settings_number


cdef int _run_object(void *job, lc_call *call) noexcept nogil:
    return _run_passes(<Job> job, call)


cdef lc_runner _runner
_runner.threads, _runner.settings, _runner.run = _threads_now, _settings_now, _run_object
runner = PyCapsule_New(&_runner, LC_RUNNER_CAPSULE, NULL)

lc_watch_forks()
