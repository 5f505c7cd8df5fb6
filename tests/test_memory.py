"""No memory for a workspace: a MemoryError, nothing leaked, and the next call works; and no growth over many calls."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

LIMIT = 32_000
# Every operation with a workspace, and plans whose lists of zones are long; results go to arrays made before.
CALLS = """
import ctypes, sys
from pathlib import Path
import numpy as np
import localconv
from localconv import _core, grad
from localconv.core import engine, settings

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def ones(*shape):
    return np.ones(shape, np.float32)

def operations():
    local, last = dict(kernel_size=3, strides=1, data_format="channels_last"), dict(data_format="channels_last")
    x, w, y = ones(64, 40, 32), ones(38, 96, 32), ones(64, 38, 32)
    for algorithm in ("local_rows", "local_images"):
        yield algorithm, algorithm, lambda out: localconv.local_conv1d(x, w, **local, out=out), y
    yield ("local_grad_input", "local_input_buffered",
           lambda out: grad.local_conv1d_input(x.shape, w, y, **local, out=out), x)
    yield ("local_grad_kernel", "local_kernel_buffered",
           lambda out: grad.local_conv1d_kernel(x, w.shape, y, **local, out=out), w)
    a, k, z = ones(16, 40, 64), ones(3, 64, 128), ones(16, 38, 128)
    yield "conv_forward winograd", "conv_winograd", lambda out: localconv.conv1d(a, k, **last, out=out), z.copy()
    turned = np.ascontiguousarray(a.transpose(0, 2, 1))
    first = dict(data_format="channels_first")
    yield "conv_forward", "conv_direct", lambda out: localconv.conv1d(turned, k, **first, out=out), ones(16, 128, 38)
    yield "conv_grad_input", "conv_phases", lambda out: grad.conv1d_input(a.shape, k, z, **last, out=out), a
    yield "conv_grad_kernel", "conv_reduction", lambda out: grad.conv1d_kernel(a, k.shape, z, **last, out=out), k
    few, row = ones(3, 64, 2), ones(4, 300, 64)
    yield "conv_forward lines", "conv_lines", lambda out: localconv.conv1d(row, few, **last, out=out), ones(4, 298, 2)
    n, m, o = ones(8, 300, 1), ones(3, 1, 64), ones(8, 298, 64)
    yield "conv_grad_input narrow", "conv_narrow", lambda out: grad.conv1d_input(n.shape, m, o, **last, out=out), n
    wide = ones(1, 2000, 1)
    long, same = ones(1999, 1, 1), dict(padding="same", data_format="channels_last")
    yield "plan of conv_forward", "conv_direct", lambda out: localconv.conv1d(wide, long, **same, out=out), wide
    far = ones(1, 4000, 8), ones(400, 8, 8), ones(1, 10, 8)
    wide_steps = dict(strides=400, padding="same", **last)
    yield ("plan of conv_grad_input", "conv_phases",
           lambda out: grad.conv1d_input(far[0].shape, far[1], far[2], **wide_steps, out=out), far[0])
    yield ("plan of conv_grad_kernel", "conv_reduction",
           lambda out: grad.conv1d_kernel(wide, long.shape, wide, **same, out=out), long)
    planes, filters = ones(1, 64, 40, 40), ones(1, 9, 38, 38)
    sums, window = ones(1, 64, 38, 38), dict(kernel_size=3, strides=1, data_format="channels_first")
    for algorithm in ("filter_channels", "filter_positions"):
        yield (f"filter_forward {algorithm}", algorithm,
               lambda out: localconv.local_filter2d(planes, filters, **window, out=out), sums)
    for algorithm in ("filter_input_channels", "filter_input_positions"):
        yield (f"filter_grad_input {algorithm}", algorithm,
               lambda out: grad.local_filter2d_input(planes.shape, filters, sums, **window, out=out), planes)
    for algorithm in ("filter_dots", "filter_kernel_positions"):
        yield (f"filter_grad_kernel {algorithm}", algorithm,
               lambda out: grad.local_filter2d_filters(planes, filters.shape, sums, **window, out=out), filters)
"""
TRY_ALL = """
shim = ctypes.CDLL(None)
shim.refuse_over.argtypes = [ctypes.c_size_t]
for name, forced, call, like in operations():
    out, before = like.copy(), like.copy()
    with settings.forced(forced):
        for threads in (1, 2):
            localconv.set_num_threads(threads)
            for attempt in range(40):
                engine.plans.clear()
                shim.refuse_over(int(sys.argv[1]))
                try:
                    call(out)
                except MemoryError as error:
                    message = str(error)
                else:
                    message = "no error"
                refused = shim.refused_requests()
                shim.refuse_over(2**62)
                call(out)
                if attempt == 20:
                    before_growth = resident()
            print(name, threads, refused, resident() - before_growth, message, sep="|")
            assert not np.array_equal(out, before) or name.startswith("plan"), name
# These need a list of runs at most.
placed = {"local_dot", "local_stream", "local_kernel_direct", "local_input_direct", "im2col", "col2im"}
assert {forced for _, forced, _, _ in operations()} == set(_core.ALGORITHMS) - placed
"""


@pytest.mark.memory
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the shim replaces glibc's malloc")
def test_no_memory_for_a_workspace(python, tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler to build the malloc that fails")
    shim = tmp_path / "failing_malloc.so"
    source = Path(__file__).parent / "c" / "failing_malloc.c"
    built = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", str(source), "-o", str(shim)], capture_output=True, text=True, check=False
    )
    if "__libc_malloc" in built.stderr:
        pytest.skip("this C library has no __libc_malloc")
    assert built.returncode == 0, built.stderr
    lines = python(CALLS + TRY_ALL, LIMIT, LD_PRELOAD=str(shim)).splitlines()
    assert lines
    assert set(Counter(line.split("|")[0] for line in lines).values()) == {2}
    for line in lines:
        name, _, refused, grown, message = line.split("|")
        assert int(refused) > 0, f"{name} asked for nothing above the limit"
        assert message != "no error", line
        assert name.startswith("plan") or "bytes of workspace" in message, line
        assert int(grown) < 2**19, f"{grown} bytes more after 20 calls that found no memory, and 20 that did: {line}"


GROWTH = """
import gc, threading

small = ones(1, 6, 2), ones(4, 6, 3), ones(1, 4, 3), ones(3, 2, 3)
x, w, y, k = small
narrow, outs = ones(1, 40, 1), ones(1, 38, 3)
local, last = dict(kernel_size=3, strides=1, data_format="channels_last"), dict(data_format="channels_last")

def one():
    localconv.local_conv1d(x, w, **local)
    grad.local_conv1d_input(x.shape, w, y, **local)
    grad.local_conv1d_kernel(x, w.shape, y, **local)
    localconv.conv1d(x, k, **last)
    grad.conv1d_input(x.shape, k, y, **last)
    grad.conv1d_kernel(x, k.shape, y, **last)
    grad.conv1d_input(narrow.shape, k[:, :1], outs, **last)

def soak(calls):
    threads = [threading.Thread(target=lambda: [one() for _ in range(calls // 8 // 7)]) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    gc.collect()
    return resident()

count = int(sys.argv[1])
before = soak(count // 10 + 4800)
print(soak(count) - before)
"""


@pytest.mark.memory
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the process's memory from /proc")
def test_no_growth_over_many_calls(python):
    calls = int(os.environ.get("SOAK_CALLS", "30000"))  # make soak: a million
    grown = int(python(CALLS + GROWTH, calls, timeout=120 + calls / 1000))
    assert grown < 2**21, f"{grown} bytes more after {calls} calls from 8 threads"
