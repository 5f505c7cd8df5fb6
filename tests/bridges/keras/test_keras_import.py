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
    assert "pip install 'keras>=" in last


def test_localconv_alone_imports_no_keras():
    libraries = {"keras", "tensorflow", "torch", "jax"}
    code = f"import sys, localconv, localconv.layers; assert not {libraries} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- beside a Keras that is not Keras 3 -------------------------------------------------------------------------------

# What it would be for whoever had installed nothing: a model with the layer, saved and opened.
LEGACY = """if True:
    import tensorflow as tf
    from tensorflow.keras.layers import LocallyConnected2D
    before = [tf.keras.models.load_model, tf.keras.saving.load_model, tf.keras.models.model_from_json]
    import keras, localconv.keras
    localconv.keras.install()
    assert keras.layers.LocallyConnected2D is localconv.keras.LocallyConnected2D
    assert tf.keras.layers.LocallyConnected2D is LocallyConnected2D
    assert not issubclass(LocallyConnected2D, keras.layers.Layer)
    assert not hasattr(tf.keras.layers, "LocallyConnected3D")
    assert [tf.keras.models.load_model, tf.keras.saving.load_model, tf.keras.models.model_from_json] == before
"""
SAVED = """
    import sys
    model = tf.keras.Sequential([tf.keras.Input((4, 4, 1)), tf.keras.layers.LocallyConnected2D(2, 2)])
    for suffix in ("h5", "keras"):
        model.save(f"{sys.argv[1]}/model.{suffix}")
        assert type(tf.keras.models.load_model(f"{sys.argv[1]}/model.{suffix}").layers[0]) is LocallyConnected2D
"""
FAKE_TF_KERAS = {
    "layers": "class Layer: ...\nclass LocallyConnected2D(Layer): ...",
    "models": "def load_model(path): ...\ndef model_from_json(text): ...",
    "saving": "def load_model(path): ...",
}


def run_with_legacy_keras(code, *arguments, path=""):
    pytest.importorskip("keras", reason="needs Keras: pip install 'localconv[keras]'", exc_type=ImportError)
    if "tensorflow" not in BACKENDS:
        pytest.skip("needs TensorFlow")
    environment = os.environ | {
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_USE_LEGACY_KERAS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (path, os.environ.get("PYTHONPATH")))),
    }
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_install_leaves_tf_keras_alone(tmp_path):
    """What TF_USE_LEGACY_KERAS=1 makes of tensorflow.keras, for which a stub stands here."""
    package = tmp_path / "tf_keras" / "api" / "_v2" / "keras"
    package.mkdir(parents=True)
    for folder in (package.parent, package.parent.parent, package.parent.parent.parent):
        (folder / "__init__.py").write_text("__version__ = '2.21.0'")
    for name, text in FAKE_TF_KERAS.items():
        (package / f"{name}.py").write_text(text)
    (package / "__init__.py").write_text("from . import layers, models, saving")
    run_with_legacy_keras(LEGACY, path=str(tmp_path))


def test_install_leaves_the_real_tf_keras_alone(tmp_path):
    if importlib.util.find_spec("tf_keras") is None:
        pytest.skip("needs tf_keras, which is not installed")
    run_with_legacy_keras(LEGACY + SAVED, str(tmp_path))


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
