"""Threads, memory, processes: what a call takes of the machine, and what it leaves to others."""

import concurrent.futures
import dataclasses
import math
import os
import sys
import threading
import time

import numpy as np
import oracle
import pytest
import threadpoolctl
import ways
from operations import FORWARD
from oracle import Case, FilterCase, assert_same_bits

import localconv
from localconv import _core
from localconv.core import engine, policy, settings

LINUX = sys.platform == "linux"
CPUS = len(os.sched_getaffinity(0)) if LINUX else os.cpu_count()
OPENMP = any(pool["user_api"] == "openmp" for pool in threadpoolctl.threadpool_info())

only_linux = pytest.mark.skipif(not LINUX, reason="the call that the test needs is Linux's")
many_cpus = pytest.mark.skipif(CPUS < 2 or not OPENMP, reason="one CPU, or a build without OpenMP: always one thread")

# Enough work for every thread of any machine, and sizes that divide into no equal shares.
LARGE = {
    "local": [
        Case("local_conv1d", (3001,), (5,), 1, 16, 33, exact=False),
        Case("local_conv1d", (401,), (5,), 37, 16, 33, exact=False),
        Case("local_conv2d", (61, 67), (3, 3), 19, 3, 5, exact=False, padding="same"),
    ],
    "conv": [
        Case("conv1d", (30011,), (5,), 1, 16, 33, exact=False),
        Case("conv2d", (61, 67), (3, 3), 3, 16, 65, exact=False, padding="same"),
        Case("conv2d", (7, 9), (3, 3), 1, 256, 256, exact=False, padding="same"),
    ],
    "filter": [
        FilterCase("local_filter", (30011,), (9,), 1, 32, 4, exact=False),
        FilterCase("local_filter", (157, 161), (5, 5), 3, 3, exact=False, padding="same", data_format="channels_first"),
        FilterCase("local_filter", (61, 67), (7, 7), 2, 40, exact=False, padding="inside"),
    ],
}
CHOICES = [(family, way) for family in ways.FORWARD for way in ways.FORWARD[family]]

# The start of the scripts below: one large call, the same in every process.
LARGE_CALL = """
import os, sys
import numpy as np
import localconv
from localconv import _core
x = np.ones((8, 2000, 16), "float32")
kernel = np.arange(1, 17, dtype="float32").repeat(64).reshape(1, 16, 64)
def large_call():
    result = localconv.conv1d(x, kernel)
    assert (result == 136).all()
    return _core.last_run()["threads"]
"""


# --- how many ---------------------------------------------------------------------------------------------------------


def large_call():
    case = LARGE["conv"][0]
    case.run(localconv, case.arrays())
    return _core.last_run()["threads"]


@pytest.mark.parametrize("threads", [1, 2, 3, 1000])
def test_set_num_threads(threads):
    """Never more than the CPUs that the process may use."""
    localconv.set_num_threads(threads)
    expected = min(threads, CPUS) if OPENMP else 1
    assert localconv.get_num_threads() == expected
    assert large_call() == expected
    localconv.set_num_threads(None)
    assert localconv.get_num_threads() == large_call()


@many_cpus
def test_small_work_stays_on_one_thread():
    localconv.set_num_threads(2)
    case = Case("local_conv1d", (10,), (3,), 1, 4, 4)
    case.run(localconv, case.arrays())
    assert _core.last_run()["threads"] == 1


THREADS_OF_THE_PROCESS = (
    LARGE_CALL
    + """
def threads():
    return len(os.listdir("/proc/self/task"))
before = threads()
localconv.set_num_threads(1)
assert large_call() == 1
after_one = threads()
localconv.set_num_threads(2)
localconv.conv1d(x[:1, :9], kernel)
after_small = threads()
assert large_call() == 2
print(after_one - before, after_small - before, threads() - before)
"""
)


@only_linux
@many_cpus
def test_a_team_runs_and_nobody_else(python):
    """OpenMP starts its threads for the first call that runs on more than one, and for none before it."""
    assert python(THREADS_OF_THE_PROCESS) == "0 0 1\n"


@many_cpus
def test_threadpoolctl_sees_and_limits():
    with threadpoolctl.threadpool_limits(limits=1, user_api="openmp"):
        assert localconv.get_num_threads() == 1
        assert large_call() == 1
    with threadpoolctl.threadpool_limits(limits=2, user_api="openmp"):
        assert localconv.get_num_threads() == 2
        assert large_call() == 2


@many_cpus
def test_own_setting_goes_before_threadpoolctl():
    localconv.set_num_threads(2)
    with threadpoolctl.threadpool_limits(limits=1, user_api="openmp"):
        assert large_call() == 2


SHOW_THREADS = LARGE_CALL + "print(localconv.get_num_threads(), large_call())"


