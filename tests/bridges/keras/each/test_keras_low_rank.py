"""The low-rank layers on every backend, against those for NumPy."""

import copy
import inspect
import json

import keras
import numpy as np
import pytest
from keras_tools import BACKEND, TRAINS, array, run_layer

import localconv
from localconv import layers as numpy_layers
from localconv.keras import LowRankLocallyConnected1D, LowRankLocallyConnected2D, install

# Each with the shape of an image, channels last.
LAYERS = [
    (LowRankLocallyConnected1D, {"kernel_size": 3}, (7, 2)),
    (LowRankLocallyConnected1D, {"kernel_size": 4, "strides": 2, "padding": "same"}, (9, 3)),
    (LowRankLocallyConnected2D, {"kernel_size": 3, "normalize_weights": "norm"}, (6, 5, 2)),
    (LowRankLocallyConnected2D, {"kernel_size": (3, 2), "strides": (1, 2), "separable": True}, (6, 8, 2)),
    (
        LowRankLocallyConnected2D,
        {"kernel_size": (2, 3), "strides": 2, "padding": "same", "separable": True, "normalize_weights": "softmax"},
        (7, 6, 3),
    ),
]
SOME = [LAYERS[1], LAYERS[-1]]
# Keras holds a factor of 0.01 in float32.
L2 = {"class_name": "L2", "config": {"l2": 2**-7}}
L1 = {"class_name": "L1", "config": {"l1": 2**-7}}


@pytest.fixture(params=LAYERS, ids=lambda given: f"{given[0].__name__[-2:]},{','.join(map(str, given[1].values()))}")
def case(request):
    return request.param


def pair_of(case, **options):
    """A layer and that for NumPy of the same arguments and weights, and the shape of an image."""
    maker, arguments, image = case
    layer = maker(3, rank=2, **arguments | options)
    if layer.data_format == "channels_first":
        image = (image[-1], *image[:-1])
    layer.build((None, *image))
    rng = np.random.default_rng(1)
    layer.set_weights([rng.standard_normal(w.shape) for w in layer.weights])
    kind = getattr(numpy_layers, maker.__name__)
    other = kind(
        3, rank=2, dtype=layer.variable_dtype, **arguments | {k: v for k, v in options.items() if k != "dtype"}
    )
    other.build((None, *image))
    other.set_weights(layer.get_weights())
    return layer, other, image


def normal(*shape, dtype="float32"):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


# Under numpy Keras's own activations make float32 of float64.
FLOAT32, FLOAT64 = {"dtype": "float32", "activation": "relu"}, {"dtype": "float64"}
FIRST = {"data_format": "channels_first"}


