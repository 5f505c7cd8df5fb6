"""Importing the bridge, with and without what it needs, and the example that shows it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "keras3_migration.py"
BACKENDS = [name for name in ("tensorflow", "torch", "jax") if importlib.util.find_spec(name)]

# A module of this name, found before the real one.
FAKES = {
    "no Keras": ("raise ModuleNotFoundError(\"No module named 'keras'\")", "No module named 'keras'"),
    "no backend": ("raise ModuleNotFoundError(\"No module named 'tensorflow'\")", "No module named 'tensorflow'"),
    "Keras 2": ("__version__ = '2.15.0'", "this is Keras 2.15.0, which has these layers itself"),
}


@pytest.mark.parametrize("what", FAKES)
def test_remedy(what, tmp_path):
    text, words = FAKES[what]
    (tmp_path / "keras.py").write_text(text)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import localconv.keras"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: localconv.keras needs Keras 3")
    assert words in last
    assert "pip install 'localconv[keras]'" in last


def test_localconv_alone_imports_no_keras():
    libraries = {"keras", "tensorflow", "torch", "jax"}
    code = f"import sys, localconv, localconv.layers; assert not {libraries} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_example():
    """A file of Keras 2.15 opens, predicts, trains, is saved, and opens on the other backends."""
    if not EXAMPLE.exists():
        pytest.skip("a test of a checkout; this is not one")
    pytest.importorskip("keras", reason="needs Keras: pip install 'localconv[keras]'", exc_type=ImportError)
    if not BACKENDS:
        pytest.skip("needs one of Keras's backends: tensorflow, torch, jax")
    done = subprocess.run(
        [sys.executable, EXAMPLE],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "as localconv.layers" in done.stdout
    assert done.stdout.count("opened again on") == max(1, len(BACKENDS) - 1)