@many_cpus
def test_environment(python):
    assert python(SHOW_THREADS, LOCALCONV_NUM_THREADS="1") == "1 1\n"
    assert python(SHOW_THREADS, LOCALCONV_NUM_THREADS="2") == "2 2\n"
    assert python(SHOW_THREADS, LOCALCONV_NUM_THREADS="2", OMP_NUM_THREADS="1") == "2 2\n"
    assert python(SHOW_THREADS, OMP_NUM_THREADS="1") == "1 1\n"
    assert python(SHOW_THREADS, LOCALCONV_NUM_THREADS="100000") == f"{CPUS} {CPUS}\n"
    assert python(SHOW_THREADS, LOCALCONV_NUM_THREADS="0" * 5000 + "1") == "1 1\n"


@many_cpus
def test_set_num_threads_goes_before_the_environment(python):
    code = (
        LARGE_CALL
        + """
localconv.set_num_threads(2)
print(large_call())
localconv.set_num_threads(None)
print(large_call())
"""
    )
    assert python(code, LOCALCONV_NUM_THREADS="1") == "2\n1\n"


@pytest.mark.parametrize(
    "wrong", ["0", "-1", "two", "1.5", "1,2", "2147483648", "9" * 5000, "0" * 5000], ids=lambda wrong: wrong[:10]
)
def test_wrong_environment(python, wrong):
    """An error at the first use that names the variable and its value, not at import."""
    code = (
        LARGE_CALL
        + """
try:
    large_call()
except ValueError as error:
    print(error)
"""
    )
    message = python(code, LOCALCONV_NUM_THREADS=wrong)
    assert "LOCALCONV_NUM_THREADS" in message
    assert wrong in message


@only_linux
@many_cpus
def test_affinity(python):
    """Asked for at each call: a process may be moved after its first."""
    code = (
        LARGE_CALL
        + """
cpus = os.sched_getaffinity(0)
print(large_call())
os.sched_setaffinity(0, {min(cpus)})
print(localconv.get_num_threads(), large_call())
localconv.set_num_threads(2)
print(localconv.get_num_threads(), large_call())
os.sched_setaffinity(0, cpus)
print(localconv.get_num_threads(), large_call())
"""
    )
    assert python(code).split("\n")[1:] == ["1 1", "1 1", "2 2", ""]
    narrow = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n" + SHOW_THREADS
    assert python(narrow) == "1 1\n"


# --- the same results -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "way"), CHOICES, ids=str)
@pytest.mark.parametrize("number", range(3))
def test_same_bits_for_any_number_of_threads(isa, dtype, family, way, number):
    case = dataclasses.replace(LARGE[family][number], dtype=dtype)
    arrays = case.arrays()
    with settings.forced(*way):
        results = []
        for threads in (1, 2, 3):
            localconv.set_num_threads(threads)
            _core.forget_stalls()
            results.append(case.run(localconv, arrays))
            ran = _core.last_run()
            assert ran["threads"] == (min(threads, CPUS) if OPENMP else 1)
            assert (
                way == (settings.COLUMNS,) or ran["team"] == ran["threads"]
            )  # by columns several calls follow each other
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


def test_same_bits_again(isa):
    """Nothing depends on which thread came first."""
    for case in [case for cases in LARGE.values() for case in cases]:
        arrays = case.arrays()
        expected = case.run(localconv, arrays)
        for _ in range(5):
            assert_same_bits(case.run(localconv, arrays), expected)


def test_concurrent_calls(isa):
    """Several Python threads, each with cases of its own, small and large, and its own check of the values."""
    local = [Case("local_conv1d", (200 + n,), (3,), n, n, 3 * n, padding="same", seed=n) for n in range(1, 9)]
    conv = [Case("conv2d", (20, 30 + n), (3, 3), 2, n, 5 * n, seed=n) for n in range(1, 9)]
    pairs = [(case, case.arrays()) for case in local + conv]
    expected = [case.run(oracle, arrays).astype("float32") for case, arrays in pairs]

    def work(offset):
        for number in range(offset, offset + 3 * len(pairs)):
            case, arrays = pairs[number % len(pairs)]
            np.testing.assert_array_equal(case.run(localconv, arrays), expected[number % len(pairs)])
        return True

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))


