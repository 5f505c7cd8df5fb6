"""Makes what tests/golden/layers/ holds with real Keras 2.15: `python tests/golden/make_layers_golden.py [FAMILY ...]`.

Needs a Python 3.11 environment with `pip install 'tensorflow-cpu==2.15.*'` (which brings h5py). Families: functions,
local1d, local2d, local3d, conv, around, volumes, structure, files, deepface, scopes, saved; all of them unless some
are named. `saved` reads what saved_models.py wrote.

An .npz holds the array `cases`, JSON text: a list of dicts, in which {"array": [dtype, start, shape]} stands for an
array, in the flat array of that dtype. A case of a layer says: a layer of class `layer` made with `arguments` and given
`weights` gives `y` for `x` and has `losses`; for the derivative `g` of a number with respect to `y`, that number plus
the losses has the derivatives `dx` and `dw`.

Shapes are tiny: TensorFlow slices a locally connected layer's input once for every output position.
"""

import itertools
import json
import os
import pathlib
import sys
import types
import warnings

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import numpy as np
import tensorflow as tf
from keras.src import backend
from keras.src.layers.locally_connected import locally_connected_utils
from keras.src.utils import conv_utils
from scope_programs import PROGRAMS, Record
from tensorflow import keras
from tensorflow.python.util.tf_export import keras_export

HERE = pathlib.Path(__file__).with_name("layers")
FORMATS = ("channels_last", "channels_first")
rng = np.random.default_rng(2015)


