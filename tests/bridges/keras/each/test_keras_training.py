"""Three epochs of `fit` against Keras 2.15's (golden/make_keras_golden.py)."""

import json

import keras
import numpy as np
import pytest
from keras_tools import TRAINS, array
from layer_cases import GOLDEN

from localconv.keras import install

TRAINING = GOLDEN.parent / "keras" / "training.npz"
# How many times further from the float64 training than Keras 2.15's own float32 one may be: two such trainings differ
# in the order of their sums alone.
ROOM = 8

if TRAINS:

    def network(engine):
        """The model of the file, by this engine, with its first weights."""
        with np.load(TRAINING) as file:
            known = dict(file)
        about = json.loads(str(known["about"]))
        layers = []
        for entry in about["model"]["config"]["layers"]:
            config = dict(entry["config"])
            if entry["class_name"] == "InputLayer":
                layers.append(keras.Input(config["batch_input_shape"][1:]))
                continue
            if entry["class_name"].startswith("Locally"):
                config["engine"] = engine
            layers.append(getattr(keras.layers, entry["class_name"]).from_config(config))
        model = keras.Sequential(layers)
        model.set_weights([known[f"start_{number}"] for number in range(len(model.weights))])
        return model, about, known

    @pytest.mark.parametrize("engine", ["compiled", "ops"])
    @pytest.mark.parametrize("optimizer", ["sgd", "adam"])
    def test_three_epochs(optimizer, engine):
        install()
        model, about, known = network(engine)
        model.compile(keras.optimizers.deserialize(about["optimizers"][optimizer]), loss="mse")
        losses = model.fit(
            known["x"], known["y"], batch_size=about["batch"], epochs=about["epochs"], shuffle=False, verbose=0
        ).history["loss"]
        np.testing.assert_allclose(losses, known[f"{optimizer}_float32_losses"], rtol=1e-5)
        moved = 0.0
        for number, weight in enumerate(model.weights):
            theirs, exact, start = (
                known[name]
                for name in (f"{optimizer}_float32_{number}", f"{optimizer}_float64_{number}", f"start_{number}")
            )
            rounding = abs(theirs - exact).max() + np.finfo("float32").eps * abs(exact).max()
            assert abs(array(weight) - exact).max() <= ROOM * rounding
            moved = max(moved, abs(exact - start).max() / rounding)
        assert moved > 1e4, "the training hardly moves the weights: nothing is shown"

else:

    def test_numpy_does_not_train():
        """What Keras says, and not the layers."""
        install()
        model = keras.Sequential([keras.Input((6, 2)), keras.layers.LocallyConnected1D(2, 3)])
        model.compile("sgd", loss="mse")
        with pytest.raises(NotImplementedError, match="fit"):
            model.fit(np.zeros((2, 6, 2)), np.zeros((2, 4, 2)), verbose=0)
