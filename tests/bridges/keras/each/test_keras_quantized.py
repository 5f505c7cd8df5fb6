"""Layers in int8, by Keras's protocol: values, derivatives, models, files, policies, and what is refused."""

import copy
import pickle

import keras
import numpy as np
import pytest
from keras import ops
from keras_tools import BACKEND, TRAINS, array, gradient, value_and_gradients
from oracle import tolerance

import localconv
from localconv.core import engine as functions
from localconv.keras import LocallyConnected1D, LocallyConnected2D, LocallyConnected3D

rng = np.random.default_rng(15)

# Keras's own words on layers that have nothing to quantize, and on its Dense in int8.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Layer (InputLayer|Flatten) does not have a `quantize`:UserWarning"),
    pytest.mark.filterwarnings("ignore:`custom_gradient` for the numpy backend:UserWarning"),
]

LAYERS = {1: LocallyConnected1D, 2: LocallyConnected2D, 3: LocallyConnected3D}
ENGINES = ("compiled", "ops")


def normal(*shape):
    return rng.standard_normal(shape).astype("float32")


def made(shape, rank=2, **options):
    """A built layer with weights."""
    layer = LAYERS[rank](3, (2, 3, 2)[:rank], bias_initializer="normal", **options)
    layer.build((None, *shape))
    return layer


def model_of(**options):
    return keras.Sequential(
        [
            keras.Input((8, 7, 2)),
            LocallyConnected2D(3, 3, activation="relu", bias_initializer="normal", **options),
            LocallyConnected2D(2, (2, 3), strides=2, padding="same", use_bias=False, **options),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )


def quantize_local_layers(model):
    """The model with its locally connected layers in int8, Dense as it was: Keras rounds the inputs of that."""
    model.quantize("int8", filters="locally_connected")
    return model


def parts(layer):
    """Values and scales in float64."""
    return array(layer.kernel).astype(np.float64), array(layer.kernel_scale).astype(np.float64)


def forward(layer, x, kernel, bias=None):
    """The convolution in float64."""
    return functions.forward(layer._spec, x.astype(np.float64), kernel, bias)


# -------------------------------------------------------------------------------------------------------------- values

GEOMETRIES = {
    "1d": (1, (9, 2), {"padding": "same"}),
    "2d": (2, (6, 7, 2), {"strides": (2, 1)}),
    "groups": (2, (6, 7, 6), {"groups": 3, "dilation_rate": (2, 1)}),
    "no bias": (2, (5, 4, 1), {"use_bias": False, "padding": "same"}),
    "3d": (3, (3, 4, 5, 2), {"padding": "same"}),
    "implementation 2": (2, (6, 5, 2), {"implementation": 2, "padding": "same"}),
    "implementation 3": (1, (8, 3), {"implementation": 3, "strides": 2}),
}


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_values(name, engine, data_format):
    """The sums of values times scales; and within half a scale a weight of what the float layer computes."""
    rank, shape, options = GEOMETRIES[name]
    shape = shape if data_format == "channels_last" else (shape[-1], *shape[:-1])
    layer = made(shape, rank, engine=engine, data_format=data_format, **options)
    x = normal(4, *shape)
    exact = array(layer(x)).astype(np.float64)
    rows = array(layer._rows(ops.convert_to_tensor(layer.kernel)))
    layer.quantize("int8")
    y = array(layer(x))
    small = localconv.quantize(rows)
    np.testing.assert_array_equal(array(layer.kernel), small.values)
    np.testing.assert_array_equal(array(layer.kernel_scale), small.scales)
    values, scales = parts(layer)
    bias = None if layer.bias is None else array(layer.bias).astype(np.float64)
    kernel = values * scales[:, None]
    sizes = forward(layer, abs(x), abs(kernel), None if bias is None else abs(bias))
    terms = rows.shape[1] + 3
    rounding = tolerance(sizes, terms, np.float32)
    assert y.dtype == np.float32
    assert (abs(y - forward(layer, x, kernel, bias)) <= rounding).all()
    halves = np.broadcast_to(scales[:, None] / 2, kernel.shape)
    assert (abs(y - exact) <= 1.0001 * forward(layer, abs(x), halves) + 2 * rounding).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("way", ["model", "layer", "policy"])
def test_time_distributed(way, engine, tmp_path):
    """Whoever quantizes the layer inside: at each step what the layer itself answers, and again from a file."""
    policy = "int8_from_float32" if way == "policy" else None
    inner = LocallyConnected2D(3, 2, activation="tanh", engine=engine, dtype=policy)
    model = keras.Sequential([keras.Input((3, 5, 4, 2)), keras.layers.TimeDistributed(inner)])
    x = normal(2, 3, 5, 4, 2)
    if way == "policy":
        inner.kernel.assign(rng.integers(-127, 128, inner.kernel.shape))
    else:
        exact = array(model(x))
        (model if way == "model" else inner).quantize("int8")
        np.testing.assert_allclose(array(model(x)), exact, atol=0.05)
    y = array(model(x))
    for step in range(3):
        np.testing.assert_allclose(y[:, step], array(inner(x[:, step])), rtol=1e-6, atol=1e-6)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(array(keras.models.load_model(tmp_path / "model.keras")(x)), y)


def test_variables():
    """A quarter of the bytes, and the scales; nothing of the float kernel is left."""
    layer = made((30, 30, 8))
    floats = layer.count_params() * 4
    layer.quantize("int8")
    assert {w.name: w.dtype for w in layer.weights} == {"kernel": "int8", "kernel_scale": "float32", "bias": "float32"}
    assert [w.name for w in layer.trainable_weights] == ["bias"]
    assert sum(array(w).nbytes for w in layer.weights) < 0.4 * floats
    assert layer.quantization_mode == "int8"
    assert layer.dtype_policy.name == "int8_from_float32"


def test_empty_batch():
    layer = made((6, 7, 2))
    layer.quantize("int8")
    assert layer(np.zeros((0, 6, 7, 2), "float32")).shape == (0, 5, 5, 3)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "float64"])
