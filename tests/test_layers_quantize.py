"""Layers with kernels of fewer bytes: what they compute, hold, refuse, and what files make of them."""

import copy
import gc
import json
import pickle
import sys
import threading
import tracemalloc
import warnings

import ml_dtypes
import numpy as np
import pytest
from layer_cases import write_model

import localconv
from localconv import QuantizedKernel, grad, layers
from localconv.layers.files.stored import StoredArray

MODES = ["int8", "float16", "bfloat16"]
DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
LOCAL = {1: layers.LocallyConnected1D, 2: layers.LocallyConnected2D, 3: layers.LocallyConnected3D}
CONV = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}
SPATIAL = {1: (11,), 2: (6, 7), 3: (4, 5, 6)}
MIB = 2**20


def made(rank, family, data_format="channels_last", batch=3, dtype="float32", **arguments):
    """A built layer whose weights have no pattern, and an input."""
    kind = (LOCAL if family == "local" else CONV)[rank]
    layer = kind(4, 2, data_format=data_format, dtype=dtype, **arguments)
    channels = 2 * arguments.get("groups", 1)
    shape = (channels, *SPATIAL[rank]) if data_format == "channels_first" else (*SPATIAL[rank], channels)
    layer.build((None, *shape))
    rng = np.random.default_rng(rank)
    layer.set_weights([rng.standard_normal(w.shape) for w in layer.weights])
    return layer, rng.standard_normal((batch, *shape)).astype(dtype)


def small_kernel(rows, mode):
    return localconv.quantize(rows) if mode == "int8" else rows.astype(DTYPES[mode])


def rows_of(layer):
    """The float kernel of a layer as the functions take it."""
    if getattr(layer, "implementation", 1) == 1:
        return layer.kernel.numpy()
    config = layer.get_config() | {"batch_input_shape": layer.input_shape}
    return layers.convert_implementation(layer.get_weights(), config, 1)[0]


def by_function(layer, x, kernel, bias):
    """What the function of a layer computes."""
    local = type(layer) in LOCAL.values()
    function = getattr(localconv, f"{'local_' if local else ''}conv{layer.rank}d")
    options = {"data_format": layer.data_format, "padding": layer.padding, "strides": layer.strides, "bias": bias}
    if local:
        return function(x, kernel, layer.kernel_size, **options)
    return function(x, kernel, dilation_rate=layer.dilation_rate, groups=layer.groups, **options)


def network(mode=None, use_bias=True, name="local"):
    """Every kind of layer that can be quantized, one dimension and two, and others between."""
    model = layers.Sequential(
        [
            layers.LocallyConnected2D(
                3, 2, implementation=3, use_bias=use_bias, name=name, activation="relu", input_shape=(6, 5, 2)
            ),
            layers.Conv2D(4, 2, name="conv", use_bias=use_bias),
            layers.Flatten(name="flat"),
        ],
        name="network",
    )
    rng = np.random.default_rng(0)
    model.set_weights([rng.standard_normal(w.shape) for w in model.weights])
    if mode is not None:
        model.quantize(mode)
    return model


def picture(batch=3):
    return np.random.default_rng(1).standard_normal((batch, 6, 5, 2)).astype(np.float32)


def same(arrays, others):
    """Whether arrays have the same dtypes, shapes and bits."""
    return [(a.dtype, a.shape, a.tobytes()) for a in arrays] == [(b.dtype, b.shape, b.tobytes()) for b in others]


# --- what a layer computes --------------------------------------------------------------------------------------------

LAYERS = [
    *[("local", {"implementation": i, "padding": p}) for i in (1, 2, 3) for p in ("valid", "same")],
    *[("conv", more) for more in ({"padding": "same"}, {"strides": 2}, {"dilation_rate": 2}, {"groups": 2})],
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("family", "more"), LAYERS)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_values_are_those_of_the_functions(rank, data_format, family, more, mode):
    """The same bits, with a bias, without one, and in two calls."""
    for use_bias in (True, False):
        layer, x = made(rank, family, data_format, use_bias=use_bias, **more)
        kernel, bias = small_kernel(rows_of(layer), mode), layer.bias.numpy() if use_bias else None
        assert layer.quantize(mode) is None
        expected = by_function(layer, x, kernel, bias)
        assert same([layer(x), layer(x)], [expected, expected])
        assert expected.dtype == np.float32


