"""Models that `Sequential.save` wrote into tests/golden/layers, from where real Keras 2.15 reads them.

`python tests/golden/saved_models.py` writes them anew, with localconv; `make_layers_golden.py saved` then asks Keras
what they are. They have weights of their own, so that whoever saves one of them again gets the same file.
"""

import pathlib

import numpy as np

from localconv.layers import (
    Activation,
    Conv1D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    LocallyConnected1D,
    LocallyConnected2D,
    MaxPooling2D,
    Sequential,
    regularizers,
)

HERE = pathlib.Path(__file__).with_name("layers")


def stack():
    """Every kind of argument: terms by name and with parameters (which float32 holds, as Keras rounds them), a seed,
    which Keras does not have.
    """
    return Sequential(
        [
            LocallyConnected2D(
                *(3, (3, 2)),
                strides=(2, 1),
                activation="relu",
                kernel_regularizer=regularizers.L2(2**-7),
                kernel_constraint="max_norm",
                input_shape=(9, 7, 2),
                name="local",
                seed=1,
            ),
            Conv2D(4, 2, padding="same", dilation_rate=2, groups=1, activation="tanh", use_bias=False, name="conv"),
            MaxPooling2D(2, 1, name="pool"),
            Dropout(0.25, seed=3, name="drop"),
            Activation("elu", name="elu"),
            Flatten(name="flat"),
            Dense(3, activation="softmax", activity_regularizer=regularizers.L1(2**-6), name="read_out"),
        ],
        name="stack",
    )


def nest():
    """A model in a model, some of whose layers do not train, which changes the order of weights; float64."""
    inner = Sequential(
        [
            LocallyConnected1D(3, 2, implementation=2, padding="same", name="first"),
            LocallyConnected1D(3, 2, implementation=3, name="second", trainable=False),
            Conv1D(3, 1, name="third"),
        ],
        name="inner",
    )
    top = LocallyConnected1D(2, 2, dtype="float64", use_bias=False, name="top")
    model = Sequential([Conv1D(2, 2, padding="causal", input_shape=(6, 2), name="bottom"), inner, top], name="nest")
    inner.layers[0].trainable = False
    return model


MODELS = {"stack": stack, "nest": nest}
FILES = [f"ours_{name}.{suffix}" for name in MODELS for suffix in ("keras", "h5")]


def made(file):
    """The model of a file."""
    name = file.removeprefix("ours_").partition(".")[0]
    model, rng = MODELS[name](), np.random.default_rng(2015)
    model.set_weights([0.3 * rng.standard_normal(w.shape) for w in model.get_weights()])
    return model


if __name__ == "__main__":
    for file in FILES:
        made(file).save(HERE / file)
        print(file, (HERE / file).stat().st_size, "bytes")
