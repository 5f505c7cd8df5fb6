"""Low-rank locally connected layers, against the kernel that they stand for."""

import copy
import inspect
import io
import json
import math
import pickle
import tracemalloc

import numpy as np
import oracle
import pytest
from layer_cases import central_differences, differentiable

from localconv import layers
from localconv.layers import LowRankLocallyConnected1D, LowRankLocallyConnected2D

WIDE = np.longdouble
FORMATS = ("channels_last", "channels_first")
NORMALIZATIONS = (None, "softmax", "norm")
# Each with the shape of an image, channels last.
LAYERS = [
    (LowRankLocallyConnected1D, (3, 3), {}, (7, 2)),
    (LowRankLocallyConnected1D, (2, 4), {"strides": 2, "padding": "same"}, (9, 3)),
    (LowRankLocallyConnected2D, (4, 3), {}, (6, 5, 2)),
    (LowRankLocallyConnected2D, (3, (3, 2)), {"strides": (1, 2), "separable": True}, (6, 8, 2)),
    (LowRankLocallyConnected2D, (2, (2, 3)), {"strides": 2, "padding": "same", "separable": True}, (7, 6, 3)),
]


@pytest.fixture(params=LAYERS, ids=lambda given: f"{given[0].__name__[-2:]},{','.join(map(str, given[2]))}")
def case(request):
    return request.param


def made(case, batch=2, seed=0, **options):
    """A layer of a case with random weights, and an input."""
    maker, (filters, size), arguments, image = case
    layer = maker(filters, size, rank=3, **arguments | options)
    rng = np.random.default_rng(seed)
    if layer.data_format == "channels_first":
        image = (image[-1], *image[:-1])
    layer.build((None, *image))
    layer.set_weights([rng.standard_normal(w.shape) for w in layer.weights])
    return layer, rng.standard_normal((batch, *image)).astype(layer.dtype)


def weights_of(layer):
    """The weights of all positions, (positions, rank), by the definition and wider than the layer."""
    if layer.separable:
        rows, columns = (v.value.astype(WIDE) for v in (layer.row_weights, layer.column_weights))
        sums = np.array([[row + column for column in columns] for row in rows])
    else:
        sums = layer.position_weights.value.astype(WIDE)
    sums = sums.reshape(-1, layer.rank)
    if layer.normalize_weights == "softmax":
        powers = np.exp(sums - sums.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)
    if layer.normalize_weights == "norm":
        return sums / np.sqrt((sums**2).sum(-1, keepdims=True) + WIDE(1e-12))
    return sums


def expanded(layer, absolute=False):
    size = abs if absolute else (lambda array: array)
    return np.einsum("pk,krf->prf", size(weights_of(layer)), size(layer.kernel.value.astype(WIDE)))


def full(layer):
    """The locally connected layer of the expanded kernel, in float64."""
    config = layer.get_config()
    for name in [key for key in config if key.startswith("weights_")] + ["rank", "normalize_weights", "separable"]:
        config.pop(name, None)
    maker = {1: layers.LocallyConnected1D, 2: layers.LocallyConnected2D}[layer.kernel_size.__len__()]
    other = maker.from_config(config | {"dtype": "float64", "kernel_initializer": "zeros"})
    other.build(layer.input_shape)
    bias = [] if layer.bias is None else [layer.bias.value]
    other.set_weights([expanded(layer).astype(float), *bias])
    return other


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("normalize_weights", NORMALIZATIONS)
@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("batch", [1, 9])
def test_values(case, batch, data_format, normalize_weights, dtype):
    """With one image filters are convolved and results are summed, with nine kernels are made."""
    options = {"data_format": data_format, "normalize_weights": normalize_weights, "dtype": dtype}
    layer, x = made(case, batch, **options)
    window = (layer.kernel_size, layer.strides)
    words = {"padding": layer.padding, "data_format": data_format, "bias": layer.bias.value.astype(WIDE)}
    axes = len(layer.kernel_size)
    values = oracle.local_conv(axes, x.astype(WIDE), expanded(layer), *window, **words)
    words["bias"] = abs(words["bias"])
    magnitudes = oracle.local_conv(axes, abs(x.astype(WIDE)), expanded(layer, True), *window, **words)
    y = layer(x)
    assert y.dtype == dtype
    assert y.shape == values.shape == layer.compute_output_shape(x.shape)
    terms = 2 * layer.rank + layer.kernel.shape[1] + 8
    assert (abs(y - values) <= terms * np.finfo(dtype).eps * magnitudes).all()