class Family:
    """The cases of one .npz file."""

    def __init__(self, name):
        self.name, self.cases, self.flat = name, [], {"float32": [], "float64": []}

    def add(self, **case):
        self.cases.append(self._plain(case))

    def _plain(self, value):
        if isinstance(value, dict):
            return {key: self._plain(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._plain(part) for part in value]
        if isinstance(value, (np.ndarray, np.floating, tf.Tensor)):
            array = np.asarray(value)
            flat = self.flat[array.dtype.name]
            start = len(flat)
            flat.extend(array.ravel())
            return {"array": [array.dtype.name, start, array.shape]}
        return value

    def save(self):
        path = HERE / f"{self.name}.npz"
        flat = {name: np.asarray(values, name) for name, values in self.flat.items()}
        np.savez_compressed(path, cases=json.dumps(self.cases), **flat)
        print(f"{path.name}: {len(self.cases)} cases, {path.stat().st_size} bytes", flush=True)


@keras_export("keras.layers.LocallyConnected3D")  # is written to configs as Keras's own layers are
class LocallyConnected3D(keras.layers.LocallyConnected2D):
    """What those of Keras's functions that take any number of dimensions make of three; Keras has no such layer."""

    def __init__(self, filters, kernel_size, strides=(1, 1, 1), **arguments):
        super().__init__(filters, 1, **arguments)
        self.kernel_size, self.strides, self.input_spec = kernel_size, strides, None

    def build(self, input_shape):
        first = self.data_format == "channels_first"
        spatial, channels = (input_shape[2:], input_shape[1]) if first else (input_shape[1:-1], input_shape[-1])
        window = {
            "input_shape": spatial,
            "kernel_shape": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
        }
        self.output_size = conv_utils.conv_output_shape(**window)
        inputs = (channels, *spatial) if first else (*spatial, channels)
        outputs = (self.filters, *self.output_size) if first else (*self.output_size, self.filters)
        self.full_shape = tf.TensorShape((None, *outputs))
        if self.implementation == 1:
            shape = (np.prod(self.output_size), np.prod(self.kernel_size) * channels, self.filters)
        elif self.implementation == 2:
            shape = inputs + outputs
            self.kernel_mask = locally_connected_utils.get_locallyconnected_mask(**window, data_format=self.data_format)
        else:
            sizes = {"filters_in": channels, "filters_out": self.filters, "data_format": self.data_format}
            self.kernel_idxs = sorted(conv_utils.conv_kernel_idxs(**window, **sizes))
            self.kernel_shape = (np.prod(outputs), np.prod(inputs))
            shape = (len(self.kernel_idxs),)
        self.kernel = self.add_weight(name="kernel", shape=shape, regularizer=self.kernel_regularizer)
        self.bias = None
        if self.use_bias:
            shape = (*self.output_size, self.filters)
            self.bias = self.add_weight(name="bias", shape=shape, regularizer=self.bias_regularizer)
        self.built = True

    def compute_output_shape(self, input_shape):
        return self.full_shape

    def call(self, inputs):
        if self.implementation == 1:
            y = backend.local_conv(
                inputs, self.kernel, self.kernel_size, self.strides, self.output_size, self.data_format
            )
        elif self.implementation == 2:
            y = locally_connected_utils.local_conv_matmul(inputs, self.kernel, self.kernel_mask, self.full_shape)
        else:
            y = locally_connected_utils.local_conv_sparse_matmul(
                inputs, self.kernel, self.kernel_idxs, self.kernel_shape, self.full_shape
            )
        return self.activation(y if self.bias is None else backend.bias_add(y, self.bias, self.data_format))


def normal(shape, dtype="float32"):
    return rng.standard_normal(shape).astype(dtype)


def run_layer(family, name, arguments, shape, channels_first_of=None):
    """Add the case of one layer.

    `channels_first_of`: the rank of a convolution, which TensorFlow's processor kernels do in channels_last only; the
    case is then that of channels_first, with everything transposed.
    """
    dtype = arguments.get("dtype", "float32")
    given = dict(arguments, data_format="channels_last") if channels_first_of else arguments
    layer = (LocallyConnected3D if name == "LocallyConnected3D" else getattr(keras.layers, name))(**given)
    layer.build((None, *shape[1:]))
    layer.set_weights([normal(w.shape, w.dtype.name) for w in layer.weights])
    x = tf.constant(normal(shape, dtype))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        g = normal(y.shape, dtype)
        losses = list(layer.losses)
        total = tf.reduce_sum(y * g) + sum(losses)
    dx, *dw = tape.gradient(total, [x, *layer.weights])
    x, y, g, dx = (np.asarray(array) for array in (x, y, g, dx))
    if channels_first_of:
        x, y, g, dx = (np.moveaxis(array, -1, -1 - channels_first_of) for array in (x, y, g, dx))
    weights = layer.get_weights()
    family.add(
        layer=name,
        arguments=arguments,
        x=x,
        weights=weights,
        y=y,
        losses=losses,
        g=g,
        dx=dx,
        dw=dw,
        config=dict(layer.get_config(), data_format=arguments.get("data_format", "channels_last")),
    )


def local_cases(rank):
    """Every implementation, padding, format, bias; the other arguments each with some of them."""
    turns = itertools.cycle(
        [
            {},
            {"activation": "relu"},
            {"activation": "tanh", "kernel_regularizer": "l2"},
            {"activation": "softmax"},
            {"activation": "sigmoid", "activity_regularizer": "l2"},
            {"bias_regularizer": "l1", "activation": "elu"},
            {"kernel_regularizer": "l1_l2"},
        ]
    )
    for implementation, padding, data_format, use_bias in itertools.product(
        (1, 2, 3), ("valid", "same"), FORMATS, (True, False)
    ):
        if implementation == 1 and padding == "same":
            continue
        more = dict(next(turns))
        if not use_bias:
            more.pop("bias_regularizer", None)
        yield {
            "filters": 2,
            "implementation": implementation,
            "padding": padding,
            "data_format": data_format,
            "use_bias": use_bias,
            **more,
        }


def input_shape(spatial, channels, data_format, batch=2):
    return (batch, channels, *spatial) if data_format == "channels_first" else (batch, *spatial, channels)


def local1d():
    family = Family("local1d")
    sizes = itertools.cycle([(3, 1), (2, 1), (3, 2), (2, 2), (4, 2)])
    for arguments, (k, s) in zip(local_cases(1), sizes, strict=False):
        run_layer(
            family,
            "LocallyConnected1D",
            {**arguments, "kernel_size": k, "strides": s},
            input_shape((7,), 3, arguments["data_format"]),
        )
    run_layer(
        family,
        "LocallyConnected1D",
        {"filters": 2, "kernel_size": 3, "dtype": "float64", "activation": "softsign"},
        (2, 6, 2),
    )
    family.save()


def local2d():
    family = Family("local2d")
    sizes = itertools.cycle([((3, 2), (1, 1)), ((2, 3), (2, 1)), ((3, 3), (2, 2)), ((2, 2), (1, 2))])
    for arguments, (k, s) in zip(local_cases(2), sizes, strict=False):
        run_layer(
            family,
            "LocallyConnected2D",
            {**arguments, "kernel_size": k, "strides": s},
            input_shape((5, 4), 2, arguments["data_format"]),
        )
    run_layer(
        family,
        "LocallyConnected2D",
        {"filters": 2, "kernel_size": 2, "dtype": "float64", "activation": "selu"},
        (2, 4, 3, 2),
    )
    family.save()


def local3d():
    family = Family("local3d")
    sizes = itertools.cycle(
        [((2, 1, 2), (1, 1, 1)), ((1, 2, 3), (1, 1, 2)), ((3, 2, 2), (2, 1, 1)), ((2, 2, 1), (1, 2, 2))]
    )
    for arguments, (k, s) in zip(local_cases(3), sizes, strict=False):
        run_layer(
            family,
            "LocallyConnected3D",
            {**arguments, "kernel_size": k, "strides": s},
            input_shape((3, 2, 3), 2, arguments["data_format"]),
        )
    family.save()


def conv():
    family = Family("conv")
    for data_format in FORMATS:
        first = data_format == "channels_first"
        for arguments in (
            {"kernel_size": 3},
            {"kernel_size": 3, "padding": "same", "strides": 2, "activation": "relu"},
            {"kernel_size": 2, "padding": "causal", "dilation_rate": 2, "activation": "tanh"},
            {"kernel_size": 3, "use_bias": False, "kernel_regularizer": "l2", "activity_regularizer": "l1"},
            {"kernel_size": 4, "padding": "same", "activation": "softplus", "bias_regularizer": "l2"},
        ):
            # The softmax runs over the last axis, so it is not among the transposed ones.
            run_layer(
                family,
                "Conv1D",
                {"filters": 3, "data_format": data_format, **arguments},
                (2, 8, 4),
                1 if first else None,
            )
        run_layer(
            family,
            "Conv1D",
            {"filters": 3, "kernel_size": 3, "data_format": data_format},
            (2, 3, 6, 2),
            1 if first else None,
        )
        for arguments in (
            {"kernel_size": (3, 2)},
            {"kernel_size": (2, 3), "padding": "same", "strides": (2, 1), "activation": "relu"},
            {"kernel_size": 2, "dilation_rate": (1, 2), "activation": "sigmoid", "kernel_regularizer": "l1"},
            {"kernel_size": 3, "padding": "same", "use_bias": False, "activation": "swish"},
        ):
            run_layer(
                family,
                "Conv2D",
                {"filters": 3, "data_format": data_format, **arguments},
                (2, 5, 6, 2),
                2 if first else None,
            )
    run_layer(
        family, "Conv2D", {"filters": 4, "kernel_size": 2, "activation": "softmax", "dtype": "float64"}, (2, 4, 3, 2)
    )
    family.save()
    groups()


def groups():
    """Grouped convolutions: TensorFlow compiles them, and has no gradient of that on a processor."""
    family = Family("groups")
    for name, shape, arguments in (
        ("Conv1D", (2, 7, 4), {"kernel_size": 3, "groups": 2}),
        ("Conv2D", (2, 5, 4, 6), {"kernel_size": 2, "groups": 3, "padding": "same"}),
        ("Conv3D", (2, 3, 4, 2, 4), {"kernel_size": 2, "groups": 2, "padding": "same"}),
    ):
        layer = getattr(keras.layers, name)(filters=6, **arguments)
        layer.build((None, *shape[1:]))
        layer.set_weights([normal(w.shape) for w in layer.weights])
        x = normal(shape)
        family.add(
            layer=name,
            arguments={"filters": 6, **arguments},
            x=x,
            weights=layer.get_weights(),
            y=layer(x),
            losses=[],
            config=layer.get_config(),
        )
    family.save()


def around():
    family = Family("around")
    run_layer(family, "Dense", {"units": 3, "activation": "softmax", "kernel_regularizer": "l2"}, (4, 5))
    run_layer(family, "Dense", {"units": 3, "use_bias": False, "activation": "relu"}, (2, 3, 5))
    run_layer(family, "Flatten", {}, (2, 3, 4, 2))
    run_layer(family, "Flatten", {"data_format": "channels_first"}, (2, 3, 4, 2))
    run_layer(family, "Activation", {"activation": "elu"}, (2, 3))
    for arguments in ({}, {"pool_size": 3, "strides": 2, "padding": "same"}, {"pool_size": (2, 3), "strides": (1, 2)}):
        for data_format in FORMATS:
            first = data_format == "channels_first"
            run_layer(
                family, "MaxPooling2D", {"data_format": data_format, **arguments}, (2, 6, 7, 2), 2 if first else None
            )
    run_layer(family, "MaxPooling1D", {"pool_size": 3, "strides": 1, "padding": "same"}, (2, 6, 2))
    for case in family.cases:
        if case["layer"] in ("Dense", "Activation"):
            case["config"].pop("data_format")
    family.save()


def volumes():
    """The other layers in three dimensions."""
    family = Family("volumes")
    for data_format in FORMATS:
        first = data_format == "channels_first"
        for arguments in (
            {"kernel_size": (2, 3, 1)},
            {"kernel_size": (3, 2, 2), "padding": "same", "strides": (1, 2, 3), "activation": "relu"},
            {"kernel_size": 2, "dilation_rate": (1, 2, 3), "activation": "tanh", "kernel_regularizer": "l2"},
            {"kernel_size": 2, "use_bias": False},
        ):
            run_layer(
                family,
                "Conv3D",
                {"filters": 3, "data_format": data_format, **arguments},
                (2, 3, 4, 5, 2),
                3 if first else None,
            )
        for arguments in (
            {},
            {"pool_size": 3, "strides": (1, 2, 2), "padding": "same"},
            {"pool_size": (1, 2, 3), "strides": (2, 1, 2)},
        ):
            run_layer(
                family,
                "MaxPooling3D",
                {"data_format": data_format, **arguments},
                input_shape((3, 4, 5), 2, data_format),
            )
        run_layer(family, "Flatten", {"data_format": data_format}, (2, 2, 3, 2, 2))
    run_layer(family, "Conv3D", {"filters": 2, "kernel_size": 2}, (2, 2, 2, 3, 3, 2))
    run_layer(
        family, "Conv3D", {"filters": 3, "kernel_size": 2, "activation": "softmax", "dtype": "float64"}, (1, 2, 3, 3, 2)
    )
    family.save()


ACTIVATIONS = [
    ("linear", {}),
    ("relu", {}),
    ("relu", {"alpha": 0.1, "max_value": 1.5, "threshold": 0.3}),
    ("relu", {"alpha": 0.2}),
    ("relu", {"max_value": 6.0}),
    ("relu", {"threshold": -0.5}),
    ("elu", {}),
    ("elu", {"alpha": 0.5}),
    ("selu", {}),
    ("gelu", {}),
    ("gelu", {"approximate": True}),
    ("sigmoid", {}),
    ("hard_sigmoid", {}),
    ("tanh", {}),
    ("softmax", {}),
    ("softmax", {"axis": 0}),
    ("softplus", {}),
    ("softsign", {}),
    ("swish", {}),
    ("exponential", {}),
    ("mish", {}),
]
REGULARIZERS = [
    ("L1", {}),
    ("L2", {}),
    ("L1L2", {"l1": 0.1, "l2": 0.3}),
    ("OrthogonalRegularizer", {"factor": 0.5}),
    ("OrthogonalRegularizer", {"factor": 0.5, "mode": "columns"}),
]
CONSTRAINTS = [
    ("MaxNorm", {}),
    ("MaxNorm", {"max_value": 1.0, "axis": 1}),
    ("MaxNorm", {"max_value": 1.5, "axis": [0, 1]}),
    ("NonNeg", {}),
    ("UnitNorm", {}),
    ("UnitNorm", {"axis": 1}),
    ("MinMaxNorm", {"min_value": 0.5, "max_value": 1.0, "rate": 0.7, "axis": 1}),
]


def functions():
    family = Family("functions")
    spread = np.concatenate([np.linspace(-6.5, 6.5, 40), [-30, -12, 12, 30, 0.3, -0.25]]).reshape(2, 23)
    named = [(name, parameters, getattr(keras.activations, name)) for name, parameters in ACTIVATIONS]
    named += [("relu6", {}, tf.nn.relu6), ("leaky_relu", {}, tf.nn.leaky_relu)]
    for (name, parameters, function), dtype in itertools.product(named, ("float32", "float64")):
        x = tf.constant(spread.astype(dtype))
        g = normal(x.shape, dtype)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x, **parameters)
            total = tf.reduce_sum(y * g)
        family.add(activation=name, parameters=parameters, x=x, y=y, g=g, dx=tape.gradient(total, x))
    for name, parameters in REGULARIZERS:
        x = tf.constant(normal((4, 3)))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = getattr(keras.regularizers, name)(**parameters)(x)
        family.add(regularizer=name, parameters=parameters, x=x, y=y, dx=tape.gradient(y, x))
    for name, parameters in CONSTRAINTS:
        w = normal((4, 3)) * np.linspace(0.1, 2, 3, dtype="float32")
        family.add(
            constraint=name,
            parameters=parameters,
            x=w,
            y=getattr(keras.constraints, name)(**parameters)(tf.constant(w)),
        )
    family.save()


