# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: embedsignature=False, freethreading_compatible=True
"""XLA's side of the core: handlers of custom calls that find their plan without the GIL and run it on its runner.

The handlers themselves are C, in include/localconv/xla; here is what they need of Python: a plan where there is none
yet, and the errors that come of making one.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t

from . import _core

cdef extern from "localconv/runner.h" nogil:
    ctypedef struct lc_runner:
        int (*threads)() noexcept nogil
    const char *LC_RUNNER_CAPSULE
    int LC_KEPT_BYTES, LC_KEPT_PARTS

cdef extern from "localconv/xla/handler.h" nogil:
    ctypedef struct lc_xla_error:
        pass
    ctypedef struct lc_xla_frame:
        pass
    ctypedef struct lc_xla_key:
        int64_t length
        int64_t *words
    ctypedef struct lc_xla_plan:
        void *job
        int64_t examples
        int64_t *step
        int64_t nbytes
    ctypedef struct lc_xla_slot:
        int filled
    ctypedef struct lc_xla_table:
        lc_xla_slot *slots
        int64_t nbytes
    ctypedef struct lc_xla_handler:
        const lc_runner *runner
        lc_xla_error *(*make)(const lc_xla_frame *, const lc_xla_key *, lc_xla_plan *) noexcept nogil
        void (*drop)(void *) noexcept nogil
        int major, minor
        int64_t makers
        lc_xla_table table
    lc_xla_handler lc_xla
    int LC_XLA_MAJOR, LC_XLA_MINOR, LC_XLA_ARRAYS, LC_XLA_SLOTS, LC_XLA_OPERATIONS
    int LC_XLA_INVALID_ARGUMENT, LC_XLA_RESOURCE_EXHAUSTED, LC_XLA_INTERNAL
    lc_xla_error *lc_xla_error_of(const lc_xla_frame *, int, const char *)
    bint lc_xla_take(int64_t *)
    bint lc_xla_evict(lc_xla_table *, void **)
    bint lc_xla_put(lc_xla_table *, const lc_xla_key *, const lc_xla_plan *, void **)
    ctypedef lc_xla_error *lc_xla_entry(lc_xla_frame *)
    lc_xla_entry **lc_xla_entries
    const char *lc_xla_operation_name(int64_t operation)

# The operations that have a handler, in the order of the numbers in a key.
cdef int _i
OPERATIONS = tuple([lc_xla_operation_name(_i).decode() for _i in range(LC_XLA_OPERATIONS)])

# Bytes of plans that the table keeps; a plan of more than one of LC_KEPT_PARTS parts is made for every call.
KEPT_BYTES = LC_KEPT_BYTES

# Makes plans: set by `use_maker`.
cdef object _maker = None


def use_maker(maker):
    """Have plans made by ``maker(operation, dtype, settings, threads, numbers, shapes)``.

    It returns the job (None: there is nothing to sum), how many examples it runs for, the elements from one example to
    the next of both operands and the result, and the bytes that the plan weighs.
    """
    global _maker
    _maker = maker


def handlers():
    """The handlers by the operations' names, as capsules for ``jax.ffi.register_ffi_target``."""
    cdef int i
    return {OPERATIONS[i]: PyCapsule_New(<void *> lc_xla_entries[i], NULL, NULL) for i in range(LC_XLA_OPERATIONS)}


def announce(int major=LC_XLA_MAJOR, int minor=LC_XLA_MINOR):
    """Ask for that version of XLA's API: the right one, or one that tests know to be refused."""
    lc_xla.major, lc_xla.minor = major, minor


def kept():
    """How many plans the table has, how many it can have, and their bytes."""
    cdef int i
    return sum([lc_xla.table.slots[i].filled for i in range(LC_XLA_SLOTS)]), LC_XLA_SLOTS, lc_xla.table.nbytes


def forget():
    """Empty the table of all plans that nobody is running."""
    cdef void *job
    while lc_xla_evict(&lc_xla.table, &job):
        _give_back(job)


def close():
    """Let no plan be made any more, unless somebody is making one: whether it is so. For the end of a process, in which
    a thread of XLA's would wait for the GIL for ever.
    """
    return lc_xla_take(&lc_xla.makers)


cdef void _give_back(void *job) noexcept:
    if job != NULL:
        Py_DECREF(<object> job)


cdef void _drop(void *job) noexcept with gil:
    _give_back(job)


cdef lc_xla_error *_make(const lc_xla_frame *frame, const lc_xla_key *key, lc_xla_plan *plan) noexcept with gil:
    """Makes the plan of a key; what goes wrong becomes an error of XLA's."""
    try:
        _make_plan(key, plan)
    except BaseException as error:
        return _error(frame, error)
    return NULL


cdef lc_xla_error *_error(const lc_xla_frame *frame, error):
    cdef int code = LC_XLA_INTERNAL
    if isinstance(error, MemoryError):
        code = LC_XLA_RESOURCE_EXHAUSTED
    elif isinstance(error, (TypeError, ValueError)):
        code = LC_XLA_INVALID_ARGUMENT
    text = f"localconv: {type(error).__name__}: {error}".encode("utf-8", "replace")
    return lc_xla_error_of(frame, code, text)


cdef int _make_plan(const lc_xla_key *key, lc_xla_plan *plan) except -1:
    cdef int i
    words = [key.words[i] for i in range(key.length)]
    operation, dtype, settings, threads = words[:4]
    lists, rest = [], words[4:]
    while rest:
        lists.append(tuple(rest[1 : 1 + rest[0]]))
        rest = rest[1 + rest[0] :]
    job, examples, steps, nbytes = _maker(OPERATIONS[operation], dtype, settings, threads, lists[0], lists[1:])
    plan.job, plan.examples, plan.nbytes = NULL if job is None else <void *> job, examples, nbytes
    for i in range(LC_XLA_ARRAYS):
        plan.step[i] = steps[i]
    if job is not None:
        Py_INCREF(job)  # the caller's
    _keep(key, plan)
    return 0


cdef int _keep(const lc_xla_key *key, const lc_xla_plan *plan) except -1:
    """Puts a plan into the table, for which others may have to go."""
    cdef void *old = NULL
    if plan.nbytes > LC_KEPT_BYTES // LC_KEPT_PARTS:
        return 0
    while lc_xla.table.nbytes + plan.nbytes > LC_KEPT_BYTES and lc_xla_evict(&lc_xla.table, &old):
        _give_back(old)
    if plan.job != NULL:
        Py_INCREF(<object> plan.job)  # the table's
    if lc_xla_put(&lc_xla.table, key, plan, &old):
        _give_back(old)
    else:
        _give_back(plan.job)
    return 0


lc_xla.runner = <const lc_runner *> PyCapsule_GetPointer(_core.runner, LC_RUNNER_CAPSULE)
lc_xla.make, lc_xla.drop = _make, _drop
announce()