def test_policies(policy, engine):
    """Sums run in float32 and are rounded once: equal to those of the float32 layer of the same parts."""
    layer = made((6, 7, 2), dtype=policy, engine=engine)
    compute, x = layer.compute_dtype, normal(2, 6, 7, 2)
    layer.quantize("int8")
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == compute
    assert layer.dtype_policy.name == f"int8_from_{policy}"
    plain = made((6, 7, 2), engine=engine)
    plain.quantize("int8")
    for name in ("kernel", "kernel_scale", "bias"):
        getattr(plain, name).assign(ops.cast(getattr(layer, name), getattr(plain, name).dtype))
    rounded = ops.cast(ops.cast(x, compute), "float32")
    np.testing.assert_array_equal(
        array(ops.cast(y, "float32")), array(ops.cast(ops.cast(plain(rounded), compute), "float32"))
    )


# --------------------------------------------------------------------------------------------------------- derivatives

if TRAINS:

    @pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
    @pytest.mark.parametrize("engine", ENGINES)
    def test_derivatives(engine, data_format):
        """Of first and second order, against the float layer with the kernel that the parts stand for."""
        shape = (6, 5, 2) if data_format == "channels_last" else (2, 6, 5)
        options = {"engine": engine, "data_format": data_format, "padding": "same", "activation": "tanh"}
        layer, twin = made(shape, **options), made(shape, **options)
        layer.quantize("int8")
        values, scales = parts(layer)
        twin.kernel.assign((values * scales[:, None]).astype("float32"))
        twin.bias.assign(layer.bias)
        x = normal(3, *shape)
        found = []
        for one in (layer, twin):

            def total(x, one=one):
                y = one(x)
                return ops.sum(ops.square(y)), y

            (_, y), (first,) = value_and_gradients(total, [x])

            def slope(x, one=one):
                (of_x,) = gradient(lambda x: ops.sum(ops.square(one(x))), [x])
                return ops.sum(ops.square(of_x)), of_x

            (_, again), (second,) = value_and_gradients(slope, [x])
            np.testing.assert_allclose(array(again), first, rtol=1e-5, atol=1e-5)
            found.append((array(y), first, second))
        for one, other in zip(*found, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("engine", ENGINES)
    def test_fit_trains_the_rest(engine):
        """Biases and other layers; the kernel stays."""
        model = quantize_local_layers(model_of(engine=engine))
        before = [[array(w) for w in layer.weights] for layer in model.layers]
        x, y = normal(16, 8, 7, 2), normal(16, 2)
        model.compile(keras.optimizers.Adam(0.02), loss="mse")
        losses = model.fit(x, y, batch_size=16, epochs=40, verbose=0).history["loss"]
        assert losses[-1] < 0.8 * losses[0]
        for layer, old in zip(model.layers, before, strict=True):
            for weight, values in zip(layer.weights, old, strict=True):
                assert (array(weight) != values).any() == weight.trainable, weight.path


# -------------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("engine", ENGINES)
def test_whole_model(engine):
    """`model.quantize` takes every layer; what had been compiled for predictions is not used again."""
    model = model_of(engine=engine)
    x = normal(5, 8, 7, 2)
    exact = model.predict(x, verbose=0)
    model.quantize("int8")
    assert [layer.quantization_mode for layer in model.layers] == ["int8", "int8", None, "int8"]
    found = model.predict(x, verbose=0)
    assert 0 < abs(found - exact).max() < 0.05 * abs(exact).max()
    np.testing.assert_allclose(found, array(model(x)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("way", ["keras", "weights", "pickle", "deepcopy", "clone", "json"])
def test_copies_and_files(way, tmp_path):
    model = quantize_local_layers(model_of(engine="compiled"))
    x = normal(3, 8, 7, 2)

    def loaded():
        other = quantize_local_layers(model_of(engine="compiled"))
        model.save_weights(tmp_path / "model.weights.h5")
        other.load_weights(tmp_path / "model.weights.h5")
        return other

    def opened():
        model.save(tmp_path / "model.keras")
        return keras.saving.load_model(tmp_path / "model.keras")

    again = {
        "keras": opened,
        "weights": loaded,
        "pickle": lambda: pickle.loads(pickle.dumps(model)),
        "deepcopy": lambda: copy.deepcopy(model),
        "clone": lambda: keras.models.clone_model(model),
        "json": lambda: keras.models.model_from_json(model.to_json()),
    }[way]()
    for one, other in zip(model.layers, again.layers, strict=True):
        if way in ("clone", "json"):
            for name in ("kernel", "kernel_scale", "bias"):
                if getattr(one, name, None) is not None:
                    getattr(other, name).assign(array(getattr(one, name)))
        assert {w.name: w.dtype for w in other.weights} == {w.name: w.dtype for w in one.weights}
    assert [layer.quantization_mode for layer in again.layers] == ["int8", "int8", None, None]
    assert again.layers[0].engine == "compiled"
    np.testing.assert_array_equal(array(again(x)), array(model(x)))
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


def test_files_of_half_precision(tmp_path):
    """int8 or not is told by the kernel's dtype, of which files have a name of their own for bfloat16."""
    layer = LocallyConnected1D(2, 3, dtype="bfloat16")
    model = keras.Sequential([keras.Input((6, 2)), layer])
    model.save(tmp_path / "float.keras")
    again = keras.saving.load_model(tmp_path / "float.keras")
    x = normal(2, 6, 2)
    np.testing.assert_array_equal(array(ops.cast(again(x), "float32")), array(ops.cast(model(x), "float32")))


def test_files_keep_int8_and_float_apart(tmp_path):
    """Also where they have as many variables, of one shape: a float layer's bias is no scale."""
    floats, small = LocallyConnected1D(2, 3, name="one"), LocallyConnected1D(2, 3, use_bias=False, name="one")
    models = [keras.Sequential([keras.Input((6, 2)), layer], name="model") for layer in (floats, small)]
    small.quantize("int8")
    paths = [tmp_path / f"{name}.weights.h5" for name in ("float", "int8")]
    for model, path in zip(models, paths, strict=True):
        model.save_weights(path)
    with pytest.raises(ValueError, match="has a kernel of int8, and the file one of float32"):
        models[1].load_weights(paths[0])
    with pytest.raises(ValueError, match="has a kernel of float32, and the file one of int8"):
        models[0].load_weights(paths[1])


def test_policy_given():
    """To the constructor, which makes an int8 layer without weights; and to a layer that has some."""
    layer = made((6, 7, 2), dtype="int8_from_float32")
    assert layer.kernel.dtype == "int8"
    np.testing.assert_array_equal(array(layer(normal(1, 6, 7, 2))[0]), array(layer.bias))
    floats = made((6, 7, 2))
    x = normal(2, 6, 7, 2)
    exact = array(floats(x))
    floats.dtype_policy = "int8_from_float32"
    assert floats.kernel.dtype == "int8"
    assert 0 < abs(array(floats(x)) - exact).max() < 0.05 * abs(exact).max()


if BACKEND in ("tensorflow", "jax"):

    def test_ops_are_compiled_by_xla():
        model = quantize_local_layers(model_of(engine="ops"))
        x = normal(4, 8, 7, 2)
        expected = array(model(x))
        model.compile("sgd", loss="mse", jit_compile=True)
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)


if BACKEND == "torch":

    @pytest.mark.parametrize("engine", ENGINES)
    def test_dynamo_takes_both_engines(engine):
        """As with jit_compile=True, but for inductor's C++ compiler."""
        import torch

        layer = made((6, 5, 2), activation="relu", engine=engine)
        layer.quantize("int8")
        x = torch.tensor(normal(2, 6, 5, 2))
        expected = layer(x)
        compiled = torch.compile(layer.quantized_call, backend="aot_eager")
        torch.testing.assert_close(compiled(x), expected)

    def test_modules_are_made_of_floats():
        from localconv.torch import from_keras

        layer = made((6, 5, 2))
        layer.quantize("int8")
        with pytest.raises(ValueError, match="layer must have a float kernel, got one quantized to 'int8'"):
            from_keras(layer, input_shape=(None, 6, 5, 2))


# ------------------------------------------------------------------------------------------------------------ refusals


class Own(LocallyConnected2D):
    def call(self, inputs):
        return 2 * super().call(inputs)


def own():
    layer = Own(3, 2)
    layer.build((None, 6, 5, 2))
    return layer


def infinite():
    layer = made((6, 5, 2))
    kernel = array(layer.kernel).copy()
    kernel[3, 2, 1] = np.inf
    layer.kernel.assign(kernel)
    return layer


def twice():
    layer = made((6, 5, 2))
    layer.quantize("int8")
    return layer


def with_quantizer(layer):
    quantizer = keras.quantizers.AbsMaxQuantizer(axis=0)
    layer.quantize("int8", config=keras.quantizers.Int8QuantizationConfig(weight_quantizer=quantizer))


REFUSED = {
    "int4": (lambda: made((6, 5, 2)).quantize("int4"), NotImplementedError, "to 'int8', got mode='int4'"),
    "float8": (lambda: made((6, 5, 2)).quantize("float8"), NotImplementedError, "to 'int8', got mode='float8'"),
    "no mode": (lambda: made((6, 5, 2)).quantize("int7"), ValueError, "int7"),
    "built": (lambda: made((6, 5, 2), dtype="float8_from_float32"), NotImplementedError, "got mode='float8'"),
    "unbuilt": (lambda: LocallyConnected1D(2, 3).quantize("int8"), ValueError, "isn't yet built"),
    "twice": (lambda: twice().quantize("int8"), ValueError, "already quantized"),
    "float16": (lambda: made((6, 5, 2), dtype="mixed_float16").quantize("int8"), ValueError, "float16"),
    "subclass": (lambda: own().quantize("int8"), NotImplementedError, "it is a subclass"),
    "quantizer": (lambda: with_quantizer(made((6, 5, 2))), NotImplementedError, "has its own quantizer of weights"),
    "infinite": (lambda: infinite().quantize("int8"), ValueError, "kernel must be finite to be quantized"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        call()


def test_what_was_refused_stays_as_it_was():
    layer = infinite()
    x, policy = normal(1, 6, 5, 2), layer.dtype_policy.name
    before = array(layer(x))
    for call in (lambda: layer.quantize("int8"), lambda: layer.quantize("int4"), lambda: with_quantizer(layer)):
        with pytest.raises((ValueError, NotImplementedError)):
            call()
        assert layer.dtype_policy.name == policy
        np.testing.assert_array_equal(array(layer(x)), before)


def test_models_pass_by_what_a_layer_cannot_do():
    model = keras.Sequential([keras.Input((6, 5, 2)), LocallyConnected2D(3, 2)])
    with pytest.warns(UserWarning, match="can be quantized to 'int8', got mode='float8'"):
        model.quantize("float8")
    assert model.layers[0].quantization_mode is None
