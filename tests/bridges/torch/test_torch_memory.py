"""What is not copied, and what is bounded: the process's peak while it calls, beyond what it had before."""

import sys

import pytest

pytest.importorskip("torch", reason="localconv.torch needs PyTorch: make test-bridges installs it")

pytestmark = [
    pytest.mark.memory,
    pytest.mark.skipif(sys.platform != "linux", reason="reads the process's peak from /proc"),
]

# Prints how much grew, in units of so many bytes.
GROWN = """
import re, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import torch
status = Path("/proc/self/status")

def read(name):
    return int(re.search(rf"{name}:\\s+(\\d+) kB", status.read_text())[1]) * 1024

def grown(name, function):
    Path("/proc/self/clear_refs").write_text("5")
    before = read("VmRSS")
    function()
    print(name, (read("VmHWM") - before) / COPY, (read("VmRSS") - before) / COPY)
"""

# A weight of 16 or 8 bits is read as it is: in float32 copies of the weight.
PROGRAM = """
from localconv.torch import LocalConv1d

KIND, COPY = sys.argv[1], 1000 * 320 * 100 * 4

def made(dtype):
    layer = LocalConv1d(64, 100, 5, 1004, dtype=dtype)
    assert layer.weight.numel() * 4 == COPY
    return layer

x = torch.zeros(1, 64, 1004, dtype=torch.float32 if KIND == "int8" else getattr(torch, KIND))
small = LocalConv1d(64, 100, 5, 10, dtype=x.dtype)  # what is loaded and kept is there
small = small.quantize() if KIND == "int8" else small
small(x[..., :10].requires_grad_()).sum().backward()
layer = made(x.dtype)
if KIND == "int8":
    grown("quantize", layer.quantize)

def forward():
    with torch.no_grad():
        layer(x)

def backward():
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    given = x.clone().requires_grad_()
    layer(given).sum().backward()
    assert given.grad.shape == x.shape

grown("forward", forward)
grown("backward", backward)
"""


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "int8"])
def test_no_copy_of_the_weight(python, kind):
    printed = [line.split() for line in python(GROWN + PROGRAM, kind, OMP_NUM_THREADS="2").splitlines()]
    found = {name: (float(peak), float(left)) for name, peak, left in printed}
    assert found["forward"][0] < 0.1
    assert found["backward"][0] < 0.1
    if kind == "int8":
        peak, left = found["quantize"]
        # The int8 values and some blocks beside the float weight; then this is gone.
        assert peak < 0.25 + 0.2
        assert left < -0.6


# PyTorch's operations, whose windows are 240 MiB here, the weight 60 MiB. What PyTorch's allocator gave out is the same
# in every run; what the process holds is not: products of matrices have buffers of their own.
WINDOWS = """
import sys
import torch
from torch.profiler import ProfilerActivity, profile
from localconv.core import formulation
from localconv.torch import fallback
from localconv.torch.window import arguments_of, window_of

kind, memory, data = sys.argv[1:]
formulation.MEMORY = int(memory) * 2**20
window = window_of(arguments_of(2, 9, 1, 0, 1, 1))
x, weight, y = torch.randn(16, 16, 63, 63), torch.randn(55 * 55, 81 * 16, 4), torch.randn(16, 4, 55, 55)
if data == "channels_last":
    x, y = (t.contiguous(memory_format=torch.channels_last) for t in (x, y))
with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
    if kind == "forward":
        fallback.forward(x, weight, None, window)
    elif kind == "input":
        fallback.grad_input(x.shape, weight, y, None, window)
    else:
        fallback.grad_weight(x, weight.shape, y, window)
held = peak = 0
changes = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
for event in sorted(changes, key=lambda event: event.start_ns()):
    held += event.nbytes()
    peak = max(peak, held)
print(peak / 2**20)
"""


@pytest.mark.parametrize("data", ["channels_first", "channels_last"])
@pytest.mark.parametrize(("kind", "result"), [("forward", 0.7), ("input", 3.8), ("weight", 59.8)])
def test_windows_are_bounded(python, kind, result, data):
    bounded, whole = (float(python(WINDOWS, kind, memory, data)) - result for memory in (32, 2**20))
    assert 4 < bounded < 32
    assert whole > 235  # all windows at once, which a limit without an end allows