TOGGLE = """
import sys, threading
import numpy as np
import localconv
from localconv import _core
from localconv.core import engine, policy, settings
sys.setswitchinterval(1e-6)
stop = threading.Event()

def toggle():
    while not stop.is_set():
        for isa in _core.available_isas():
            settings.set_isa(isa)
            for threads in (1, 2):
                localconv.set_num_threads(threads)

used = set()
kernel = np.ones((5, 16, 16), np.float32)

def call(n):
    x, g = np.ones((1, 2000 + n, 16), np.float32), np.ones((1, 1996 + n, 16), np.float32)
    assert (localconv.conv1d(x, kernel, data_format="channels_last") == 80).all()
    used.add(_core.last_run()["threads"])
    assert (localconv.grad.conv1d_input(x.shape, kernel, g, data_format="channels_last")[:, 4:-4] == 80).all()
    used.add(_core.last_run()["threads"])
    assert (localconv.grad.conv1d_kernel(x, kernel.shape, g, data_format="channels_last") == 1996 + n).all()
    used.add(_core.last_run()["threads"])

thread = threading.Thread(target=toggle)
thread.start()
for n in range(300):
    call(n)
stop.set()
thread.join()
localconv.set_num_threads(1)
used.clear()
for n in range(300):
    call(n)
print(used)
"""


def test_settings_that_change_all_the_time(python):
    """Results are right, and later calls do as they are told."""
    assert python(TOGGLE) == "{1}\n"


@many_cpus
def test_settings_are_read_once_a_call(monkeypatch):
    """What changes while a call is planned is for the next one: the plan that is kept is of what was asked for."""
    plan, isas = policy.plan, _core.available_isas()

    def meanwhile(*arguments):
        localconv.set_num_threads(2)
        settings.set_isa(isas[-1])
        return plan(*arguments)

    def ran(threads):
        localconv.set_num_threads(threads)
        settings.set_isa(isas[0])
        large_call()
        return _core.last_run()["threads"], _core.last_run()["isa"]

    engine.plans.clear()
    monkeypatch.setattr(engine, "plan", meanwhile)
    assert ran(1) == (1, isas[0])
    monkeypatch.undo()
    assert ran(1) == (1, isas[0])
    assert ran(2) == (2, isas[0])


@pytest.mark.parametrize(("family", "way"), CHOICES, ids=str)
def test_the_gil_is_released(family, way):
    """Another Python thread goes on all through a call. Were the GIL kept, it would stand still from end to end."""
    case = {
        "local": Case("local_conv1d", (3000,), (9,), 64, 16, 64),
        "conv": Case("conv1d", (100_000,), (9,), 1, 64, 64),
        "filter": FilterCase("local_filter", (100_000,), (9,), 1, 256),
    }[family]
    arrays, span, ticks = case.arrays(), [], []

    def call():
        span.append(time.perf_counter())
        case.run(localconv, arrays)
        span.append(time.perf_counter())

    settings.set_isa("scalar")
    localconv.set_num_threads(1)
    with settings.forced(*way):
        worker = threading.Thread(target=call)
        worker.start()
        while worker.is_alive():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)
    start, end = span
    assert end - start > 0.05, "too short a call to tell"
    inside = [start, *(tick for tick in ticks if start < tick < end), end]
    assert np.diff(inside).max() < 0.5 * (end - start)


# --- processes --------------------------------------------------------------------------------------------------------

FORK = (
    LARGE_CALL
    + """
import signal, warnings
warnings.simplefilter("ignore")  # newer Pythons warn of any fork beside threads
localconv.set_num_threads(2)
print(large_call(), flush=True)
child = os.fork()
if child == 0:
    signal.alarm(60)  # a child that hangs ends all the same
    status = 1
    try:
        for _ in range(3):
            large_call()
        grandchild = os.fork()
        if grandchild == 0:
            large_call()
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1])
    finally:
        os._exit(status)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(large_call())
"""
)


@only_linux
def test_fork_after_use(python):
    """Calls in a child, and in its child, neither hang nor go wrong; the parent goes on with all its threads."""
    threads = min(2, CPUS) if OPENMP else 1
    assert python(FORK) == f"{threads}\n0\n{threads}\n"


@only_linux
def test_fork_while_another_thread_calls(python):
    """The child is born while the parent's workers are at work."""
    code = (
        LARGE_CALL
        + """
import signal, threading, warnings
warnings.simplefilter("ignore")
localconv.set_num_threads(2)
stop = threading.Event()
def work():
    while not stop.is_set():
        large_call()
worker = threading.Thread(target=work)
worker.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        status = 1
        try:
            large_call()
            status = 0
        finally:
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), end="")
stop.set()
worker.join()
"""
    )
    assert python(code) == "00000"


def test_spawned_pool(python, tmp_path):
    """The usual way to use several processes."""
    (tmp_path / "task.py").write_text(LARGE_CALL)
    code = """
import multiprocessing, task
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert len([pool.apply(task.large_call) for _ in range(4)]) == 4
    print("done")
"""
    (tmp_path / "main.py").write_text(code)
    assert python("import runpy; runpy.run_path('main.py', run_name='__main__')") == "done\n"


# --- memory -----------------------------------------------------------------------------------------------------------

