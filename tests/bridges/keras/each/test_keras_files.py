"""Files: those of Keras 2.15 of every form, and our own."""

import json
import os
import shutil
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from keras import ops
from keras_tools import BACKEND, TRAINS, array
from layer_cases import GOLDEN, assert_close, golden

from localconv import layers as ours
from localconv.keras import LocallyConnected1D, LocallyConnected2D, LocallyConnected3D, install
from localconv.keras.configs import upgraded

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


# --- what Keras 3 reads otherwise -------------------------------------------------------------------------------------

KERAS_2 = GOLDEN.parent / "keras2"
# The rows of the table in docs/coming-from-keras3.md, and the model of make_keras2_models.py that has what they name.
ROWS = {
    "BatchNormalization, LayerNormalization": "batch_normalization",
    "pooling, Reshape, Permute, padding, Dropout, RepeatVector": "pooling",
    "Conv2D, DepthwiseConv2D, Conv2DTranspose, SeparableConv2D, UpSampling2D, PReLU": "convolutions",
    "LeakyReLU, ELU, ReLU, Softmax, functions of TensorFlow as activations": "activations",
    "Add, Multiply, Subtract, Average, Maximum, Concatenate": "merged",
    "two inputs, two outputs, shared layers": "two_inputs_two_outputs",
    "TimeDistributed, GRU, LSTM, SimpleRNN, Bidirectional": "steps",
    "Embedding": "words",
    "a recurrent layer's `initial_state`": "initial_states",
    "MultiHeadAttention, Attention": "attention",
    "Lambda, with `safe_mode=False`": "python_lambda",
    "models in models, functional and sequential ones": "nested",
    "mixed precision": "mixed_precision",
    "compiled with losses and metrics by name": "loss_by_name",
    "compiled with objects": "loss_object",
    "compiled with objects, for classes": "loss_object_of_classes",
    "compiled with a loss for each output": "losses_of_outputs",
    "operators and functions of TensorFlow on symbolic tensors (`x + y`, `x[:, 1:]`, `tf.nn.relu(x)`)": "operators",
}
NEVER = ("operators",)
FORMS = {"keras": "`.keras`", "model.h5": "`.h5`", "json": "`to_json`"}


def opened(name, form):
    """The model of a file, with its weights."""
    path = KERAS_2 / f"{name}.{form}"
    if form != "json":
        return keras.models.load_model(path, safe_mode=name != "python_lambda")
    model = keras.models.model_from_json(path.read_text(encoding="utf-8"))
    model.set_weights(answers_of_keras_2(name)["w"])
    return model


def answers_of_keras_2(name):
    """{"x": inputs, "w": weights, "y": outputs, "metrics": {name: value}}"""
    found = {"x": [], "w": [], "y": [], "metrics": {}}
    with np.load(KERAS_2 / "answers.npz") as file:
        for key in file:
            model, kind, what = key.split("/")
            if model == name and kind == "metrics":
                found[kind][what] = float(file[key])
            elif model == name:
                found[kind].append(file[key])
    return found


def outputs_of(model, inputs):
    y = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    return [array(ops.cast(part, "float32")) for part in (y if isinstance(y, (list, tuple)) else [y])]


