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
FILES = sorted(path.name for path in EACH.glob("test_*.py"))


def test_there_are_files():
    assert len(FILES) > 4


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_backend(backend, file, tmp_path):
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
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'temp'}"]
    # Keras's variables have an __array__ of before NumPy 2.
    command += ["-W", "ignore:__array__ implementation doesn't accept:DeprecationWarning"]
    done = subprocess.run(
        [*command, str(EACH / file)], env=environment, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-5000:]