def structure():
    """Texts: names, configs, summaries."""
    keras.backend.clear_session()
    layers = keras.layers
    model = keras.Sequential()
    model.add(layers.LocallyConnected1D(64, 3, input_shape=(10, 32), activation="relu", kernel_constraint="max_norm"))
    model.add(layers.LocallyConnected1D(32, 3, kernel_initializer="he_normal", trainable=False))
    model.add(
        layers.Conv1D(
            3, 2, padding="CAUSAL", dtype="float64", kernel_initializer=keras.initializers.RandomUniform(-1, 1, seed=3)
        )
    )
    model.add(layers.Flatten())
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(3, activation="softmax", name="a_dense_layer_with_quite_a_long_name_indeed"))
    found = {"json": model.to_json(), "weights": [[w.name, w.shape.as_list()] for w in model.weights]}
    for show_trainable in (False, True):
        lines = []
        model.summary(print_fn=lambda line, *_, lines=lines: lines.append(line), show_trainable=show_trainable)
        found[f"summary {show_trainable}"] = lines
    lines = []
    model.summary(line_length=90, positions=[0.3, 0.7, 1.0], print_fn=lambda line, *_: lines.append(line))
    found["summary wide"] = lines
    names = [
        getattr(layers, name)(2, 2).name for name in ("LocallyConnected2D", "Conv2D", "LocallyConnected2D", "Conv1D")
    ]
    found["names"] = [*names, layers.MaxPooling2D().name, keras.Sequential().name]
    (HERE / "structure.json").write_text(json.dumps(found, indent=1) + "\n")


