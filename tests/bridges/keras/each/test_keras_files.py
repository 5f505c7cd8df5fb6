"""Files: those of Keras 2.15 of every form, and our own."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras_tools import BACKEND, TRAINS, array
from layer_cases import GOLDEN, assert_close, golden

from localconv import layers as ours
from localconv.keras import LocallyConnected1D, LocallyConnected2D, LocallyConnected3D, install
from localconv.keras.files import upgraded

# Keras's reader of old .h5 files passes the shape to Conv layers, and then warns of its users' doing so.
pytestmark = pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`:UserWarning")

KERAS = GOLDEN.parent / "keras"
FILES = [pytest.param(GOLDEN / name, case, id=name) for case in golden("files") for name in case["files"]]
MODELS = [file for file in FILES if file.id.endswith((".model.h5", ".keras"))]
WEIGHTS = [file for file in FILES if not file.id.endswith((".model.h5", ".keras"))]


@pytest.fixture(autouse=True)
def installed():
    install()


def answers(name):
    with np.load(KERAS / "answers.npz") as file:
        found = dict(file)
    numbers = range(len(found))
    inputs = [found[f"{name}_x_{number}"] for number in numbers if f"{name}_x_{number}" in found]
    weights = [found[f"{name}_w_{number}"] for number in numbers if f"{name}_w_{number}" in found]
    return inputs, weights, found[f"{name}_y"]


def load(path):
    return keras.models.load_model(path, compile=False)


@pytest.mark.parametrize(("path", "case"), MODELS)
def test_models(path, case):
    model = load(path)
    for mine, theirs in zip(model.get_weights(), case["weights"], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert_close(array(model(case["x"])), case["y"])
    named = [entry["class_name"] for entry in json.loads(case["config"])["config"]["layers"]]
    assert [type(layer).__name__ for layer in model.layers] == [name for name in named if name != "InputLayer"]


@pytest.mark.parametrize(("path", "case"), WEIGHTS)
def test_weights(path, case):
    """Into a model of the file's own description, with other weights."""
    model = keras.Sequential.from_config(upgraded(json.loads(case["config"]))["config"])
    model.load_weights(path)
    for mine, theirs in zip(model.get_weights(), case["weights"], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert_close(array(model(case["x"])), case["y"])


@pytest.mark.parametrize("name", ["functional.model.h5", "functional.keras"])
def test_functional_models(name):
    inputs, weights, y = answers("functional")
    model = load(KERAS / name)
    assert [w.shape for w in model.get_weights()] == [w.shape for w in weights]
    assert_close(array(model(inputs)), y)
    a, c = model.get_layer("a"), model.get_layer("c")
    assert type(a) is LocallyConnected2D
    assert a.kernel_regularizer.get_config() == pytest.approx({"l1": 0.01, "l2": 0.02})
    assert (a.kernel_constraint.max_value, list(a.kernel_constraint.axis)) == (3.0, [0, 1])
    assert isinstance(a.bias_constraint, keras.constraints.NonNeg)
    assert isinstance(a.kernel_initializer, keras.initializers.HeNormal)
    assert (c.implementation, c.trainable) == (3, False)


def test_nested_keras_file():
    (x,), _, y = answers("outer")
    assert_close(array(load(KERAS / "nested.keras")(x)), y)


def test_compiled_keras_file():
    """Loss, metrics and optimizer come along; the optimizer starts anew, as Keras warns where it had begun."""
    (x,), _, y = answers("outer")
    model = keras.models.load_model(KERAS / "nested.keras")
    assert_close(array(model(x)), y)
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert model.loss == "mse"
    assert model.predict(x, verbose=0).shape == y.shape
    if TRAINS:
        assert set(model.fit(x, y + 1, verbose=0).history) == {"loss", "mae"}


def face():
    """As make_layers_golden.py makes it."""
    rows, columns, channels = np.ogrid[:71, :71, :3]
    return np.sin(0.3 * rows + 0.2 * columns * (channels + 1) + channels)[None].astype("float32")


def test_deepface():
    """The same numbers as `localconv.layers` reads from the file, and as Keras 2.15 computed."""
    (case,) = golden("deepface")
    path = GOLDEN / "deepface.model.h5"
    y = array(load(path)(face(), training=False))
    assert_close(y, case["y"])
    assert_close(y, ours.load_model(path).predict(face()))


# --- our own ----------------------------------------------------------------------------------------------------------


def model_of_all_kinds():
    left, right, deep = keras.Input((6, 5, 2)), keras.Input((7, 2)), keras.Input((3, 4, 3, 2))
    a = LocallyConnected2D(2, 2, dilation_rate=2, groups=2, activation="elu", kernel_constraint="max_norm", name="a")(
        left
    )
    inner = keras.Sequential([keras.Input((7, 2)), LocallyConnected1D(2, 3, implementation=2)], name="inner")
    options = {"implementation": 3, "padding": "same", "kernel_regularizer": "l2", "use_bias": False}
    b = LocallyConnected1D(3, 2, **options)(inner(right))
    c = LocallyConnected3D(2, 2, implementation=2, padding="same", strides=(1, 2, 1), name="c")(deep)
    flat = [keras.layers.Flatten()(part) for part in (a, b, c)]
    return keras.Model([left, right, deep], keras.layers.Dense(2)(keras.layers.Concatenate()(flat)))


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_round_trip(suffix, tmp_path):
    """In a process that has only imported localconv.keras: nothing is installed there."""
    model = model_of_all_kinds()
    rng = np.random.default_rng(5)
    model.set_weights([rng.standard_normal(w.shape).astype("float32") for w in model.get_weights()])
    inputs = [rng.standard_normal((3, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]
    path = tmp_path / f"model.{suffix}"
    model.save(path)
    np.savez(tmp_path / "inputs.npz", *inputs)
    code = """if True:
        import sys, keras, numpy as np, localconv.keras
        assert not hasattr(keras.layers, "LocallyConnected1D")
        with np.load(sys.argv[2]) as file:
            inputs = list(file.values())
        model = keras.models.load_model(sys.argv[1])
        np.save(sys.argv[3], keras.ops.convert_to_numpy(model(inputs)))
        assert type(model.get_layer("a")) is localconv.keras.LocallyConnected2D
        assert type(model.get_layer("c")) is localconv.keras.LocallyConnected3D
    """
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "inputs.npz"), str(tmp_path / "y.npy")]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), array(model(inputs)))