@pytest.mark.parametrize(
    ("case", "options"),
    list(zip(LAYERS, (FLOAT32 | FIRST, FLOAT64, FLOAT64 | FIRST, FLOAT32, FLOAT64 | FIRST), strict=True)),
    ids=lambda value: ",".join(value.values()) if isinstance(value, dict) else f"{value[0].__name__[-2:]}",
)
def test_values_and_gradients(case, options):
    """Those of the layers for NumPy, which have them by other ways."""
    regularizers = {"weights_regularizer": L2, "kernel_regularizer": L1, "activity_regularizer": L2}
    (layer, other, image), dtype = pair_of(case, **options, **regularizers), options["dtype"]
    x = normal(2, *image, dtype=dtype)
    g = normal(*other.compute_output_shape(x.shape), dtype=dtype)
    y, losses, dx, dw = run_layer(layer, x, g)
    rounding = {"rtol": 2e-4, "atol": 2e-4} if dtype == "float32" else {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(y, other(x, training=True), **rounding)
    assert layer.compute_output_shape((None, *image)) == (None, *y.shape[1:])
    np.testing.assert_allclose(sum(map(float, losses)), sum(map(float, other.losses)), rtol=1e-4)
    if TRAINS:
        np.testing.assert_allclose(dx, other.backward(g), **rounding)
        assert [w.name for w in layer.weights] == [w.name.split("/")[1].split(":")[0] for w in other.weights]
        for value, variable in zip(dw, other.weights, strict=True):
            np.testing.assert_allclose(value, variable.grad, **rounding, err_msg=variable.name)


@pytest.mark.parametrize("case", SOME, ids=["1D", "2D"])
def test_begins_as_a_convolution(case):
    maker, arguments, image = case
    layer = maker(3, rank=4, kernel_initializer=keras.initializers.HeUniform(seed=3), **arguments)
    layer.build((None, *image))
    expected = 1 / (4 if layer.normalize_weights == "softmax" else 2)
    np.testing.assert_allclose(array(layer._combined("float32")), expected, rtol=1e-5)
    conv = keras.layers.Conv1D if layer.spatial_axes == 1 else keras.layers.Conv2D
    shared = conv(12, arguments["kernel_size"], kernel_initializer=keras.initializers.HeUniform(seed=3))
    shared.build((None, *image))
    values = array(shared.kernel).reshape(-1, 4, 3)
    np.testing.assert_array_equal(array(layer.kernel), np.moveaxis(values, 1, 0))


@pytest.mark.parametrize("case", SOME, ids=["1D", "2D"])
def test_to_local(case):
    layer, _, image = pair_of(case, activation="relu", kernel_regularizer="l2", weights_constraint="non_neg")
    local, x = layer.to_local(), normal(2, *image)
    assert type(local).__name__ == f"LocallyConnected{layer.spatial_axes}D"
    assert local.name == layer.name
    np.testing.assert_allclose(array(local(x)), array(layer(x)), rtol=1e-4, atol=1e-4)


def test_to_local_before_there_are_weights():
    with pytest.raises(ValueError, match="must be built before it is expanded"):
        LowRankLocallyConnected2D(2, 3, 2).to_local()


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_half_precision(policy):
    """Computed in float32, and rounded once."""
    layers, dtype = (
        [LowRankLocallyConnected2D(3, 3, 2, dtype=each) for each in (policy, "float32")],
        policy.split("_")[-1],
    )
    for layer in layers:
        layer.build((None, 6, 5, 2))
    layers[1].set_weights([array(keras.ops.cast(w, "float32")) for w in layers[0].weights])
    x = keras.ops.cast(keras.ops.convert_to_tensor(normal(2, 6, 5, 2)), dtype)
    y = layers[0](x)
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    expected = keras.ops.cast(layers[1](keras.ops.cast(x, "float32")), dtype)
    np.testing.assert_array_equal(array(keras.ops.cast(y, "float32")), array(keras.ops.cast(expected, "float32")))


def test_config(case):
    maker, arguments, _ = case
    options = {
        "activation": "relu",
        "use_bias": False,
        "weights_initializer": "random_normal",
        "weights_regularizer": "l2",
        "weights_constraint": "non_neg",
        "kernel_initializer": keras.initializers.HeNormal(seed=1),
        "name": "low",
        "trainable": False,
    }
    layer = maker(3, rank=2, **arguments, **options)
    config = json.loads(json.dumps(layer.get_config()))
    again = maker.from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config
    assert set(inspect.signature(maker.__init__).parameters) - {"base", "self"} <= set(config)


@pytest.mark.parametrize("name", ["LowRankLocallyConnected1D", "LowRankLocallyConnected2D"])
def test_arguments_are_those_of_the_layers_for_numpy(name):
    """Names, order, defaults."""
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (localconv.keras, numpy_layers))
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [
        (p.name, p.default, p.kind) for p in theirs.values()
    ]