def fill(model):
    for layer in model.layers:
        layer.set_weights([(0.3 * normal(w.shape)).astype(w.dtype.as_numpy_dtype) for w in layer.weights])


def network(implementation, data_format):
    layers = keras.layers
    shape = (2, 6, 5) if data_format == "channels_first" else (6, 5, 2)
    common = {"implementation": implementation, "data_format": data_format}
    return keras.Sequential(
        [
            layers.LocallyConnected2D(
                2, (3, 2), strides=(2, 1), activation="tanh", name="local_2d", input_shape=shape, **common
            ),
            layers.LocallyConnected2D(
                2, 2, padding="valid" if implementation == 1 else "same", activation="relu", **common
            ),
            layers.Flatten(name="flat", data_format=data_format),
            layers.Dense(3, name="read_out"),
        ],
        name="network",
    )


def line(implementation):
    layers = keras.layers
    return keras.Sequential(
        [
            layers.LocallyConnected1D(2, 3, implementation=implementation, name="local_1d", input_shape=(7, 2)),
            layers.LocallyConnected1D(2, 2, strides=2, implementation=implementation, use_bias=False),
        ],
        name="line",
    )


def volume():
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Conv3D(2, (1, 2, 2), padding="same", activation="relu", input_shape=(3, 5, 4, 1)),
            layers.MaxPooling3D((1, 2, 2)),
            layers.Conv3D(2, 2, use_bias=False, name="second"),
            layers.Flatten(),
            layers.Dense(2),
        ],
        name="volume",
    )


