"""Makes what tests/golden/keras2/ holds with real Keras 2.15: `python tests/golden/make_keras2_models.py`.

Needs a Python 3.11 environment with `pip install 'tensorflow-cpu==2.15.*'` (which brings h5py).

Each model is there for the kinds of layers and settings that Keras 3 reads otherwise, or not at all, beside a locally
connected layer: as `NAME.keras`, `NAME.model.h5` and, unless it is compiled, `NAME.json` (`to_json`). `answers.npz`
holds the inputs, weights and outputs of all, and what `evaluate` says of the compiled ones for targets of 0. With names
as arguments only these models are made anew.
"""

import os
import pathlib
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import numpy as np
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers

HERE = pathlib.Path(__file__).with_name("keras2")


def batch_normalization():
    return keras.Sequential(
        [
            layers.LocallyConnected2D(2, 2, input_shape=(5, 4, 2)),
            layers.BatchNormalization(),
            layers.BatchNormalization(axis=1, scale=False),
            layers.Flatten(),
            layers.Dense(3),
            layers.LayerNormalization(),
        ]
    )


def pooling():
    return keras.Sequential(
        [
            layers.LocallyConnected2D(2, 2, input_shape=(10, 9, 2), activation="relu"),
            layers.ZeroPadding2D(1),
            layers.MaxPooling2D(2, 1, padding="same"),
            layers.AveragePooling2D(2),
            layers.Reshape((5, 10)),
            layers.MaxPooling1D(2, padding="same"),
            layers.Permute((2, 1)),
            layers.Dropout(0.2),
            layers.GlobalAveragePooling1D(),
            layers.RepeatVector(3),
            layers.GlobalMaxPooling1D(),
        ]
    )


def convolutions():
    return keras.Sequential(
        [
            layers.Conv2D(2, 2, input_shape=(7, 6, 2)),
            layers.DepthwiseConv2D(2),
            layers.Conv2DTranspose(2, 2),
            layers.SeparableConv2D(2, 2),
            layers.LocallyConnected2D(2, 2),
            layers.UpSampling2D(2),
            layers.Cropping2D(1),
            layers.PReLU(shared_axes=[1, 2]),
        ]
    )


def activations():
    return keras.Sequential(
        [
            layers.LocallyConnected1D(2, 2, input_shape=(6, 2)),
            layers.LeakyReLU(0.2),
            layers.ELU(0.5),
            layers.Activation("swish"),
            layers.ReLU(6.0),
            layers.Dense(3, activation=tf.nn.tanh),
            layers.Softmax(),
        ]
    )


def merged():
    x = keras.Input((6, 2), name="x")
    y = layers.LocallyConnected1D(2, 3, padding="same", implementation=2)(x)
    total = layers.Add()([x, y])
    product = layers.Multiply()([total, y])
    both = layers.Concatenate()([product, layers.Subtract()([total, x])])
    return keras.Model(x, layers.Maximum()([layers.Average()([both, both]), both]))


def two_inputs_two_outputs():
    left, right = keras.Input((6, 2), name="left"), keras.Input((6, 2), name="right")
    shared = layers.LocallyConnected1D(2, 3, name="shared")
    a, b = shared(left), shared(right)
    first = layers.Dense(2, name="first")(layers.Flatten()(a))
    second = layers.Dense(1, name="second")(layers.Flatten()(layers.Add()([a, b])))
    return keras.Model([left, right], [first, second])


def steps():
    return keras.Sequential(
        [
            layers.TimeDistributed(layers.LocallyConnected1D(2, 2), input_shape=(3, 4, 2)),
            layers.TimeDistributed(layers.Flatten()),
            layers.GRU(3, return_sequences=True),
            layers.Bidirectional(layers.LSTM(2, return_sequences=True)),
            layers.SimpleRNN(2),
        ]
    )


def words():
    return keras.Sequential(
        [layers.Embedding(7, 3, input_length=5), layers.LocallyConnected1D(2, 3), layers.GRU(2, reset_after=False)]
    )


def initial_states():
    source, target = keras.Input((4, 2), name="source"), keras.Input((3, 2), name="target")
    _, *states = layers.LSTM(2, return_state=True)(layers.LocallyConnected1D(2, 2)(source))
    return keras.Model([source, target], layers.LSTM(2, return_sequences=True)(target, initial_state=states))


def attention():
    query, value = keras.Input((4, 2), name="query"), keras.Input((4, 2), name="value")
    local = layers.LocallyConnected1D(2, 1)(value)
    heads = layers.MultiHeadAttention(2, 3)(query, value=local, key=value)
    return keras.Model([query, value], layers.Add()([heads, layers.Attention()([query, local])]))


def python_lambda():
    # Its code, which is in the file, names the file that it comes from.
    function = eval(compile("lambda x: 2 * x + 1", "model.py", "eval"))
    return keras.Sequential(
        [layers.LocallyConnected1D(2, 2, input_shape=(5, 2)), layers.Lambda(function), layers.Flatten()]
    )


