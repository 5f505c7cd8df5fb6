"""A weight of 16 or 8 bits is read as it is: the process's peak while a module is called, beyond what it had before."""

import sys

import pytest

pytest.importorskip("torch", reason="localconv.torch needs PyTorch: make test-bridges installs it")

pytestmark = [
    pytest.mark.memory,
    pytest.mark.skipif(sys.platform != "linux", reason="reads the process's peak from /proc"),
]

# Prints what grew by how many float32 copies of the weight.
PROGRAM = """
import re, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import torch
from localconv.torch import LocalConv1d

KIND, COPY = sys.argv[1], 1000 * 320 * 100 * 4
status = Path("/proc/self/status")

def read(name):
    return int(re.search(rf"{name}:\\s+(\\d+) kB", status.read_text())[1]) * 1024

def grown(name, function):
    Path("/proc/self/clear_refs").write_text("5")
    before = read("VmRSS")
    function()
    print(name, (read("VmHWM") - before) / COPY, (read("VmRSS") - before) / COPY)

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
    printed = [line.split() for line in python(PROGRAM, kind, OMP_NUM_THREADS="2").splitlines()]
    found = {name: (float(peak), float(left)) for name, peak, left in printed}
    assert found["forward"][0] < 0.1
    assert found["backward"][0] < 0.1
    if kind == "int8":
        peak, left = found["quantize"]
        # The int8 values and some blocks beside the float weight; then this is gone.
        assert peak < 0.25 + 0.2
        assert left < -0.6