def cube(implementation):
    return keras.Sequential(
        [
            LocallyConnected3D(2, (2, 1, 2), implementation=implementation, name="local_3d", input_shape=(3, 2, 4, 1)),
            LocallyConnected3D(
                1, (1, 2, 2), (2, 1, 1), implementation=implementation, use_bias=False, activation="tanh"
            ),
        ],
        name="cube",
    )


def files():
    """Weights files and whole models, their weights and an answer."""
    family = Family("files")
    for implementation in (1, 2, 3):
        for data_format in FORMATS:
            store(family, network(implementation, data_format), f"network_{implementation}_{data_format}", ["h5"])
        store(family, line(implementation), f"line_{implementation}", ["h5", "weights.h5", "model.h5", "keras"])
    nested = keras.Sequential(
        [
            keras.layers.Conv1D(2, 2, input_shape=(6, 2), name="first"),
            keras.Sequential([keras.layers.LocallyConnected1D(2, 2, name="inner")], name="nest"),
            keras.layers.LocallyConnected1D(2, 2, name="a"),
        ]
    )
    store(family, nested, "nested", ["model.h5", "weights.h5"])
    store(family, volume(), "volume", ["weights.h5", "model.h5", "keras"])
    for implementation, suffix in ((1, "keras"), (2, "weights.h5"), (3, "model.h5")):
        store(family, cube(implementation), f"cube_{implementation}", [suffix])
    family.save()