def model_of():
    return keras.Sequential(
        [
            keras.Input((8, 7, 2)),
            LowRankLocallyConnected2D(3, 3, 2, separable=True, normalize_weights="softmax"),
            LowRankLocallyConnected2D(2, 2, 4, weights_initializer="random_normal"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


@pytest.mark.parametrize("way", ["deepcopy", "clone", "json", "keras", "h5", "weights.h5"])
def test_copies_of_models(way, tmp_path):
    model, path = model_of(), tmp_path / f"model.{way}"
    if way == "weights.h5":
        model.save_weights(path)
        again = model_of()
        again.load_weights(path)
    elif way in ("keras", "h5"):
        model.save(path)
        again = keras.saving.load_model(path)
    else:
        again = {
            "deepcopy": lambda: copy.deepcopy(model),
            "clone": lambda: keras.models.clone_model(model),
            "json": lambda: keras.models.model_from_json(model.to_json()),
        }[way]()
    if way in ("clone", "json"):
        again.set_weights(model.get_weights())
    x = normal(3, 8, 7, 2)
    np.testing.assert_array_equal(array(again(x)), array(model(x)))


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_models_of_the_layers_for_numpy_open(suffix, tmp_path):
    """After `install`, which puts the layers where their configs look."""
    install()
    source = numpy_layers.Sequential(
        [
            numpy_layers.LowRankLocallyConnected2D(3, 3, 2, separable=True, input_shape=(8, 7, 2)),
            numpy_layers.LowRankLocallyConnected2D(2, 2, 4, normalize_weights="norm", activation="relu"),
            numpy_layers.Flatten(),
            numpy_layers.Dense(3),
        ]
    )
    rng = np.random.default_rng(0)
    source.set_weights([rng.standard_normal(w.shape) for w in source.weights])
    source.save(tmp_path / f"model.{suffix}")
    model = keras.models.load_model(tmp_path / f"model.{suffix}")
    assert type(model.layers[0]) is LowRankLocallyConnected2D
    x = normal(2, 8, 7, 2)
    np.testing.assert_allclose(array(model(x)), source(x), rtol=1e-4, atol=1e-4)


if TRAINS:
    # Not compiled, steps take JAX ten seconds.
    @pytest.mark.parametrize("jit_compile", ["auto", *([False] if BACKEND != "jax" else [])])
    def test_models_learn(jit_compile):
        """What no convolution computes: the halves of a picture have other signs, of which it leaves a loss of 1."""
        model = keras.Sequential(
            [keras.Input((8, 6, 1)), LowRankLocallyConnected2D(1, 1, 2, separable=True, use_bias=False)]
        )
        model.compile(keras.optimizers.Adam(0.1), "mse", jit_compile=jit_compile)
        x = normal(64, 8, 6, 1)
        y = x * np.where(np.arange(8) < 4, 1, -1)[:, None, None].astype("float32")
        losses = model.fit(x, y, epochs=40, batch_size=32, verbose=0).history["loss"]
        assert losses[-1] < 0.1


if BACKEND == "tensorflow":

    def test_batches_of_any_size():
        import tensorflow as tf

        layer = LowRankLocallyConnected2D(3, 3, 2, padding="same", separable=True)
        layer.build((None, 6, 5, 2))
        call = tf.function(layer, input_signature=[tf.TensorSpec((None, 6, 5, 2))])
        for batch in (1, 4):
            x = normal(batch, 6, 5, 2)
            np.testing.assert_allclose(array(call(x)), array(layer(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have")
def test_quantization_is_refused():
    layer = LowRankLocallyConnected1D(2, 3, 2)
    layer.build((None, 6, 2))
    with pytest.raises(NotImplementedError, match=r"layer.to_local\(\) is a locally connected layer"):
        layer.quantize("int8")
    model = keras.Sequential([keras.Input((6, 2)), LowRankLocallyConnected1D(2, 3, 2), keras.layers.Dense(2)])
    with pytest.warns(UserWarning, match=r"layer.to_local\(\) is a locally connected layer"):
        model.quantize("int8")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"rank": 0}, ValueError, "rank must be at least 1, got 0"),
        ({"rank": 1.5}, TypeError, "rank must be an int, got 1.5"),
        ({"filters": 0}, ValueError, "filters must be at least 1"),
        ({"kernel_size": (1, 2, 3)}, ValueError, "kernel_size must be 2 ints"),
        ({"padding": "causal"}, ValueError, r"padding must be one of \('valid', 'same'\)"),
        ({"normalize_weights": "max"}, ValueError, r"normalize_weights must be one of \(None, 'softmax', 'norm'\)"),
        ({"separable": 1}, TypeError, "separable must be True or False, got 1"),
        ({"use_bias": "no"}, TypeError, "use_bias must be True or False"),
        ({"kernel_size": 7}, ValueError, "One of the dimensions in the output is <= 0"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_refused_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        LowRankLocallyConnected2D(**{"filters": 2, "kernel_size": 3, "rank": 2} | arguments).build((None, 6, 5, 2))


@pytest.mark.parametrize("shape", [(None, None, 5, 2), (None, 6, 5, None)])
def test_unknown_sizes_are_refused(shape):
    with pytest.raises(ValueError, match="must have sizes and channels that are known"):
        LowRankLocallyConnected2D(2, 3, 2).build(shape)