def test_weights_files(tmp_path):
    model, again = model_of_all_kinds(), model_of_all_kinds()
    model.save_weights(tmp_path / "model.weights.h5")
    again.load_weights(tmp_path / "model.weights.h5")
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_file_of_another_implementation_is_refused(tmp_path):
    one, three = (
        keras.Sequential([keras.Input((6, 2)), LocallyConnected1D(2, 3, implementation=i, name="a")]) for i in (1, 3)
    )
    one.save_weights(tmp_path / "one.weights.h5")
    before = three.get_weights()
    with pytest.raises(ValueError, match="shape"):
        three.load_weights(tmp_path / "one.weights.h5")
    np.testing.assert_array_equal(three.get_weights()[0], before[0])


# --- install ----------------------------------------------------------------------------------------------------------


def test_install():
    install()
    assert keras.layers.LocallyConnected1D is LocallyConnected1D
    assert keras.saving.get_custom_objects()["LocallyConnected2D"] is LocallyConnected2D
    assert keras.layers.LocallyConnected3D is LocallyConnected3D
    config = LocallyConnected1D(2, 3, name="x").get_config()
    entry = {"class_name": "LocallyConnected1D", "config": config, "registered_name": None, "module": "keras.layers"}
    assert type(keras.saving.deserialize_keras_object(entry)) is LocallyConnected1D


if BACKEND == "tensorflow":

    def test_install_in_tensorflow():
        import tensorflow as tf
        from tensorflow.keras.layers import LocallyConnected1D as of_tensorflow

        assert of_tensorflow is LocallyConnected1D
        assert tf.keras.layers.LocallyConnected2D is LocallyConnected2D


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_layers_for_numpy_name_this_package(suffix, tmp_path):
    """A model of Keras 3 in `localconv.layers.load_model`: who reads it, and that they do."""
    path = str(tmp_path / f"model.{suffix}")
    model = keras.Sequential([keras.Input((6, 6, 1)), LocallyConnected2D(2, 3), keras.layers.Flatten()])
    model.save(path)
    with pytest.raises(
        ValueError, match=rf"written by Keras '{keras.__version__}': load it in Keras 3, .*localconv\.k"
    ):
        ours.load_model(path)
    np.testing.assert_array_equal(load(path).get_weights()[0], model.get_weights()[0])
