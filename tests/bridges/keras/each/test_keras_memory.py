"""A large kernel is never copied: the process's peak while a layer is called, beyond what it had before."""

import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from keras_tools import BACKEND, TRAINS, array

from localconv.keras import LocallyConnected1D

pytestmark = [
    pytest.mark.memory,
    pytest.mark.skipif(sys.platform != "linux", reason="reads the process's peak from /proc"),
]

KERNEL = 1000 * 320 * 100 * 4


def grown(function):
    """The peak of the resident memory during a call beyond that before it, in kernels."""
    status = Path("/proc/self/status")

    def read(name):
        return int(re.search(rf"{name}:\s+(\d+) kB", status.read_text())[1]) * 1024

    Path("/proc/self/clear_refs").write_text("5")
    before = read("VmRSS")
    function()
    return (read("VmHWM") - before) / KERNEL


def called(policy):
    """A model whose kernel has 128 MB, called once: what is compiled and kept is there."""
    layer = LocallyConnected1D(100, 5, kernel_initializer="zeros", engine="compiled", dtype=policy)
    model = keras.Sequential([keras.Input((1004, 64)), layer])
    assert layer.kernel.shape == (1000, 320, 100)
    model.predict(np.zeros((1, 1004, 64), "float32"), verbose=0)
    model(np.zeros((1, 1004, 64), "float32"))
    return model


@pytest.fixture(params=["float32", "mixed_bfloat16"])
def model(request):
    return called(request.param)


def test_forward(model):
    x = np.zeros((1, 1004, 64), "float32")
    assert grown(lambda: np.asarray(array(ops.cast(model(x), "float32")))) < 0.1
    assert grown(lambda: model.predict(x, verbose=0)) < 0.1


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`:UserWarning")
def test_int8():
    """The int8 values are read as they are, but for jax: there they become bfloat16, of half a kernel."""
    model = called("float32")
    x = np.zeros((1, 1004, 64), "float32")
    model.quantize("int8")
    model.predict(x, verbose=0)
    np.asarray(array(model(x)))
    limit = 0.6 if BACKEND == "jax" else 0.1
    assert grown(lambda: np.asarray(array(model(x)))) < limit
    assert grown(lambda: model.predict(x, verbose=0)) < limit


if TRAINS:

    def test_fit(model):
        """A gradient of the kernel's size, and what the optimizer makes of it: no more."""
        x, y = np.zeros((1, 1004, 64), "float32"), np.zeros((1, 1000, 100), "float32")
        model.compile(keras.optimizers.SGD(0.1), loss="mse")
        model.fit(x, y, verbose=0)
        assert grown(lambda: model.fit(x, y, verbose=0)) < 2.2
