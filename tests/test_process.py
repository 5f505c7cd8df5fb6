"""What the process around a call may do: interrupt it, fork after it, import it in a second interpreter."""

import ctypes
import os
import sys

import pytest

only_posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals to oneself and fork are POSIX")

INTERRUPT = """
import os, signal, threading, time
import numpy as np
import localconv

signal.signal(signal.SIGINT, signal.default_int_handler)  # who is started in the background ignores it
localconv.set_num_threads(1)
x, kernel = np.ones((64, 512, 128), np.float32), np.ones((5, 128, 256), np.float32)
started, finished = threading.Event(), []

def press():
    started.wait()
    time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=press).start()
out = np.zeros((64, 508, 256), np.float32)
try:
    started.set()
    for _ in range(1000):
        out.fill(-1)
        localconv.conv1d(x, kernel, data_format="channels_last", out=out)
        finished.append(True)
except KeyboardInterrupt:
    print("interrupted", len(finished) < 1000, *np.unique(out))
"""


@only_posix
def test_interrupt_is_seen_when_the_call_returns(python):
    """The interrupted call's result is whole: the kernel itself is never stopped halfway."""
    assert python(INTERRUPT) in ("interrupted True 640.0\n", "interrupted True -1.0\n")  # -1: before the kernel began


FORK = """
import os, warnings
import numpy as np
import localconv
from localconv import grad
warnings.simplefilter("ignore")  # newer Pythons warn of any fork beside threads
localconv.set_num_threads(2)
x, g = np.ones((32, 200, 32), np.float32), np.ones((32, 198, 32), np.float32)
w, k = np.ones((198, 96, 32), np.float32), np.ones((3, 32, 32), np.float32)

def all_gradients():
    local, shared = dict(kernel_size=3, strides=1, data_format="channels_last"), dict(data_format="channels_last")
    return [grad.local_conv1d_input(x.shape, w, g, **local), grad.local_conv1d_kernel(x, w.shape, g, **local),
            grad.conv1d_input(x.shape, k, g, **shared), grad.conv1d_kernel(x, k.shape, g, **shared)]

before = all_gradients()
child = os.fork()
if child == 0:
    import signal
    signal.alarm(60)  # a child that hangs ends all the same
    same = all(np.array_equal(a, b) for a, b in zip(before, all_gradients(), strict=True))
    os._exit(0 if same else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@only_posix
def test_gradients_after_fork(python):
    assert python(FORK) == "0\n"


# Somebody else in the process has run in parallel, on the OpenMP runtime that localconv uses, before the fork.
OTHER_USER = """
import ctypes, os, signal, sys, warnings
import numpy as np
warnings.simplefilter("ignore")
runtime = ctypes.CDLL(sys.argv[1])
body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)

def use_by_somebody_else():
    runtime.GOMP_parallel(body, None, 2, 0)

def calls_in_a_child():
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that hangs ends all the same
        status = 1
        try:
            import localconv
            from localconv import _core
            localconv.set_num_threads(2)
            x, kernel = np.ones((8, 40, 40, 16), np.float32), np.ones((3, 3, 16, 32), np.float32)
            y = localconv.conv2d(x, kernel, data_format="channels_last")
            threads = _core.last_run()["threads"], localconv.get_num_threads()
            columns = localconv.im2col(np.ones((8, 200, 200, 1), np.float32), 9, data_format="channels_last")
            status = 0 if (y == 144).all() and (columns == 1).all() and threads == (1, 1) else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
ORDERS = {
    "imported before": "import localconv; use_by_somebody_else(); print(calls_in_a_child())",
    "imported after": "use_by_somebody_else(); import localconv; print(calls_in_a_child())",
    "imported in the child": "use_by_somebody_else(); print(calls_in_a_child())",
    "in a grandchild": "use_by_somebody_else(); child = os.fork(); print(calls_in_a_child()) if child == 0 else "
    "os.waitpid(child, 0)",
}


@pytest.fixture
def gnu_runtime(python):
    """The path of the OpenMP runtime that localconv loads, if it has GNU's entry for parallel regions."""
    code = """
import localconv, threadpoolctl
print(*[p['filepath'] for p in threadpoolctl.threadpool_info() if p['user_api'] == 'openmp'])
"""
    paths = python(code).split()
    if len(paths) != 1 or not hasattr(ctypes.CDLL(paths[0]), "GOMP_parallel"):
        pytest.skip("this build's OpenMP runtime has no GOMP_parallel to call from here")
    return paths[0]


@pytest.mark.skipif(
    sys.platform != "linux", reason="GNU's runtime, which does not survive a fork, is that of Linux builds"
)
@pytest.mark.parametrize("order", ORDERS)
def test_fork_after_somebody_else_ran_in_parallel(python, gnu_runtime, order):
    assert python(OTHER_USER + ORDERS[order], gnu_runtime) == "0\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the forks that are known to be without an exec are those of Linux")
def test_a_forked_server_that_imports_keeps_its_threads(python):
    """No runtime was there before the fork: a worker process that imports localconv itself has nothing to wait for."""
    code = """
import os
if os.fork() == 0:
    import localconv
    print(localconv.get_num_threads(), flush=True)
    os._exit(0)
os.wait()
import localconv
print(localconv.get_num_threads())
"""
    in_the_child, in_the_parent = python(code).split()
    assert in_the_child == in_the_parent


VARIABLES = """
import os, signal, threading, warnings
import numpy as np
from localconv import layers
from localconv.layers.tf1.scopes import store
warnings.simplefilter("ignore")
held, done = threading.Event(), threading.Event()

def make_variables():
    with store.lock:
        held.set()
        done.wait()

threading.Thread(target=make_variables).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(60)
    layers.conv1d(np.ones((1, 4, 1), np.float32), 2, 2)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
done.set()
"""


@only_posix
def test_variables_in_a_child(python):
    """A child that is born while another thread makes variables does not wait for it."""
    assert python(VARIABLES) == "0\n"


SUBINTERPRETER = """
import warnings
warnings.simplefilter("ignore")
import localconv
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
code = '''
try:
    from localconv.core import settings
except ImportError as error:
    outcome = "refused"
else:
    outcome = settings.get_isa()
import os
os.write(1, outcome.encode())
'''
try:
    other = interpreters.create("isolated")
except TypeError:
    other = interpreters.create(isolated=True)
failure = interpreters.run_string(other, code)
assert failure is None, failure
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="asks CPython's own module for an interpreter")
def test_subinterpreter_is_refused(python):
    """The module keeps settings for the process, and NumPy supports one interpreter: an ImportError, no crash."""
    assert python(SUBINTERPRETER) == "refused"
