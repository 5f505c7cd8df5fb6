"""Layers, activations, regularizers and constraints against Keras 2.15 (golden/make_layers_golden.py
makes the vectors anew).
"""

import json

import numpy as np
import pytest
from layer_cases import GOLDEN, assert_close, golden

from localconv import layers

LAYER_CASES = [
    pytest.param(case, id=f"{family}-{number}")
    for family in ("local1d", "local2d", "local3d", "conv", "groups", "around", "volumes")
    for number, case in enumerate(golden(family))
]
# Some of them have no derivative in TensorFlow on a processor.
TRAINED = [case for case in LAYER_CASES if "dx" in case.values[0]]
FUNCTIONS = golden("functions")


def made(case):
    layer = getattr(layers, case["layer"])(**case["arguments"])
    layer.build((None, *case["x"].shape[1:]))
    assert [w.shape for w in layer.get_weights()] == [w.shape for w in case["weights"]]
    layer.set_weights(case["weights"])
    return layer


@pytest.mark.parametrize("case", LAYER_CASES)
@pytest.mark.parametrize("training", [False, True])
def test_output_and_losses(case, training):
    layer = made(case)
    y = layer(case["x"], training=training)
    assert_close(y, case["y"])
    assert layer.compute_output_shape(case["x"].shape) == y.shape
    assert_close(
        np.array([float(loss) for loss in layer.losses]), np.array([float(loss) for loss in case["losses"]]), 2**34
    )


@pytest.mark.parametrize("case", TRAINED)
def test_gradients(case):
    layer = made(case)
    layer(case["x"], training=True)
    assert_close(layer.backward(case["g"]), case["dx"], 256)
    assert len(layer.trainable_weights) == len(case["dw"])
    for variable, expected in zip(layer.trainable_weights, case["dw"], strict=True):
        assert_close(variable.grad, expected, 256)


@pytest.mark.parametrize("case", LAYER_CASES)
def test_config(case):
    """Keras's, but for its name, and factors of regularizers, which Keras rounds to float32.

    It makes an equal layer.
    """
    layer = made(case)
    config = json.loads(json.dumps(layer.get_config()))

    def rounded(value):
        if isinstance(value, dict):
            return {key: rounded(part) for key, part in value.items() if key != "name"}
        return float(np.float32(value)) if isinstance(value, float) else value

    assert rounded(config) == rounded(case["config"])
    again = type(layer).from_config(config)
    assert again.get_config() == layer.get_config()
    again.build((None, *case["x"].shape[1:]))
    again.set_weights(case["weights"])
    np.testing.assert_array_equal(again(case["x"]), layer(case["x"]))
    theirs = type(layer).from_config(case["config"])
    theirs.build((None, *case["x"].shape[1:]))
    theirs.set_weights(case["weights"])
    np.testing.assert_array_equal(theirs(case["x"]), layer(case["x"]))


def chosen(kind):
    return [pytest.param(case, id=f"{case[kind]}-{number}") for number, case in enumerate(FUNCTIONS) if kind in case]


@pytest.mark.parametrize("case", chosen("activation"))
def test_activation(case):
    activation = layers.activations.get({"class_name": case["activation"], "config": case["parameters"]})
    x, g = case["x"], case["g"]
    y = activation(x)
    # TensorFlow rounds the constants of these to float32 whatever the dtype.
    coarse = case["activation"] in ("gelu", "leaky_relu", "relu")
    precision = np.float32 if coarse else x.dtype
    assert_close(y.astype(precision), case["y"].astype(precision), 16)
    assert_close(activation.gradient(g, x, y).astype(precision), case["dx"].astype(precision))
    assert y.dtype == x.dtype
    again = layers.activations.get(json.loads(json.dumps(layers.activations.serialize(activation))))
    np.testing.assert_array_equal(again(x), y)
    np.testing.assert_array_equal(getattr(layers.activations, case["activation"])(x, **case["parameters"]), y)


@pytest.mark.parametrize("case", chosen("regularizer"))
def test_regularizer(case):
    regularizer = getattr(layers.regularizers, case["regularizer"])(**case["parameters"])
    assert_close(regularizer(case["x"]), case["y"])
    assert_close(regularizer.gradient(case["x"]), case["dx"])
    assert layers.regularizers.get(json.loads(json.dumps(layers.regularizers.serialize(regularizer)))) == regularizer


@pytest.mark.parametrize("case", chosen("constraint"))
def test_constraint(case):
    constraint = getattr(layers.constraints, case["constraint"])(**case["parameters"])
    assert_close(constraint(case["x"]), case["y"])
    assert layers.constraints.get(json.loads(json.dumps(layers.constraints.serialize(constraint)))) == constraint


@pytest.fixture
def structure():
    layers.clear_session()
    found = json.loads((GOLDEN / "structure.json").read_text())
    model = layers.Sequential.from_json(found["json"])
    return found, model


def test_model_from_keras_json(structure):
    found, model = structure
    ours, theirs = json.loads(model.to_json()), json.loads(found["json"])
    assert ours == theirs
    assert layers.Sequential.from_json(model.to_json()).to_json() == model.to_json()
    # Keras lists the weights that are trained first.
    assert sorted([w.name, list(w.shape)] for w in model.weights) == sorted(found["weights"])


@pytest.mark.parametrize("show_trainable", [False, True])
def test_summary(structure, show_trainable):
    found, model = structure
    lines = []
    model.summary(print_fn=lines.append, show_trainable=show_trainable)
    assert lines == found[f"summary {show_trainable}"]


def test_wide_summary(structure):
    found, model = structure
    lines = []
    model.summary(line_length=90, positions=[0.3, 0.7, 1.0], print_fn=lines.append)
    assert lines == found["summary wide"]


def test_automatic_names(structure):
    found, _ = structure
    layers.clear_session()
    for name, class_name in (
        ("locally_connected1d", "LocallyConnected1D"),
        ("conv1d", "Conv1D"),
        ("sequential", "Sequential"),
    ):
        assert getattr(layers, class_name)(*([] if class_name == "Sequential" else [2, 2])).name == name
    makers = ("LocallyConnected2D", "Conv2D", "LocallyConnected2D", "Conv1D")
    names = [getattr(layers, name)(2, 2, name=None).name for name in makers]
    assert [*names, layers.MaxPooling2D().name, layers.Sequential().name] == found["names"]