def nested():
    x = keras.Input((6, 2))
    inner = keras.Model(x, layers.BatchNormalization()(layers.LocallyConnected1D(2, 2)(x)), name="inner")
    innermost = keras.Sequential([layers.LocallyConnected1D(2, 2, input_shape=(5, 2))], name="innermost")
    left, right = keras.Input((6, 2)), keras.Input((6, 2))
    a, b = inner(left), inner(right)
    return keras.Model([left, right], [innermost(a), b, layers.Flatten()(innermost(b))])


def operators():
    x = keras.Input((5, 2))
    y = layers.LocallyConnected1D(2, 2)(x)
    return keras.Model(x, tf.nn.relu(y + x[:, 1:]) * 2.0)


def mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = keras.Sequential(
        [layers.LocallyConnected1D(2, 2, input_shape=(5, 2)), layers.Flatten(), layers.Dense(2, dtype="float32")]
    )
    keras.mixed_precision.set_global_policy("float32")
    return model


def small(outputs=2, activation=None):
    return keras.Sequential(
        [
            layers.LocallyConnected1D(2, 2, input_shape=(5, 2)),
            layers.Flatten(),
            layers.Dense(outputs, activation=activation),
        ]
    )


def loss_by_name():
    model = small()
    model.compile("rmsprop", loss="mse", metrics=["mae"])
    return model


def loss_object():
    model = small()
    loss = keras.losses.MeanSquaredError(reduction="sum_over_batch_size", name="loss")
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9), clipnorm=1.0)
    model.compile(optimizer, loss=loss, metrics=[keras.metrics.MeanAbsoluteError(name="error")])
    return model


def loss_object_of_classes():
    model = small(3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    metrics = ["accuracy", keras.metrics.SparseCategoricalAccuracy()]
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True), loss=loss, metrics=metrics)
    return model


def losses_of_outputs():
    model = two_inputs_two_outputs()
    losses = {"first": keras.losses.Huber(delta=0.5), "second": "mean_squared_error"}
    model.compile("adam", loss=losses, loss_weights={"first": 1.0, "second": 0.25}, metrics={"first": ["mse"]})
    return model


MODELS = (
    batch_normalization,
    pooling,
    convolutions,
    activations,
    merged,
    two_inputs_two_outputs,
    steps,
    words,
    initial_states,
    attention,
    python_lambda,
    nested,
    operators,
    mixed_precision,
    loss_by_name,
    loss_object,
    loss_object_of_classes,
    losses_of_outputs,
)


def input_of(tensor, name, rng):
    shape = (2, *tensor.shape[1:])
    return rng.integers(0, 7, shape).astype("float32") if name == "words" else rng.standard_normal(shape, "float32")


def written(make):
    """Write a model's three files; return its arrays."""
    keras.backend.clear_session()
    name, rng = make.__name__, np.random.default_rng(2015)
    model = make()
    # Positive, as variances must be.
    model.set_weights([0.1 + 0.5 * rng.random(w.shape, "float32") for w in model.get_weights()])
    inputs = [input_of(tensor, name, rng) for tensor in model.inputs]
    targets = None
    if model.compiled_loss is not None:
        shapes = [tensor.shape[1:-1] if "classes" in name else tensor.shape[1:] for tensor in model.outputs]
        targets = [np.zeros((2, *shape), "float32") for shape in shapes]
        targets = targets if len(targets) > 1 else targets[0]
        # The optimizer has a state.
        model.fit(inputs, targets, verbose=0)
    outputs = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    model.save(HERE / f"{name}.keras")
    model.save(HERE / f"{name}.model.h5")
    if targets is None:
        # Which says nothing of losses.
        (HERE / f"{name}.json").write_text(model.to_json() + "\n", encoding="utf-8")
    arrays = {f"{name}/x/{number}": x for number, x in enumerate(inputs)}
    arrays |= {f"{name}/w/{number}": w for number, w in enumerate(model.get_weights())}
    outputs = outputs if isinstance(outputs, list) else [outputs]
    if targets is not None:
        for metric, value in model.evaluate(inputs, targets, verbose=0, return_dict=True).items():
            arrays[f"{name}/metrics/{metric}"] = np.float32(value)
    return arrays | {f"{name}/y/{number}": np.asarray(y, "float32") for number, y in enumerate(outputs)}


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    answers = HERE / "answers.npz"
    found = {}
    if answers.exists():
        with np.load(answers) as file:
            found = dict(file)
    for make in MODELS:
        if make.__name__ in sys.argv[1:] or len(sys.argv) == 1:
            found = {key: a for key, a in found.items() if key.partition("/")[0] != make.__name__} | written(make)
            print(make.__name__, flush=True)
    np.savez_compressed(answers, **found)