@pytest.mark.parametrize("family", ["local", "conv"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_error_of_int8(rank, family):
    """At most half a scale for each weight, by the layer's own sums of |x| in float64."""
    layer, x = made(rank, family, use_bias=False, dtype="float64")
    y = layer(x)
    layer.quantize("int8")
    scales = layer.kernel_scale.value[..., None, :]
    half = np.broadcast_to(scales / 2, layer.kernel.shape).astype(np.float64)
    bound = by_function(layer, np.abs(x), half, None)
    error = np.abs(layer(x) - y)
    assert (error <= bound * (1 + 1e-6)).all()
    assert (error > 0).any()


@pytest.mark.parametrize("mode", MODES)
def test_layers_of_float64(mode):
    layer, x = made(2, "local", dtype="float64")
    kernel, bias = small_kernel(layer.kernel.numpy(), mode), layer.bias.numpy()
    layer.quantize(mode)
    expected = by_function(layer, x, kernel, bias)
    assert same([layer(x)], [expected])
    assert expected.dtype == np.float64
    wide = kernel.dequantize() if mode == "int8" else kernel
    assert same([expected], [by_function(layer, x, wide.astype(np.float64), bias)])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_activations(activation, mode):
    layer, x = made(2, "local", activation=activation)
    kernel, bias = small_kernel(layer.kernel.numpy(), mode), layer.bias.numpy()
    layer.quantize(mode)
    assert same([layer(x)], [layers.activations.get(activation)(by_function(layer, x, kernel, bias))])


@pytest.mark.parametrize("mode", MODES)
def test_models(mode):
    """predict in batches is the call; models inside a model, and layers in both, once."""
    model = network(mode)
    assert same([model.predict(picture(7), batch_size=3)], [model(picture(7))])
    shared = layers.Conv2D(3, 2, name="shared", input_shape=(6, 5, 2))
    inner = layers.Sequential([shared], name="inner")
    outer = layers.Sequential([inner, layers.Conv2D(2, 2, name="outer"), layers.Sequential([layers.Conv2D(2, 1)])])
    assert outer.quantize(mode) is None
    assert [layer.quantization_mode for layer in (shared, outer.layers[1], outer.layers[2].layers[0])] == [mode] * 3
    assert outer.quantization_mode is inner.quantization_mode is None
    with pytest.raises(ValueError, match="shared is already quantized"):
        outer.quantize(mode)


def test_a_layer_that_is_in_two_models_of_a_model_is_quantized_once():
    shared = layers.Conv2D(2, 1, name="shared", input_shape=(6, 5, 2))
    first, second = layers.Sequential([shared], name="first"), layers.Sequential([shared], name="second")
    model = layers.Sequential([first, second])
    model.quantize("int8")
    assert model.predict(picture()).shape == (3, 6, 5, 2)


# --- what a layer holds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", ["local", "conv"])
def test_weights(family, mode):
    layer, _ = made(2, family)
    kernel, bias = small_kernel(layer.kernel.numpy(), mode), layer.bias
    layer.quantize(mode)
    parts = [kernel.values, kernel.scales] if mode == "int8" else [kernel]
    names = [f"{layer.name}/{name}:0" for name in ["kernel", *["kernel_scale"][: len(parts) - 1], "bias"]]
    assert same(layer.get_weights(), [*parts, bias.numpy()])
    assert [v.name for v in layer.weights] == names
    assert layer.bias is bias
    assert layer.weights[0] is layer.kernel
    assert layer.kernel_scale is (layer.weights[1] if mode == "int8" else None)
    assert not any(v.trainable for v in layer.weights[: len(parts)])
    assert layer.trainable
    assert layer.trainable_weights == []
    assert not any(v.value.flags.writeable for v in layer.weights)
    assert layer.count_params() == sum(w.size for w in layer.get_weights())
    assert layer.quantization_mode == mode
    before = layer.weights
    layer.trainable = False
    assert layer.weights == before, "the order is the same, frozen or not"


@pytest.mark.memory
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("implementation", [1, 2])
def test_memory(implementation, mode):
    """The float32 kernel is gone, also what training and implementation 2 kept; a call makes no other."""
    layer = layers.LocallyConnected1D(8, 8, strides=4, implementation=implementation, use_bias=False, dtype="float32")
    shape = (1, 1028, 128) if implementation == 1 else (1, 132, 32)
    tracemalloc.start()
    try:
        x = np.ones(shape, np.float32)
        layer(x, training=True)
        rows = layer.compute_output_shape(shape)[1] * 8 * shape[2] * 8
        assert tracemalloc.get_traced_memory()[0] > 4 * rows
        layer.quantize(mode)
        gc.collect()
        held = sum(w.value.nbytes for w in layer.weights)
        assert held < rows * (1.1 if mode == "int8" else 2.1)
        assert tracemalloc.get_traced_memory()[0] < held + x.nbytes + 64 * 1024
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        layer(x)
        assert tracemalloc.get_traced_memory()[1] - before < rows, "a quarter of the kernel in float32"
    finally:
        tracemalloc.stop()


@pytest.mark.memory
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["npz", "h5", "keras"])
def test_memory_of_loading(form, mode, tmp_path):
    """Of a model that a config makes: nothing before it is loaded; then twice its weights, never a float32 kernel."""
    if form != "npz":
        pytest.importorskip("h5py")
    model = layers.Sequential([layers.LocallyConnected1D(16, 8, input_shape=(519, 64), use_bias=False)])
    size = model.count_params()
    model.quantize(mode)
    text = model.to_json()
    path = tmp_path / f"a.{form}"
    if form == "keras":
        write_model(model, path)
    else:
        model.save_weights(path)
    held = sum(w.value.nbytes for w in model.weights)
    tracemalloc.start()
    try:
        if form == "keras":
            again = layers.load_model(path)
        else:
            again = layers.Sequential.from_json(text)
            assert tracemalloc.get_traced_memory()[1] < 0.5 * MIB
            again.load_weights(path)
        assert tracemalloc.get_traced_memory()[1] < 2 * held + MIB < 4 * size + 2 * MIB
    finally:
        tracemalloc.stop()
    assert same(again.get_weights(), model.get_weights())


@pytest.mark.parametrize("mode", MODES)
def test_set_weights(mode):
    """An exact round trip; all of them or none; of the layer's own dtypes."""
    layer, x = made(2, "local")
    layer.quantize(mode)
    y, weights = layer(x), layer.get_weights()
    other = [np.zeros_like(w) for w in weights]
    layer.set_weights(other)
    assert same(layer.get_weights(), other)
    assert not layer(x).any()
    layer.set_weights([w.astype(w.dtype.newbyteorder(">")) if w.dtype.kind == "f" else w for w in weights])
    assert same([*layer.get_weights(), layer(x)], [*weights, y])
    versions = [v.version for v in layer.weights]
    for dtype in (np.float32, np.float64, np.int16, np.uint8, np.uint16, bool, "V2"):
        with pytest.raises(TypeError, match=f"kernel:0 must have dtype {weights[0].dtype}"):
            layer.set_weights([np.zeros(weights[0].shape, dtype), *other[1:]])
    with pytest.raises(TypeError, match="kernel:0 must have dtype"):
        layer.kernel.assign(weights[0].tolist())
    for add in (layer.kernel.assign_add, layer.kernel.assign_sub):
        with pytest.raises(TypeError, match="of a quantized layer"):  # int8 would overflow
            add(weights[0])
    with pytest.raises(TypeError):
        layer.set_weights([*other[:-1], np.full(weights[-1].shape, "x")])
    with pytest.raises(ValueError, match="shape"):
        layer.set_weights([other[0][1:], *other[1:]])
    with pytest.raises(ValueError, match="expecting"):
        layer.set_weights(other[1:])
    for bad in (np.nan, np.inf) if mode == "int8" else ():
        scales = other[1].copy()
        scales[-1, -1] = bad
        with pytest.raises(ValueError, match="kernel_scale:0 must be finite"):
            layer.set_weights([other[0], scales, other[2]])
    assert [v.version for v in layer.weights] == versions
    assert same([*layer.get_weights(), layer(x)], [*weights, y])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_copies(how, mode):
    model = network(mode)
    again = how(model)
    assert same([*again.get_weights(), again(picture())], [*model.get_weights(), model(picture())])
    assert not any(v.value.flags.writeable for v in again.weights)
    assert again.to_json() == model.to_json()
    again.set_weights([np.zeros_like(w) for w in again.get_weights()])
    assert model(picture()).any()
    with pytest.raises(TypeError, match="dtype"):
        again.layers[0].kernel.assign(np.zeros(again.layers[0].kernel.shape))


def test_a_shallow_copy_is_quantized_alone():
    layer, x = made(2, "local", implementation=2)
    y = layer(x)
    other = copy.copy(layer)
    other.quantize("int8")
    assert layer.quantization_mode is layer.kernel_scale is None
    assert layer.implementation == 2
    assert same([layer(x)], [y])
    assert len(layer.trainable_weights) == 2
    assert not same([other(x)], [y])


def test_weights_of_a_subclass_stay():
    class Scaled(layers.Conv1D):
        def _build(self, shape):
            super()._build(shape)
            self.factor = self.add_weight("factor", (1,), "ones")

    layer = Scaled(2, 3, name="own")
    x = np.ones((1, 5, 2), np.float32)
    layer(x)
    layer.quantize("int8")
    assert [v.name for v in layer.weights] == [f"own/{name}:0" for name in ("kernel", "kernel_scale", "bias", "factor")]
    again = Scaled.from_config(layer.get_config())
    again.build((None, 5, 2))
    again.set_weights(layer.get_weights())
    assert same([again(x)], [layer(x)])


def test_penalties_and_constraints_of_the_kernel_end():
    arguments = {"kernel_regularizer": "l2", "bias_regularizer": "l2", "kernel_constraint": "non_neg"}
    layer, _ = made(1, "local", **arguments)
    assert len(layer.losses) == 2
    layer.quantize("int8")
    before = layer.get_weights()
    layer.apply_constraints()
    assert same(layer.get_weights(), before)
    assert layer.losses == [layer.bias.regularizer(layer.bias.value)]
    assert layer.get_config()["kernel_regularizer"]["class_name"] == "L2"


@pytest.mark.parametrize("mode", MODES)
def test_summary(mode):
    model, lines = network(), []
    model.summary(print_fn=lines.append, line_length=100)
    assert not any(mode in line for line in lines)
    model.quantize(mode)
    lines.clear()
    model.summary(print_fn=lines.append, line_length=100)
    # Positions 5 x 4, rows 2 * 2 * 2, filters 3; taps 2 x 2, channels 3, filters 4.
    kernels, scales, biases = 20 * 8 * 3 + 4 * 3 * 4, 20 * 3 + 4 * 4, 20 * 3 + 4
    count = kernels + biases + (scales if mode == "int8" else 0)
    nbytes = kernels + 4 * (scales + biases) if mode == "int8" else 2 * kernels + 4 * biases
    rows = [line.split() for line in lines]
    local = 20 * 8 * 3 + 60 + (60 if mode == "int8" else 0)
    assert ["local", "(LocallyConnected2D,", f"{mode})", "(None,", "5,", "4,", "3)", str(local)] in rows
    assert f"Total params: {count} ({nbytes / 1024:.2f} KB)" in lines
    assert "Trainable params: 0 (0.00 Byte)" in lines
    assert model.count_params() == count


# --- errors -----------------------------------------------------------------------------------------------------------

OTHERS = [
    lambda: layers.Dense(2),
    lambda: layers.Flatten(),
    lambda: layers.Activation("relu"),
    lambda: layers.Dropout(0.5),
    lambda: layers.MaxPooling1D(),
]


@pytest.mark.parametrize("other", OTHERS)
def test_layers_without(other):
    layer = other()
    with pytest.raises(ValueError, match=f"layer {layer.name} must be built before"):
        layer.quantize("int8")
    layer.build((None, 4, 2))
    with pytest.raises(NotImplementedError, match=f"layer {layer.name} .* keeps its weights"):
        layer.quantize("int8")
    with pytest.raises(ValueError, match="mode must be one of"):
        layer.quantize("float8")
    assert layer.quantization_mode is None


@pytest.mark.parametrize("wrong", ["int4", "INT8", "", None, 8, ["int8"], np.int8, b"int8", np.array(["int8", "x"])])
@pytest.mark.parametrize("maker", [lambda: made(1, "local")[0], network])
def test_modes_that_there_are_not(maker, wrong):
    target = maker()
    with pytest.raises(ValueError, match="mode must be one of"):
        target.quantize(wrong)
    assert "quantization_mode" not in json.dumps(target.get_config())
    if wrong is not None:
        with pytest.raises(ValueError, match="quantization_mode must be one of"):
            layers.Conv1D(2, 3, quantization_mode=wrong)


@pytest.mark.parametrize("family", ["local", "conv"])
def test_not_built_and_twice(family):
    layer = (LOCAL if family == "local" else CONV)[1](2, 3, name="one")
    with pytest.raises(ValueError, match="layer one must be built before it is quantized"):
        layer.quantize("int8")
    layer.build((None, 6, 2))
    layer.quantize("float16")
    before = layer.get_weights()
    for mode in MODES:
        with pytest.raises(ValueError, match="layer one is already quantized by 'float16'"):
            layer.quantize(mode)
    assert same(layer.get_weights(), before)
    with pytest.raises(ValueError, match="must be built"):
        layers.Sequential([layers.Conv1D(2, 3)]).quantize("int8")
    with pytest.raises(ValueError, match="must be built"):
        layers.Sequential().quantize("int8")


@pytest.mark.parametrize(
    ("value", "refusing"),
    [(np.nan, MODES), (np.inf, MODES), (-np.inf, MODES), (-7e4, ["float16"]), (3.4e38, ["float16", "bfloat16"])],
)
@pytest.mark.parametrize("mode", MODES)
def test_values_that_a_mode_cannot_hold(mode, value, refusing):
    """The layer, and the model that it is in, are then as before."""
    model = network()
    first, second = model.layers[:2]
    kernel = second.kernel.numpy()
    kernel[-1, -1, -1, -1] = value
    second.kernel.assign(kernel)
    before, versions = model.get_weights(), [v.version for v in model.weights]
    if mode not in refusing:
        model.quantize(mode)
        assert second.quantization_mode == mode
        return
    with pytest.raises(ValueError, match=r"layer conv cannot be quantized: .*kernel must be finite"):
        second.quantize(mode)
    with pytest.raises(ValueError, match="layer conv cannot be quantized"):
        model.quantize(mode)
    assert [layer.quantization_mode for layer in model.layers] == [None] * 3
    assert [v.version for v in model.weights] == versions
    assert first.implementation == 3
    assert same(model.get_weights(), before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_all_layers_or_none(error, monkeypatch):
    model, x = network(), picture()
    y, text = model(x), model.to_json()

    def fail(mode):
        raise error

    monkeypatch.setattr(model.layers[1], "_quantized_state", fail)
    with pytest.raises(error):
        model.quantize("int8")
    monkeypatch.undo()
    assert same([model(x)], [y])
    assert model.to_json() == text
    assert len(model.trainable_weights) == 4
    model.quantize("int8")


def test_without_ml_dtypes(monkeypatch):
    """Named where it is needed, and nowhere else."""
    text = network("bfloat16").to_json()
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    model = network()
    for call in (
        lambda: model.quantize("bfloat16"),
        lambda: model.layers[0].quantize("bfloat16"),
        lambda: layers.Sequential.from_json(text),
    ):
        with pytest.raises(ValueError, match="pip install ml_dtypes"):
            call()
    model.layers[0].quantize("int8")
    model.layers[1].quantize("float16")


def test_core_does_not_import_ml_dtypes(python):
    code = """
import sys, numpy as np
from localconv import layers
model = layers.Sequential([layers.Conv1D(2, 3, input_shape=(6, 2))])
model.quantize("int8")
model(np.ones((1, 6, 2), np.float32))
print("ml_dtypes" in sys.modules)
"""
    assert python(code) == "False\n"


def test_layers_that_stay_are_named():
    model = network()
    model.add(layers.Dense(2, name="head"))
    with pytest.warns(UserWarning, match=r"layer head \(Dense\) keeps its weights") as caught:
        model.quantize("int8")
    assert len(caught) == 1, "layers without weights are not spoken of"
    assert caught[0].filename == __file__
    assert model.layers[3].kernel.dtype == np.float32
    fresh = network()
    fresh.add(layers.Dense(2, name="head"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="head"):
            fresh.quantize("int8")
    assert fresh.layers[0].quantization_mode is None


def test_implementations_become_the_first():
    for implementation in (1, 2, 3):
        layer, _ = made(2, "local", implementation=implementation, padding="same")
        layer.quantize("int8")
        assert layer.implementation == layer.get_config()["implementation"] == 1
        with pytest.raises(ValueError, match="quantization_mode='int8'"):
            layers.convert_implementation(layer.get_weights(), layer.get_config(), 2, layer.input_shape)
    with pytest.raises(ValueError, match="implementation must be 1 with a quantization_mode, got 3"):
        layers.LocallyConnected1D(2, 3, implementation=3, quantization_mode="int8")
    with pytest.raises(TypeError, match="quantization_mode"):
        layers.Dense(2, quantization_mode="int8")


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_training_is_refused(mode):
    model = network(mode)
    with pytest.raises(ValueError, match=f"layer local was quantized by '{mode}' for inference and cannot be trained"):
        model(picture(), training=True)
    with pytest.raises(RuntimeError, match="training=True"):
        model.backward(model(picture()))
    assert model.trainable_weights == []


def test_quantized_between_the_passes():
    """What the forward pass kept held the old kernel: there is no way back."""
    model = network()
    y = model(picture(), training=True)
    model.quantize("int8")
    with pytest.raises(RuntimeError, match="training=True"):
        model.backward(y)
    layer, x = made(1, "conv")
    y = layer(x, training=True)
    layer.quantize("int8")
    with pytest.raises(RuntimeError, match="training=True"):
        layer.backward(y)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", ["local", "conv"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_gradients_go_through_a_frozen_layer(rank, family, mode):
    layer, x = made(rank, family)
    kernel = small_kernel(layer.kernel.numpy(), mode)
    layer.quantize(mode)
    layer.trainable = False
    y = layer(x, training=True)
    assert same([y], [layer(x)])
    through = layer.backward(y)
    function = getattr(grad, f"{'local_' if family == 'local' else ''}conv{rank}d_input")
    size = (layer.kernel_size,) if family == "local" else ()
    assert same([through], [function(x.shape, kernel, y, *size, data_format="channels_last")])
    assert all(v.grad is None for v in layer.weights)


def test_what_is_below_a_frozen_layer_is_trained():
    model = layers.Sequential(
        [layers.Conv1D(3, 2, name="below", input_shape=(8, 2)), layers.LocallyConnected1D(2, 3, name="above")]
    )
    above = model.layers[1]
    above.quantize("int8")
    above.trainable = False
    x = np.random.default_rng(0).standard_normal((4, 8, 2)).astype(np.float32)
    losses = []
    for _ in range(20):
        y = model(x, training=True)
        losses.append(float((y**2).sum()))
        model.backward(2 * y)
        for v in model.trainable_weights:
            v.assign(v.value - 0.01 * v.grad)
    assert [v.name for v in model.trainable_weights] == ["below/kernel:0", "below/bias:0"]
    assert losses[-1] < losses[0] / 2


# --- configs and files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", ["local", "conv"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_configs(rank, family, mode):
    """The config names the mode; what is made of it holds zeros of the right dtypes until it is given weights."""
    layer, x = made(rank, family, **({"implementation": 3} if family == "local" else {}))
    assert "quantization_mode" not in layer.get_config()
    layer.quantize(mode)
    config = json.loads(json.dumps(layer.get_config()))
    assert config["quantization_mode"] == mode
    again = type(layer).from_config(config)
    assert again.get_config() == layer.get_config()
    assert again.quantization_mode == mode
    again.build(layer.input_shape)
    zeros = [np.zeros_like(w) for w in layer.get_weights()]
    assert same(again.get_weights(), zeros)
    assert not again(x).any()
    again.set_weights(layer.get_weights())
    assert same([again(x)], [layer(x)])
    with pytest.raises(ValueError, match="already quantized"):
        again.quantize(mode)


FORMS = ["npz", "h5", "hdf5"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("use_bias", [True, False])
def test_weights_in_files(use_bias, form, mode, tmp_path):
    if form != "npz":
        pytest.importorskip("h5py")
    model, path = network(mode, use_bias), tmp_path / f"a.{form}"
    model.save_weights(path)
    for again in (layers.Sequential.from_json(model.to_json()), network(mode, use_bias)):
        again.set_weights([np.zeros_like(w) for w in again.get_weights()])
        for options in ({}, {"by_name": True}):
            again.load_weights(path, **options)
            assert same([*again.get_weights(), again(picture())], [*model.get_weights(), model(picture())])
    assert again.to_json() == model.to_json()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["h5", "keras"])
def test_whole_models(form, mode, tmp_path):
    pytest.importorskip("h5py")
    model, path = network(mode), tmp_path / f"a.{form}"
    write_model(model, path)
    again = layers.load_model(path)
    assert same([*again.get_weights(), again(picture())], [*model.get_weights(), model(picture())])
    assert again.to_json() == model.to_json()
    frozen = layers.Sequential.from_json(model.to_json())
    frozen.trainable = False
    frozen.load_weights(path)
    assert same(frozen.get_weights(), model.get_weights())


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("form", ["npz", "h5"])
@pytest.mark.parametrize("into", [None, *MODES])
@pytest.mark.parametrize("mode", [None, *MODES])
def test_files_of_other_modes(mode, into, form, use_bias, tmp_path, monkeypatch):
    """Refused by what the headers say, before any value is read; but float32 holds what float16 does."""
    if form != "npz":
        pytest.importorskip("h5py")
    path, source = tmp_path / f"a.{form}", network(mode, use_bias)
    if mode is None:  # of implementation 1, as the quantized ones are
        config = source.layers[0].get_config() | {"implementation": 1}
        source = layers.Sequential([layers.LocallyConnected2D.from_config(config), *source.layers[1:]])
    source.save_weights(path)
    config = source.get_config()
    for entry in config["layers"]:
        entry["config"].pop("quantization_mode", None)
        if into is not None and entry["class_name"] in ("LocallyConnected2D", "Conv2D"):
            entry["config"]["quantization_mode"] = into
    target = layers.Sequential.from_config(json.loads(json.dumps(config)))
    if mode == into:
        target.load_weights(path)
        assert same(target.get_weights(), source.get_weights())
        return
    if (mode, into) == ("float16", None):
        target.load_weights(path)
        assert same(target.get_weights(), [w.astype(np.float32) for w in source.get_weights()])
        return
    before = target.get_weights()
    with monkeypatch.context() as patched:
        patched.setattr(StoredArray, "read", lambda self: pytest.fail("values were read"))
        for options in ({}, {"by_name": True}):
            with pytest.raises(
                ValueError, match=r"(Weight count|Shape|Dtype) mismatch .*layer #0 \(named local"
            ) as error:
                target.load_weights(path, **options)
            assert f"quantized by {into!r}" in str(error.value) or into is None
        with pytest.warns(UserWarning, match="Skipping loading of weights: (Weight count|Shape|Dtype) mismatch"):
            target.load_weights(path, by_name=True, skip_mismatch=True)
    assert same(target.get_weights(), before)


# --- hostile files ----------------------------------------------------------------------------------------------------


def stored(mode, form, path, change):
    """A file of weights of `network(mode)`, by name, in which `change` has been at work."""
    model = network(mode)
    model.save_weights(path)
    if form == "npz":
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        change(arrays, "local/local/kernel:0", "local/local/kernel_scale:0")
        np.savez(path, **arrays)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "a") as root:
            names = "local/local/kernel:0", "local/local/kernel_scale:0"
            arrays = {name: root[name][()] for name in names if name in root}
            change(arrays, *names)
            for name, value in arrays.items():
                del root[name]
                root[name] = value
    return model


CHANGES = {
    "kernel of float32": ("int8", "Dtype mismatch", lambda a, kernel, _: a.update({kernel: a[kernel].astype("f4")})),
    "kernel of uint8": ("int8", "Dtype mismatch", lambda a, kernel, _: a.update({kernel: a[kernel].view("u1")})),
    "kernel of bool": ("int8", "Dtype mismatch", lambda a, kernel, _: a.update({kernel: a[kernel] > 0})),
    "kernel of another shape": ("int8", "Shape mismatch", lambda a, kernel, _: a.update({kernel: a[kernel][1:]})),
    "scales of float64": ("int8", "Dtype mismatch", lambda a, _, scale: a.update({scale: a[scale].astype("f8")})),
    "scales of int8": ("int8", "Dtype mismatch", lambda a, _, scale: a.update({scale: a[scale].astype("i1")})),
    "one scale": ("int8", "Shape mismatch", lambda a, _, scale: a.update({scale: a[scale][0, 0]})),
    "scales of the filters": ("int8", "Shape mismatch", lambda a, _, scale: a.update({scale: a[scale][0]})),
    "scales transposed": ("int8", "Shape mismatch", lambda a, _, scale: a.update({scale: a[scale].T})),
    "a scale of NaN": ("int8", "finite", lambda a, _, scale: a.update({scale: a[scale] * np.float32("nan")})),
    "a scale of inf": ("int8", "finite", lambda a, _, scale: a.update({scale: a[scale] * np.float32("inf")})),
    "half of float32": ("float16", "Dtype mismatch", lambda a, kernel, _: a.update({kernel: a[kernel].astype("f4")})),
    "half of its bits": ("float16", "Dtype mismatch", lambda a, kernel, _: a.update({kernel: a[kernel].view("u2")})),
    "bits of float16": ("bfloat16", "Dtype mismatch", lambda a, kernel, _: a.update({kernel: a[kernel].view("f2")})),
    "bits of int16": ("bfloat16", "Dtype mismatch", lambda a, kernel, _: a.update({kernel: a[kernel].view("i2")})),
    "bits as bytes": ("bfloat16", "real numbers", lambda a, kernel, _: a.update({kernel: a[kernel].view("V2")})),
}


@pytest.mark.parametrize("form", ["npz", "h5"])
@pytest.mark.parametrize("kind", CHANGES)
def test_weights_that_are_not_what_the_mode_says(kind, form, tmp_path):
    if form != "npz":
        pytest.importorskip("h5py")
    mode, words, change = CHANGES[kind]
    path = tmp_path / f"a.{form}"
    model = stored(mode, form, path, change)
    before = model.get_weights()
    with pytest.raises(ValueError, match=words):
        model.load_weights(path)
    assert same(model.get_weights(), before)


@pytest.mark.parametrize("form", ["npz", "h5"])
@pytest.mark.parametrize("mode", ["float16", "bfloat16", "int8"])
def test_byte_orders(mode, form, tmp_path):
    """Another order of the bytes, as another machine writes it, is the same numbers."""
    if form != "npz":
        pytest.importorskip("h5py")

    def change(arrays, kernel, scale):
        for name in (kernel, scale):
            if name in arrays:
                arrays[name] = arrays[name].astype(arrays[name].dtype.newbyteorder(">"))

    path = tmp_path / f"a.{form}"
    model = stored(mode, form, path, change)
    again = layers.Sequential.from_json(model.to_json())
    again.load_weights(path)
    assert same(again.get_weights(), model.get_weights())


def lying(mode, form, path, change):
    """A whole model of int8 whose config `change` makes another one."""
    model = network("int8")
    content = json.loads(model.to_json())
    change(content["config"]["layers"][1]["config"])
    model.to_json = lambda: json.dumps(content)
    write_model(model, path)


LIES = {
    "float16": (lambda config: config.update(quantization_mode="float16"), "Weight count mismatch"),
    "none": (lambda config: config.update(quantization_mode=None), "Weight count mismatch"),
    "not there": (lambda config: config.pop("quantization_mode"), "Weight count mismatch"),
    "unknown": (lambda config: config.update(quantization_mode="int9"), "quantization_mode must be one of"),
    "long": (lambda config: config.update(quantization_mode="int8" * 10**6), "quantization_mode must be one of"),
    "a list": (lambda config: config.update(quantization_mode=["int8"]), "quantization_mode must be one of"),
    "a dict": (lambda config: config.update(quantization_mode={"int8": []}), "quantization_mode must be one of"),
    "dense": (lambda config: config.update(implementation=2), "implementation must be 1"),
    "float64": (lambda config: config.update(dtype="float64"), None),
    "huge": (lambda config: config.update(filters=2**40), "has more elements than the file has left"),
    "no bias": (lambda config: config.update(use_bias=False), "Weight count mismatch"),
    "more filters": (lambda config: config.update(filters=4), "mismatch|more elements"),
}


@pytest.mark.parametrize("form", ["h5", "keras"])
@pytest.mark.parametrize("kind", LIES)
def test_configs_that_lie(kind, form, tmp_path):
    pytest.importorskip("h5py")
    change, words = LIES[kind]
    path = tmp_path / f"a.{form}"
    lying("int8", form, path, change)
    if words is None:  # it is another model, and one that there is
        assert layers.load_model(path)(picture().astype(np.float64)).dtype == np.float32
        return
    with pytest.raises(ValueError, match=words) as error:
        layers.load_model(path)
    assert len(str(error.value)) < 5000


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_threads(mode):
    """One model in several threads, while another one gives it weights: every result is of one kernel with its scales.

    The scales differ by powers of two, so that values of one with scales of the other would show.
    """
    layer, x = made(2, "local", use_bias=False)
    layer.quantize(mode)
    first = layer.get_weights()
    second = [np.negative(first[0]), *[8 * scale for scale in first[1:]]]
    expected = []
    for weights in (first, second):
        layer.set_weights(weights)
        expected.append(layer(x).tobytes())
    wrong, stop = [], threading.Event()

    def run():
        while not stop.is_set():
            if layer(x).tobytes() not in expected:
                wrong.append(1)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(2000):
        layer.set_weights((first, second)[number % 2])
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_weights_that_come_between_values_and_scales(monkeypatch):
    """What another thread may do, at the worst moment: both are read again."""
    layer, x = made(2, "local", use_bias=False)
    layer.quantize("int8")
    second = [np.negative(layer.kernel.numpy()), 8 * layer.kernel_scale.numpy()]
    kernel, value, came = layer.kernel, layers.Variable.value, []

    def read(variable):
        found = value.fget(variable)
        if variable is kernel and not came:
            came.append(1)
            layer.set_weights(second)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(layers.Variable, "value", property(read))
        y = layer(x)
    assert came
    assert same([y], [by_function(layer, x, QuantizedKernel(*second), None)])


@pytest.mark.parametrize("family", ["local", "conv"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("kernel_scale", np.ones((1, 1), "f")), ("kernel", np.ones((1, 1, 1), "f")), ("kernel", None)],
    ids=["scale", "small kernel", "float kernel"],
)
def test_replaced_variables(family, name, value):
    """Assigned as attributes they miss the variables' own checks."""
    layer, x = made(1, family)
    layer.quantize("int8")
    wide = layer.kernel.numpy().astype("f") if value is None else value
    setattr(layer, name, layers.Variable(wide, "other"))
    with pytest.raises(ValueError, match=rf"layer {layer.name} was quantized by 'int8': its kernel must be int8"):
        layer(x)


@pytest.mark.parametrize("name", ["kernel", "bias", "kernel_scale"])
@pytest.mark.parametrize("mode", [None, "int8"])
@pytest.mark.parametrize("value", [np.ones((6, 3, 1), "f"), 1, "kernel", None], ids=["array", "int", "str", "None"])
def test_attributes_that_are_no_variables(value, mode, name):
    layer, x = made(1, "local")
    if mode:
        layer.quantize(mode)
    if value is None and name != "kernel":
        setattr(layer, name, None)  # there is none
        return
    with pytest.raises(TypeError, match=rf"^{name} of a layer must be a Variable, got .*set_weights"):
        setattr(layer, name, value)
    layer(x)


@pytest.mark.parametrize("implementation", [2, 3])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3, 4)])
def test_replaced_kernels_of_other_implementations(implementation, shape):
    layer = layers.LocallyConnected1D(2, 3, implementation=implementation, name="local")
    x = np.ones((1, 5, 2), "f")
    layer(x)
    layer.kernel = layers.Variable(np.ones(shape, "f"), "other")
    with pytest.raises(ValueError, match=r"kernel of layer local must have shape \("):
        layer(x)


def test_kernels_are_not_checked_again():
    """Of parts that variables hold the kernel is what the constructor would make."""
    parts = np.ones((2, 3, 4), np.int8), np.ones((2, 4), np.float32)
    plain, fast = QuantizedKernel(*parts), QuantizedKernel.of_checked(*parts)
    assert same([plain.values, plain.scales], [fast.values, fast.scales])
    assert np.shares_memory(fast.values, parts[0])
