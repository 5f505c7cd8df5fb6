"""Makes what tests/golden/keras/ holds with real Keras 2.15: `python tests/golden/make_keras_golden.py`.

Needs a Python 3.11 environment with `pip install 'tensorflow-cpu==2.15.*'` (which brings h5py). The layers' own cases
are those of `make_layers_golden.py`; here are whole models that only Keras itself can run:

- `training.npz`: three epochs of `fit`, from the same weights in float32 and in float64. How far apart the two end is
  how much rounding matters to this training, and so a bound that needs no guess.
- `functional.model.h5`, `functional.keras`: a model with two inputs and a sum, every argument of the layers in use.
- `nested.keras`: a model in a model, compiled. `answers.npz` holds the inputs, weights and outputs of these files.
"""

import json
import os
import pathlib

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import numpy as np
import tensorflow as tf
from tensorflow import keras

HERE = pathlib.Path(__file__).with_name("keras")
EPOCHS, BATCH, IMAGES = 3, 4, 12
OPTIMIZERS = {
    "sgd": {"class_name": "SGD", "config": {"learning_rate": 0.05, "momentum": 0.9}},
    "adam": {"class_name": "Adam", "config": {"learning_rate": 0.01, "epsilon": 0.001}},
}


def normal(rng, shape, scale=1.0):
    return scale * rng.standard_normal(shape).astype("float32")


def network():
    """Layers as configs, which both versions of Keras read: implementations 1 and 3, regularizer and constraint."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.LocallyConnected2D(3, 2, activation="tanh", input_shape=(6, 5, 2), name="first"),
            layers.LocallyConnected2D(
                2,
                3,
                strides=2,
                padding="same",
                implementation=3,
                activation="relu",
                kernel_regularizer=keras.regularizers.L1L2(l1=0.0, l2=0.01),
                bias_constraint="max_norm",
                name="second",
            ),
            layers.Flatten(name="flat"),
            layers.Dense(3, name="answer"),
        ],
        name="trained",
    )


def trained(optimizer, dtype, weights, x, y):
    """Losses of the epochs and weights at the end."""
    keras.backend.set_floatx(dtype)
    model = network()
    model.set_weights([w.astype(dtype) for w in weights])
    model.compile(keras.optimizers.deserialize(dict(OPTIMIZERS[optimizer])), loss="mse")
    history = model.fit(
        x.astype(dtype), y.astype(dtype), batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0
    ).history["loss"]
    return history, model.get_weights()


def training():
    rng = np.random.default_rng(3)
    model = network()
    start = [normal(rng, w.shape, 0.4) for w in model.weights]
    x, y = normal(rng, (IMAGES, 6, 5, 2)), normal(rng, (IMAGES, 3))
    arrays = {f"start_{number}": w for number, w in enumerate(start)} | {"x": x, "y": y}
    for optimizer in OPTIMIZERS:
        for dtype in ("float32", "float64"):
            losses, weights = trained(optimizer, dtype, start, x, y)
            arrays[f"{optimizer}_{dtype}_losses"] = np.asarray(losses)
            arrays |= {f"{optimizer}_{dtype}_{number}": w for number, w in enumerate(weights)}
            print(optimizer, dtype, losses, flush=True)
    keras.backend.set_floatx("float32")
    about = {"epochs": EPOCHS, "batch": BATCH, "optimizers": OPTIMIZERS, "model": json.loads(model.to_json())}
    np.savez_compressed(HERE / "training.npz", about=json.dumps(about), **arrays)


def functional():
    layers = keras.layers
    left = keras.Input((6, 5, 2), name="left")
    right = keras.Input((7, 3), name="right")
    a = layers.LocallyConnected2D(
        2,
        (3, 2),
        strides=(2, 1),
        activation="elu",
        kernel_regularizer=keras.regularizers.l1_l2(0.01, 0.02),
        bias_regularizer="l2",
        activity_regularizer="l1",
        kernel_constraint=keras.constraints.MaxNorm(3.0, axis=[0, 1]),
        bias_constraint="non_neg",
        kernel_initializer="he_normal",
        name="a",
    )(left)
    b = layers.LocallyConnected1D(2, 3, implementation=2, padding="same", use_bias=False, name="b")(right)
    c = layers.LocallyConnected1D(4, 2, strides=2, implementation=3, trainable=False, name="c")(b)
    both = layers.Concatenate(name="both")([layers.Flatten(name="flat_a")(a), layers.Flatten(name="flat_c")(c)])
    return keras.Model([left, right], layers.Dense(3, activation="softmax", name="answer")(both), name="functional")


def nested():
    layers = keras.layers
    inner = keras.Sequential([layers.LocallyConnected1D(2, 2, name="inner", input_shape=(5, 2))], name="nest")
    model = keras.Sequential(
        [layers.Conv1D(2, 2, input_shape=(6, 2), name="first"), inner, layers.LocallyConnected1D(2, 2, name="a")],
        name="outer",
    )
    model.compile("adam", loss="mse", metrics=["mae"])
    return model


def files():
    rng = np.random.default_rng(4)
    arrays = {}
    for model, names in ((functional(), ("functional.model.h5", "functional.keras")), (nested(), ("nested.keras",))):
        model.set_weights([np.abs(normal(rng, w.shape, 0.3)) for w in model.get_weights()])
        inputs = [normal(rng, (2, *tensor.shape[1:])) for tensor in model.inputs]
        for name in names:
            model.save(HERE / name)
        arrays |= {f"{model.name}_x_{number}": x for number, x in enumerate(inputs)}
        arrays |= {f"{model.name}_w_{number}": w for number, w in enumerate(model.get_weights())}
        arrays[f"{model.name}_y"] = np.asarray(
            model([tf.constant(x) for x in inputs] if len(inputs) > 1 else inputs[0])
        )
    np.savez_compressed(HERE / "answers.npz", **arrays)


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    files()
    training()
