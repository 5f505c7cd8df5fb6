"""The layers against Keras 2.15: outputs, losses and derivatives of its golden cases, with both engines."""

import json

import keras
import numpy as np
import pytest
from keras_tools import BACKEND, TRAINS, run_layer
from layer_cases import GOLDEN, assert_close, golden

import localconv.keras

CASES = [
    pytest.param(case, id=f"{family}-{number}")
    for family in sorted(file.stem for file in GOLDEN.glob("local?d.npz"))
    for number, case in enumerate(golden(family))
]


def made(case, **more):
    layer = getattr(localconv.keras, case["layer"])(**case["arguments"], **more)
    layer.build((None, *case["x"].shape[1:]))
    assert [tuple(w.shape) for w in layer.weights] == [w.shape for w in case["weights"]]
    layer.set_weights(case["weights"])
    return layer


def rounded(value):
    """A config without its name, and with factors of regularizers as Keras 2 rounds them."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items() if key != "name"}
    return float(np.float32(value)) if isinstance(value, float) else value


@pytest.mark.parametrize("engine", ["compiled", "ops"])
@pytest.mark.parametrize("case", CASES)
def test_layer(case, engine):
    layer = made(case, engine=engine)
    y, losses, dx, dw = run_layer(layer, case["x"], case["g"])
    # Under numpy Keras's own activations make float32 of float64.
    assert_close(y, case["y"].astype("float32" if BACKEND == "numpy" else case["y"].dtype))
    assert layer.compute_output_shape(case["x"].shape) == y.shape
    assert len(losses) == len(case["losses"])
    for ours, theirs in zip(sorted(losses), sorted(case["losses"]), strict=True):
        assert_close(ours, theirs, 2**10)
    if TRAINS:
        assert_close(dx, case["dx"], 256)
        for ours, theirs in zip(dw, case["dw"], strict=True):
            assert_close(ours, theirs, 256)


@pytest.mark.parametrize("case", CASES)
def test_config(case):
    """Keras 2's arguments as they were, in a config that makes the same layer; and Keras 2's config makes it too."""
    layer = made(case)
    config = json.loads(json.dumps(layer.get_config()))
    assert set(case["arguments"]) <= set(config)
    for name in ("filters", "padding", "data_format", "use_bias", "implementation"):
        assert config[name] == case["config"][name]
    assert tuple(config["kernel_size"]) == tuple(case["config"]["kernel_size"])
    for source in (config, case["config"]):
        again = type(layer).from_config(source)
        again.build((None, *case["x"].shape[1:]))
        again.set_weights(case["weights"])
        x = case["x"]
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(again(x)), keras.ops.convert_to_numpy(layer(x)))
        assert rounded(again.get_config()) == rounded(layer.get_config())