def store(family, model, stem, suffixes):
    """Write a model's files, and their case."""
    fill(model)
    x = normal((2, *model.input_shape[1:]))
    names = [f"{stem}.{suffix}" for suffix in suffixes]
    for name in names:
        (model.save if name.endswith(("model.h5", "keras")) else model.save_weights)(HERE / name)
    family.add(files=names, config=model.to_json(), x=x, y=model(x), weights=model.get_weights())


def deepface():
    """The network of the deepface package (FbDeepFace), every layer of it,
    at the smallest size that its windows allow.
    """
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Conv2D(2, 11, activation="relu", name="C1", input_shape=(71, 71, 3)),
            layers.MaxPooling2D(pool_size=3, strides=2, padding="same", name="M2"),
            layers.Conv2D(1, 9, activation="relu", name="C3"),
            layers.LocallyConnected2D(2, 9, activation="relu", name="L4"),
            layers.LocallyConnected2D(2, 7, strides=2, activation="relu", name="L5"),
            layers.LocallyConnected2D(2, 5, activation="relu", name="L6"),
            layers.Flatten(name="F0"),
            layers.Dense(6, activation="relu", name="F7"),
            layers.Dropout(rate=0.5, name="D0"),
            layers.Dense(5, activation="softmax", name="F8"),
        ],
        name="deepface",
    )
    fill(model)
    x = face()
    model.save(HERE / "deepface.model.h5")
    inner = keras.Sequential(model.layers[:6])
    family = Family("deepface")
    family.add(y=model(x), inner=inner(x))
    family.save()


def face():
    """An input that needs no file: tests make the same."""
    rows, columns, channels = np.ogrid[:71, :71, :3]
    return np.sin(0.3 * rows + 0.2 * columns * (channels + 1) + channels)[None].astype("float32")


def saved():
    """Models that localconv saved, as Keras has them."""
    family = Family("saved")
    rng = np.random.default_rng(16)
    for path in sorted(HERE.glob("ours_*")):
        model = keras.models.load_model(path)
        x = rng.standard_normal((3, *model.input_shape[1:])).astype("float32")
        family.add(file=path.name, config=model.to_json(), weights=model.get_weights(), x=x, y=model.predict(x))
    family.save()


def scopes():
    """What TensorFlow answers to the programs of scope_programs.py, each in a graph of its own."""
    found = {}
    for name, program in PROGRAMS.items():
        with tf.Graph().as_default(), warnings.catch_warnings(action="ignore"), tf.compat.v1.Session() as session:
            found[name] = answer(program, session)
    (HERE / "scopes.json").write_text(json.dumps(found, indent=1) + "\n")


def answer(program, session):
    v1 = tf.compat.v1
    record = Record()

    def conv1d(filters=2, dtype="float32", **arguments):
        v1.layers.conv1d(tf.ones((2, 8, 3), dtype), filters, 3, **arguments)

    def losses(scope=None):
        session.run(v1.global_variables_initializer())
        return [float(session.run(loss)) for loss in v1.losses.get_regularization_losses(scope)]

    program(
        types.SimpleNamespace(
            variable_scope=v1.variable_scope,
            get_variable_scope=v1.get_variable_scope,
            AUTO_REUSE=v1.AUTO_REUSE,
            conv1d=conv1d,
            global_variables=v1.global_variables,
            trainable_variables=v1.trainable_variables,
            losses=losses,
            constant=v1.constant_initializer,
            total=lambda factor: lambda weight: factor * tf.reduce_sum(weight),
            plus=tf.add,
            say=record.say,
            refused=record.refused,
        )
    )
    penalties = losses()
    variables = []
    for variable in v1.global_variables():
        value = session.run(variable)
        trained = any(variable is other for other in v1.trainable_variables())
        variables.append([variable.name, trained, float(value.flat[0]) if np.ptp(value) == 0 else None])
    return {"said": record.said, "variables": variables, "penalties": penalties}


FAMILIES = {
    f.__name__: f
    for f in (functions, local1d, local2d, local3d, conv, around, volumes, structure, files, deepface, scopes, saved)
}

if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for wanted in sys.argv[1:] or FAMILIES:
        rng = np.random.default_rng(2015)
        FAMILIES[wanted]()