@pytest.mark.parametrize("normalize_weights", NORMALIZATIONS)
@pytest.mark.parametrize("data_format", FORMATS)
def test_gradients_by_differences(case, data_format, normalize_weights):
    maker, (filters, size), arguments, image = case
    options = {"kernel_regularizer": "l2", "weights_regularizer": "l1", "activity_regularizer": "l2"}
    layer = maker(
        filters,
        size,
        rank=2,
        activation="tanh",
        dtype="float64",
        data_format=data_format,
        normalize_weights=normalize_weights,
        **arguments | options,
    )
    small = [min(n, 5) for n in image[:-1]]
    differentiable(layer, (2, image[-1], *small) if data_format == "channels_first" else (2, *small, image[-1]))


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("normalize_weights", NORMALIZATIONS)
def test_gradients_by_the_chain_rule(case, batch, normalize_weights):
    """Those of the expanded kernel, carried back by differences of the expansion."""
    layer, x = made(case, batch, normalize_weights=normalize_weights, dtype="float64", activation="softplus")
    other = full(layer)
    g = np.random.default_rng(1).standard_normal(layer(x, training=True).shape)
    other(x, training=True)
    np.testing.assert_allclose(layer.backward(g), other.backward(g), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(layer.bias.grad, other.bias.grad, rtol=1e-9, atol=1e-9)
    slopes = other.kernel.grad
    for variable in layer.trainable_weights[:-1]:
        start = variable.numpy()

        def along(value, variable=variable):
            variable.assign(value)
            return float((expanded(layer) * slopes).sum())

        np.testing.assert_allclose(
            variable.grad, central_differences(along, start), rtol=1e-6, atol=1e-6, err_msg=variable.name
        )
        variable.assign(start)


def test_norm_of_nothing():
    """Weights of 0 have no direction: they stay 0, and their gradients finite."""
    layer = LowRankLocallyConnected1D(2, 3, 2, normalize_weights="norm", weights_initializer="zeros")
    x = np.ones((1, 6, 2), np.float32)
    assert not layer(x, training=True).any()
    layer.backward(np.ones((1, 4, 2), np.float32))
    assert np.isfinite(layer.position_weights.grad).all()


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("normalize_weights", NORMALIZATIONS)
def test_begins_as_a_convolution(case, normalize_weights, data_format):
    """The same kernel everywhere; and its first values are those of a convolution to the filters of all banks."""
    maker, (filters, size), arguments, image = case
    options = {"data_format": data_format, "kernel_initializer": layers.initializers.HeUniform(seed=3)}
    layer = maker(filters, size, rank=4, normalize_weights=normalize_weights, **arguments, **options)
    image = (image[-1], *image[:-1]) if data_format == "channels_first" else image
    layer.build((None, *image))
    np.testing.assert_allclose(weights_of(layer), 1 / (4 if normalize_weights == "softmax" else 2), rtol=1e-6)
    conv = {1: layers.Conv1D, 2: layers.Conv2D}[len(layer.kernel_size)](4 * filters, size, **options)
    conv.build((None, *image))
    x = np.random.default_rng(0).standard_normal((1, *image)).astype(np.float32)
    axis = 1 if data_format == "channels_first" else -1
    if layer.padding == "valid" and max(layer.strides) == 1:
        by_bank = np.moveaxis(conv(x), axis, -1).reshape(-1, 4, filters).sum(1) * float(weights_of(layer)[0, 0])
        np.testing.assert_allclose(np.moveaxis(layer(x), axis, -1).reshape(-1, filters), by_bank, rtol=1e-4, atol=1e-5)
    assert layer.kernel.value.std() == pytest.approx(conv.kernel.value.std(), rel=1e-6)


def test_seed():
    first, second, third = (LowRankLocallyConnected2D(2, 3, 2, seed=seed) for seed in (1, 1, 2))
    for layer in (first, second, third):
        layer.build((None, 6, 6, 2))
    np.testing.assert_array_equal(first.kernel.value, second.kernel.value)
    assert not np.array_equal(first.kernel.value, third.kernel.value)


@pytest.mark.parametrize("normalize_weights", NORMALIZATIONS)
@pytest.mark.parametrize("use_bias", [True, False])
def test_to_local(case, normalize_weights, use_bias):
    options = {"activation": "relu", "kernel_regularizer": "l2", "kernel_constraint": "non_neg", "seed": 5}
    layer, x = made(case, normalize_weights=normalize_weights, dtype="float64", use_bias=use_bias, **options)
    local = layer.to_local()
    assert (local.name, local.implementation, local.losses) == (layer.name, 1, [])
    np.testing.assert_allclose(local.kernel.value, expanded(layer).astype(float), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(local(x), layer(x), rtol=1e-12, atol=1e-12)
    local.apply_constraints()
    np.testing.assert_allclose(local(x), layer(x), rtol=1e-12, atol=1e-12)
    local.quantize("float16")


def test_config(case):
    options = {
        "activation": "relu",
        "use_bias": False,
        "kernel_initializer": layers.initializers.HeNormal(seed=1),
        "weights_initializer": "random_normal",
        "weights_regularizer": "l2",
        "weights_constraint": "non_neg",
        "normalize_weights": "softmax",
        "name": "low",
        "trainable": False,
        "seed": 3,
    }
    maker, (filters, size), arguments, image = case
    layer = maker(filters, size, rank=3, **arguments, **options)
    config = json.loads(json.dumps(layer.get_config()))
    again = maker.from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config
    assert set(inspect.signature(maker).parameters) - {"base"} <= set(config) | {"activity_regularizer"}
    for each in (layer, again):
        each.build((None, *image))
    for a, b in zip(layer.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
def test_copies(case, way):
    layer, x = made(case, normalize_weights="norm")
    again = pickle.loads(pickle.dumps(layer)) if way == "pickle" else copy.deepcopy(layer)
    expected = layer(x)
    np.testing.assert_array_equal(again(x), expected)
    again.kernel.assign(again.kernel.value * 0)
    np.testing.assert_array_equal(layer(x), expected)


def model_of(name="model"):
    return layers.Sequential(
        [
            LowRankLocallyConnected2D(3, 3, 2, separable=True, normalize_weights="softmax", input_shape=(8, 7, 2)),
            layers.Activation("relu"),
            LowRankLocallyConnected2D(2, 2, 4, weights_initializer="random_normal", name="low"),
            layers.Flatten(),
            layers.Dense(3),
        ],
        name=name,
    )


@pytest.mark.parametrize("suffix", ["npz", "h5", "hdf5"])
def test_weights_in_files(tmp_path, suffix):
    if suffix != "npz":
        pytest.importorskip("h5py")
    model, x = model_of(), np.random.default_rng(0).standard_normal((2, 8, 7, 2), dtype=np.float32)
    model.save_weights(tmp_path / f"weights.{suffix}")
    other = model_of()
    assert not np.array_equal(other(x), model(x))
    other.load_weights(tmp_path / f"weights.{suffix}")
    np.testing.assert_array_equal(other(x), model(x))


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_models_in_files(tmp_path, suffix):
    pytest.importorskip("h5py")
    model, x = model_of(), np.random.default_rng(0).standard_normal((2, 8, 7, 2), dtype=np.float32)
    model.save(tmp_path / f"model.{suffix}")
    again = layers.load_model(tmp_path / f"model.{suffix}")
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in model.layers]
    np.testing.assert_array_equal(again(x), model(x))
    other = layers.Sequential.from_json(model.to_json())
    other.set_weights(model.get_weights())
    np.testing.assert_array_equal(other(x), model(x))


def test_summary():
    text = io.StringIO()
    model = model_of()
    model.summary(print_fn=lambda line: print(line, file=text))
    count = 2 * 18 * 3 + (6 + 5) * 2 + 6 * 5 * 3
    assert model.layers[0].count_params() == count
    assert f"{count}" in text.getvalue()


def test_training():
    """Of a function that no convolution computes: the loss falls below what the best of these leaves."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 8, 8, 1), dtype=np.float32)
    signs = np.where(np.arange(8) < 4, 1, -1).astype(np.float32)[:, None, None]
    layer = LowRankLocallyConnected2D(1, 1, 2, separable=True, use_bias=False, seed=0)
    for _ in range(300):
        error = layer(x, training=True) - x * signs
        layer.backward(2 * error / len(x) / 16)
        for variable in layer.trainable_weights:
            variable.assign_sub(0.3 * variable.grad)
    assert (error**2).mean() < 0.01  # a convolution cannot tell the halves apart: it leaves 1


@pytest.mark.parametrize("frozen", ["kernel", "position_weights", "layer"])
def test_what_is_frozen_gets_no_gradient(frozen):
    layer = LowRankLocallyConnected1D(2, 3, 2)
    x = np.ones((1, 6, 2), np.float32)
    layer.build(x.shape)
    if frozen == "layer":
        layer.trainable = False
    else:
        getattr(layer, frozen).trainable = False
    layer(x, training=True)
    assert layer.backward(np.ones((1, 4, 2), np.float32)).any()
    trained = {v.name for v in layer.weights if v.grad is not None}
    assert trained == {v.name for v in layer.trainable_weights}


def test_constraints():
    layer = LowRankLocallyConnected2D(
        2, 3, 2, separable=True, weights_constraint="non_neg", weights_initializer=layers.initializers.Constant(-1)
    )
    layer.build((None, 6, 6, 2))
    layer.apply_constraints()
    assert not layer.row_weights.value.any()
    assert not layer.column_weights.value.any()


def test_the_kernel_is_never_expanded():
    """It would be 64 MB, of which a unit of the computation has 4."""
    layer = LowRankLocallyConnected2D(16, 5, 4, padding="same")
    x = np.ones((1, 200, 200, 1), np.float32)
    layer.build(x.shape)
    assert math.prod((200 * 200, 25, 16)) * 4 == 64e6
    tracemalloc.start()
    layer(x, training=True)
    layer.backward(np.ones((1, 200, 200, 16), np.float32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40e6


def test_quantization_is_refused():
    layer = LowRankLocallyConnected1D(2, 3, 2, input_shape=(6, 2))
    layer.build((None, 6, 2))
    with pytest.raises(NotImplementedError, match=r"cannot be quantized: .* layer.to_local\(\)"):
        layer.quantize("int8")
    model = layers.Sequential([layer, layers.LocallyConnected1D(2, 2)])
    with pytest.warns(UserWarning, match=r"cannot be quantized: .* layer.to_local\(\)"):
        model.quantize("float16")
    assert [each.quantization_mode for each in model.layers] == [None, "float16"]
    with pytest.raises(ValueError, match="quantization_mode must be None"):
        LowRankLocallyConnected1D(2, 3, 2, quantization_mode="int8")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"rank": 0}, ValueError, "Invalid value for argument `rank`. Expected a strictly positive value"),
        ({"rank": 1.5}, ValueError, "Invalid value for argument `rank`. Expected an integer"),
        ({"filters": 0}, ValueError, "Invalid value for argument `filters`"),
        ({"kernel_size": (1, 2, 3)}, ValueError, "The `kernel_size` argument must be a tuple of 2 integers"),
        ({"padding": "causal"}, ValueError, r"padding must be one of \('valid', 'same'\), got 'causal'"),
        ({"padding": "full"}, ValueError, "The `padding` argument must be one of"),
        ({"normalize_weights": "max"}, ValueError, r"normalize_weights must be one of \(None, 'softmax', 'norm'\)"),
        ({"normalize_weights": []}, ValueError, r"normalize_weights must be one of .*, got \[\]"),
        ({"separable": "yes"}, TypeError, "separable must be True or False, got 'yes'"),
        ({"weights_initializer": "conv"}, ValueError, "Unknown initializer: 'conv'"),
        ({"weights_initializer": 3}, ValueError, "Could not interpret initializer identifier: 3"),
        ({"seperable": True}, TypeError, "unexpected keyword argument 'seperable'; did you mean 'separable'"),
        ({"implementation": 1}, TypeError, "unexpected keyword argument 'implementation'"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_refused_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        LowRankLocallyConnected2D(**{"filters": 2, "kernel_size": 3, "rank": 2} | arguments)


def test_one_dimension_has_no_separable_weights():
    with pytest.raises(TypeError, match="unexpected keyword argument 'separable'"):
        LowRankLocallyConnected1D(2, 3, 2, separable=True)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((None, 2, 6, 1), "One of the dimensions in the output is <= 0"),
        ((None, None, 6, 1), "The spatial dimensions of the inputs to a LowRankLocallyConnected2D layer"),
        ((None, 6, 6, None), "Axis 3 of input should be fully-defined"),
        ((None, 6, 6), "expected ndim=4, found ndim=3"),
    ],
)
def test_refused_shapes(shape, words):
    layer = LowRankLocallyConnected2D(2, 3, 2)
    with pytest.raises(ValueError, match=words):
        layer.build(shape)
    with pytest.raises(ValueError, match="must be built before it is expanded"):
        layer.to_local()


def test_other_sizes_are_refused():
    layer = LowRankLocallyConnected2D(2, 3, 2)
    layer.build((None, 6, 6, 1))
    with pytest.raises(ValueError, match="expected axis 1 of input shape to have value 6"):
        layer(np.ones((1, 7, 6, 1), np.float32))


def test_weights_are_variables():
    layer = LowRankLocallyConnected2D(2, 3, 2)
    with pytest.raises(TypeError, match="row_weights of a layer must be a Variable, got ndarray"):
        layer.row_weights = np.ones((4, 2))