# Prints how far a call raises the peak of the process's memory, in MiB. Arrays are made and touched before, and a small
# call of the same kind has loaded all code and started all threads.
PEAK = """
import resource, sys
import numpy as np
import localconv
from localconv.core import settings
from oracle import Case
way, threads, small, large = map(eval, sys.argv[1:])
localconv.set_num_threads(threads)
unit = 2**20 if sys.platform == "darwin" else 2**10
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
with settings.forced(*way):
    np.matmul(np.ones((300, 300), "float32"), np.ones((300, 300), "float32"))
    small.run(localconv, small.arrays())
    arrays = [np.ones(shape, "float32") for shape in large.shapes()[:2]]
    out = np.ones(large.layout(large.out, large.filters), "float32")
    before = peak()
    large.run(localconv, (*arrays, None), out=out)
    print(peak() - before)
"""
PEAKS = {  # (small, large): the larger inputs and outputs are of 60 to 250 MiB, the packed weights of some KiB
    "conv1d": (Case("conv1d", (3000,), (9,), 2, 16, 16), Case("conv1d", (2_000_000,), (9,), 1, 16, 16)),
    "conv2d": (
        Case("conv2d", (40, 40), (5, 5), 2, 8, 16, data_format="channels_first"),
        Case("conv2d", (900, 1000), (5, 5), 2, 8, 16, data_format="channels_first"),
    ),
    "local_conv1d": (Case("local_conv1d", (3000,), (9,), 1, 4, 8), Case("local_conv1d", (100_000,), (9,), 40, 4, 8)),
    "local_conv2d": (
        Case("local_conv2d", (40, 40), (3, 3), 2, 1, 4, padding="same"),
        Case("local_conv2d", (900, 1000), (3, 3), 20, 1, 4, padding="same"),
    ),
    "conv3d": (Case("conv3d", (10, 12, 14), (3, 3, 3), 2, 8, 16), Case("conv3d", (100, 90, 100), (3, 3, 3), 2, 8, 16)),
    "local_conv3d": (
        Case("local_conv3d", (10, 12, 14), (3, 3, 3), 2, 1, 2, padding="same"),
        Case("local_conv3d", (100, 90, 100), (3, 3, 3), 20, 1, 1, padding="same"),
    ),
}


def test_every_forward_function_has_a_peak():
    assert PEAKS.keys() == FORWARD.keys()


@pytest.mark.skipif(sys.platform == "win32", reason="the standard library tells no peak of memory there")
@pytest.mark.parametrize(
    ("name", "way"), [(name, way) for name in PEAKS for way in ways.FORWARD[PEAKS[name][0].family]], ids=str
)
def test_workspace_is_bounded(python, name, way):
    """Packed weights and 16 MiB a thread, whatever the input's size; 4 MiB are for the allocators and stacks."""
    for threads in (1, 2):
        arguments = map(repr, (way, threads, *PEAKS[name]))
        assert float(python(PEAK, *arguments, PYTHONPATH=os.path.dirname(oracle.__file__))) <= 4 + 16 * threads


# A kernel of 8.6 GB in a sparse file: only a few positions hold other values than zero. Anonymous memory is limited, so
# that a copy of the kernel, or of a good part of it, would be a MemoryError.
BIG = """
import resource, sys
import numpy as np
import localconv
path, positions, size, channels, filters = sys.argv[1], *map(int, sys.argv[2:6])
if sys.platform == "linux":
    resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))
depth = size * channels
kernel = np.memmap(path, "float32", "r", shape=(positions, depth, filters))
assert kernel.size > 2**31
inputs = np.random.default_rng(0).integers(-8, 9, (1, positions + size - 1, channels)).astype("float32")
result = localconv.local_conv1d(inputs, kernel, size, 1)
expected = np.zeros((1, positions, filters), "float32")
for position in map(int, sys.argv[6:]):
    expected[0, position] = inputs[0, position : position + size].ravel() @ kernel[position]
    assert expected[0, position].all()
assert np.array_equal(result, expected)
print("right")
"""


@pytest.mark.big
@pytest.mark.skipif(sys.platform == "win32", reason="NTFS would write all the zeros of the file to the disk")
def test_kernel_of_more_than_2_31_elements(python, tmp_path):
    """Positions at both ends, and on both sides of the byte offsets and element numbers that 32 bits end at."""
    size, channels, filters = 64, 8, 8
    row = size * channels * filters
    positions = math.ceil(2**31 / row) + 9
    marked = sorted({0, 1, positions - 1, *(2**bits // row + n for bits in (29, 30, 31) for n in (-1, 0, 1))})
    path = tmp_path / "kernel.raw"
    with open(path, "wb") as file:
        file.truncate(4 * positions * row)
        for position in marked:
            values = np.random.default_rng(position).integers(1, 4, row).astype("float32")
            file.seek(4 * position * row)
            file.write(values.tobytes())
    try:
        assert python(BIG, path, positions, size, channels, filters, *marked, timeout=600) == "right\n"
    finally:
        path.unlink()
