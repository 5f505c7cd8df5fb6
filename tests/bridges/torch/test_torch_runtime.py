"""Threads: one OpenMP runtime whatever is imported first, PyTorch's limits, forks, and a missing PyTorch."""

import os
import sys
import warnings

import pytest

torch = pytest.importorskip("torch", reason="localconv.torch needs PyTorch: make test-bridges installs it")

import localconv  # noqa: E402
from localconv import _core  # noqa: E402
from localconv.torch import LocalConv1d, runtime  # noqa: E402

ORDERS = {
    "torch first": "import torch, localconv",
    "localconv first": "import localconv, torch",
    "the bridge alone": "import localconv.torch",
}
only_shared = pytest.mark.skipif(
    sys.platform != "linux", reason="one runtime by its name is a matter of Linux's loader"
)


@only_shared
@pytest.mark.parametrize("order", ORDERS)
def test_one_runtime(python, order):
    """By address, and by what PyTorch's setting does to localconv."""
    code = (
        "import warnings; warnings.simplefilter('error')\n" + ORDERS[order] + "\nimport torch, localconv\n"
        "from localconv.torch import runtime\n"
        "torch.ones(1000, 1000).sum(); torch.set_num_threads(1)\n"
        "print(runtime.is_shared(), runtime.torch_address() != 0, localconv.get_num_threads())"
    )
    assert python(code, OMP_NUM_THREADS="2") == "True True 1\n"


def test_two_runtimes_are_told(monkeypatch):
    monkeypatch.setattr(runtime, "torch_address", lambda: _core.openmp_address() + 64)
    with pytest.warns(RuntimeWarning, match="two OpenMP runtimes .* OMP_WAIT_POLICY=passive"):
        runtime.warn_of_two_runtimes()
    for address in (0, _core.openmp_address()):
        monkeypatch.setattr(runtime, "torch_address", lambda address=address: address)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            runtime.warn_of_two_runtimes()


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    localconv.set_num_threads(2)
    yield
    localconv.set_num_threads(None)
    torch.set_num_threads(before)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor: every call runs on one thread")
def test_threads_of_torch_limit(two_threads):
    """Forward and backward passes; the larger number is localconv's own limit."""
    layer, x = LocalConv1d(64, 64, 5, 500), torch.randn(16, 64, 500, requires_grad=True)
    threads = {}
    for n in (1, 2):
        torch.set_num_threads(n)
        _core.forget_stalls()
        y = layer(x)
        threads[n] = [_core.last_run()["threads"]]
        y.backward(torch.ones_like(y))
        threads[n].append(_core.last_run()["threads"])
    assert threads == {1: [1, 1], 2: [2, 2]}


FORK = """
import os, signal, warnings
warnings.simplefilter("ignore")
import torch
from localconv.torch import LocalConv1d
from localconv import _core
layer, x = LocalConv1d(64, 64, 5, 200), torch.randn(16, 64, 200)
before = layer(x)
child = os.fork()
if child == 0:
    signal.alarm(60)
    torch.set_num_threads(1)  # as a DataLoader's worker does: torch's own operations would wait for threads
    with torch.no_grad():
        same = torch.equal(layer(x), before)
    os._exit(0 if same and _core.last_run()["threads"] == 1 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is POSIX")
def test_workers_that_are_forked(python):
    """As those of a DataLoader: on one thread, and with the same values."""
    assert python(FORK) == "0\n"


def test_without_torch(python):
    """An error that says what to do; and nothing else of localconv asks for PyTorch."""
    code = """
import sys
sys.modules["torch"] = None
import localconv, localconv.convert, localconv.layers
try:
    import localconv.torch
except ImportError as error:
    print(error)
"""
    assert "pip install 'torch>=" in python(code)


def test_versions_of_torch_that_are_too_old(python):
    """The same words at every import: what cannot be registered twice is not begun."""
    code = """
import torch, warnings
warnings.simplefilter("ignore")
del torch.library.register_autocast
for _ in range(2):
    try:
        import localconv.torch
    except ImportError as error:
        print(error)
"""
    assert python(code) == f"localconv.torch needs PyTorch 2.7 or newer, got {torch.__version__}\n" * 2


def test_importing_localconv_does_not_import_torch(python):
    code = "import sys, localconv, localconv.layers, localconv.convert; print('torch' in sys.modules)"
    assert python(code) == "False\n"