def assert_is(model, name):
    """The model of a file of Keras 2 has its weights, outputs and metrics."""
    answers = answers_of_keras_2(name)
    for mine, theirs in zip(model.get_weights(), answers["w"], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    tolerance = 2e-2 if name == "mixed_precision" else 1e-5
    for mine, theirs in zip(outputs_of(model, answers["x"]), answers["y"], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance)


def forms_of(name):
    return [form for form in FORMS if (KERAS_2 / f"{name}.{form}").exists()]


def marks_of(name):
    is_readable = name != "python_lambda" or sys.version_info[:2] == (3, 11)
    return pytest.mark.skipif(not is_readable, reason="a Lambda's code is for the Python that wrote it, which was 3.11")


OPEN = [name for name in ROWS.values() if name not in NEVER]
OPENED = [
    pytest.param(name, form, marks=marks_of(name), id=f"{name}-{form}") for name in OPEN for form in forms_of(name)
]


@pytest.mark.parametrize(("name", "form"), [case for case in OPENED if case.id != "python_lambda-json"])
def test_what_keras_2_saved_opens(name, form):
    assert_is(opened(name, form), name)


@pytest.mark.parametrize("form", ["keras", "model.h5"])
@pytest.mark.parametrize("name", [name for name in OPEN if "loss" in name])
def test_compiled_models_are_compiled(name, form):
    """Their losses and metrics have the names and values that they had in Keras 2; a step more changes the weights."""
    model, answers = opened(name, form), answers_of_keras_2(name)
    targets = [np.zeros(y.shape[:1] if "classes" in name else y.shape, "float32") for y in answers["y"]]
    given = [part if len(part) > 1 else part[0] for part in (answers["x"], targets)]
    assert model.evaluate(*given, verbose=0, return_dict=True) == pytest.approx(answers["metrics"], rel=1e-4)
    if TRAINS:
        model.fit(*given, verbose=0)
        assert any((a != b).any() for a, b in zip(model.get_weights(), answers["w"], strict=True))
    if name == "loss_object":
        assert isinstance(model.optimizer, keras.optimizers.Adam)
        assert isinstance(model.optimizer._learning_rate, keras.optimizers.schedules.ExponentialDecay)
        assert model.optimizer.clipnorm == 1.0


@pytest.mark.parametrize("form", ["keras", "model.h5"])
def test_lambda_is_refused_in_safe_mode(form):
    with pytest.raises(ValueError, match="safe_mode=False"):
        keras.models.load_model(KERAS_2 / f"python_lambda.{form}")


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="a Lambda's code is for the Python that wrote it")
def test_lambda_in_json():
    """`model_from_json` has no safe_mode; Keras's own setting holds for the whole process."""
    text = (KERAS_2 / "python_lambda.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="enable_unsafe_deserialization"):
        keras.models.model_from_json(text)
    code = """if True:
        import sys, keras, numpy as np, localconv.keras
        localconv.keras.install()
        keras.config.enable_unsafe_deserialization()
        model = keras.models.model_from_json(sys.argv[1])
        assert model.layers[1].function(3) == 7
    """
    done = subprocess.run(
        [sys.executable, "-c", code, text], env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NEVER)
def test_what_does_not_open_says_why(name, form):
    with pytest.raises(
        ValueError, match=r"class 'SlicingOpLambda', an operation of TensorFlow's.* custom_objects with"
    ):
        opened(name, form)


def test_layers_of_users_stand_for_what_is_gone():
    class ThresholdedReLU(keras.layers.Layer):
        def __init__(self, theta, **base):
            super().__init__(**base)
            self.theta = theta

        def call(self, x):
            return ops.where(x > self.theta, x, 0.0)

    entry = {"class_name": "ThresholdedReLU", "config": {"name": "a", "theta": 0.5}}
    layers = [{"class_name": "InputLayer", "config": {"batch_input_shape": [None, 2], "name": "x"}}, entry]
    text = json.dumps({"class_name": "Sequential", "config": {"layers": layers, "name": "m"}, "keras_version": "2.9.0"})
    with pytest.raises(ValueError, match="layer 'a' is of class 'ThresholdedReLU', a layer of Keras 2"):
        keras.models.model_from_json(text)
    model = keras.models.model_from_json(text, custom_objects={"ThresholdedReLU": ThresholdedReLU})
    np.testing.assert_array_equal(array(model(np.array([[0.25, 1.0]], "float32"))), [[0, 1]])


def without_modules(value):
    """A config as Keras before 2.12 wrote it."""
    if isinstance(value, list):
        return [without_modules(part) for part in value]
    if not isinstance(value, dict):
        return value
    dropped = ("module", "registered_name", "build_config") if "class_name" in value else ()
    found = {key: without_modules(part) for key, part in value.items() if key not in dropped}
    return found | {"class_name": "Model"} if found.get("class_name") == "Functional" else found


@pytest.mark.parametrize("name", [name for name in OPEN if "json" in forms_of(name) and name != "python_lambda"])
def test_configs_without_modules(name):
    """Classes by their names alone, functional models as 'Model'."""
    config = without_modules(json.loads((KERAS_2 / f"{name}.json").read_text(encoding="utf-8")))
    model = keras.models.model_from_json(json.dumps(config | {"keras_version": "2.2.4-tf"}))
    model.set_weights(answers_of_keras_2(name)["w"])
    assert_is(model, name)


def test_sequential_models_as_lists():
    """Keras before 2.3, which wrote no InputLayer either."""
    entry = {"class_name": "LocallyConnected1D", "config": {"filters": 2, "kernel_size": [3], "name": "a"}}
    entry["config"]["batch_input_shape"] = [None, 8, 2]
    text = json.dumps({"class_name": "Sequential", "config": [entry], "keras_version": "2.1.6"})
    assert keras.models.model_from_json(text).output_shape == (None, 6, 2)


@pytest.mark.parametrize(
    ("metrics", "names"),
    [
        (["mae"], {"mae"}),
        ([["mae", None]], {"mae"}),
        (["acc"], {"acc"}),
        ([[{"class_name": "MeanMetricWrapper", "config": {"name": "own", "fn": "mean_squared_error"}}]], {"own"}),
        ([None], set()),
        (None, set()),
    ],
    ids=str,
)
def test_metrics_in_h5(metrics, names, tmp_path):
    """The forms that they had in the versions of Keras 2, in a file of 2.15 with another training_config."""
    path = tmp_path / "model.h5"
    shutil.copy(KERAS_2 / "loss_by_name.model.h5", path)
    with h5py.File(path, "r+") as file:
        training = json.loads(file.attrs["training_config"])
        file.attrs["training_config"] = json.dumps(training | {"metrics": metrics}).encode()
    model = keras.models.load_model(path)
    answers = answers_of_keras_2("loss_by_name")
    assert set(model.evaluate(answers["x"][0], answers["y"][0], verbose=0, return_dict=True)) == names | {"loss"}


def test_layers_of_users_are_preferred():
    """To Keras's of the same name, and nothing in their configs is changed."""

    class GRU(keras.layers.Layer):
        def __init__(self, time_major, **base):
            super().__init__(**base)
            self.time_major = time_major

    layers = [{"class_name": "GRU", "config": {"name": "a", "time_major": False, "batch_input_shape": [None, 2, 3]}}]
    config = {"class_name": "Sequential", "config": {"layers": layers, "name": "m"}, "keras_version": "2.9.0"}
    model = keras.models.model_from_json(json.dumps(config), custom_objects={"GRU": GRU})
    assert type(model.layers[0]) is GRU
    assert model.layers[0].time_major is False


def test_batch_normalization_along_several_axes_is_refused():
    entry = {"class_name": "BatchNormalization", "config": {"axis": [1, 2], "name": "a"}}
    text = json.dumps({"class_name": "Sequential", "config": [entry], "keras_version": "2.1.6"})
    with pytest.raises(ValueError, match=r"layer 'a' must normalize along one axis.* got axis=\[1, 2\]"):
        keras.models.model_from_json(text)


def test_json_of_keras_3_is_left_to_keras():
    model = keras.Sequential([keras.Input((6, 2)), LocallyConnected1D(2, 3)])
    assert keras.models.model_from_json(model.to_json()).to_json() == model.to_json()
    with pytest.raises(json.JSONDecodeError):
        keras.models.model_from_json("{")


def test_table_of_the_page():
    """It has the rows above, and of each what opens."""
    page = GOLDEN.parents[2] / "docs" / "coming-from-keras3.md"
    if not page.exists():
        pytest.skip("a test of a checkout; this is not one")
    lines = page.read_text(encoding="utf-8").splitlines()
    start = next(
        number for number, line in enumerate(lines) if line.endswith(" | ".join(("", *FORMS.values(), "")).strip())
    )
    table = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        row, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        table[row] = cells
    said = {name: "no" if name in NEVER else "yes" for name in ROWS.values()}
    expected = {row: [said[name] if form in forms_of(name) else "" for form in FORMS] for row, name in ROWS.items()}
    assert table == expected


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
