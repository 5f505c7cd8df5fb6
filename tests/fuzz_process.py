"""A round of the fuzzer in a child forked after the OpenMP runtime was used, by localconv and by others."""

import ctypes
import functools
import os
import signal
import warnings

import threadpoolctl
from fuzz_functions import call_round
from fuzz_values import Finding

OUTCOMES = ("checked", "refused")


@functools.cache
def runtime():
    """The OpenMP runtime that localconv uses, if others can run in parallel on it by GNU's entry."""
    found = [library["filepath"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "openmp"]
    libraries = [ctypes.CDLL(path) for path in found]
    return next((library for library in libraries if hasattr(library, "GOMP_parallel")), None)


def use_by_somebody_else():
    """A parallel region that is none of localconv's, as another library in the process would run it."""
    if runtime() is not None:
        runtime().GOMP_parallel(ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None), None, 2, 0)


def fork_round(rng, seed):
    """A call in a forked child, after anybody's use of threads; where there is no fork, in this process."""
    if rng.random() < 0.5:
        use_by_somebody_else()
    if not hasattr(os, "fork"):
        return call_round(rng, seed)
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of any fork beside threads
        child = os.fork()
    if child == 0:
        in_the_child(rng, seed, writing)
    os.close(writing)
    with open(reading, encoding="utf-8") as answer:
        said = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status or said not in OUTCOMES:
        raise Finding(f"seed {seed}: status {status} of a forked child, which says {said!r}")
    return said


def in_the_child(rng, seed, writing):
    """Make the call, write its outcome, and end, whatever happens: by the alarm where the call hangs."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(20)
    status = 1
    try:
        try:
            said = call_round(rng, seed)
        except Finding as finding:
            said = str(finding)
        os.write(writing, said.encode())
        status = 0
    finally:
        os._exit(status)
