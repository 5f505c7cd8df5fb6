"""The files in `each`, on every backend of Keras that is installed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras", reason="needs Keras: pip install 'localconv[keras]'", exc_type=ImportError)

EACH = Path(__file__).with_name("each")
BACKENDS = ("numpy", "tensorflow", "torch", "jax")


def test_there_are_files():
    assert len(list(EACH.glob("test_*.py"))) > 4


# All files in one process: a process for each took minutes to import Keras and its backend.
@pytest.mark.parametrize("backend", BACKENDS)
def test_backend(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}, which is not installed")
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "KERAS_HOME": str(tmp_path),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JAX_PLATFORMS": "cpu",
        # float64 is among what is tested.
        "JAX_ENABLE_X64": "1",
    }
    if backend == "jax":
        # Nearly every test compiles programs of its own, and runs them once: optimizing them took half of the time.
        plain = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {plain}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'temp'}"]
    # Keras's variables have an __array__ of before NumPy 2.
    command += ["-W", "ignore:__array__ implementation doesn't accept:DeprecationWarning"]
    done = subprocess.run(
        [*command, str(EACH)], env=environment, capture_output=True, text=True, timeout=2400, check=False
    )
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-5000:]


# Batch normalization is left to Python, and with it the backward pass.
MANY_MODELS = """
import functools
import keras
import numpy as np
import torch
from localconv.keras import LocallyConnected1D

torch.compile = functools.partial(torch.compile, backend="aot_eager")
for size in (8, 9, 12, 15, 20):
    model = keras.Sequential([
        keras.Input((size, 3)), LocallyConnected1D(4, 3), keras.layers.BatchNormalization(), LocallyConnected1D(2, 3)
    ])
    target = np.zeros((8, size - 4, 2), "f")
    x = np.random.default_rng(0).random((8, size, 3), "f")
    start, losses = model.get_weights(), []
    for jit_compile in (True, False):
        model.set_weights(start)
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
        losses += model.fit(x, target, epochs=2, batch_size=8, verbose=0).history["loss"]
    np.testing.assert_allclose(losses[:2], losses[2:], rtol=1e-4)
    print(size)
"""


def test_many_compiled_models_in_one_process(python):
    """Of different sizes, on PyTorch, where compilation makes symbols of them: as without it."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch, which is not installed")
    assert python(MANY_MODELS, timeout=1200, KERAS_BACKEND="torch").split() == ["8", "9", "12", "15", "20"]
