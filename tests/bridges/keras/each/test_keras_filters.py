"""Filters that come with the data as functions of Keras's tensors, and the layer Involution2D, on every backend."""

import copy
import inspect
import json
import random

import keras
import numpy as np
import pytest
from formulated import wild_where_absent
from keras_tools import BACKEND, TRAINS, array, gradient, value_and_gradients
from operations import draw_filter_case
from oracle import FilterCase

import localconv
from localconv.keras import Involution2D, backends, ops

CASES = [
    FilterCase("local_filter", (9,), (3,), padding="causal", dilation_rate=2, exact=False),
    FilterCase("local_filter", (6, 5), (3, 2), groups=2, padding="same", strides=(2, 1), exact=False),
    FilterCase("local_filter", (6, 7), (3, 2), 3, groups=4, padding="inside", one=True, exact=False),
    FilterCase("local_filter", (3, 4, 3), (2, 2, 3), padding=((1, 0), (0, 2), (1, 1)), exact=False),
    FilterCase("local_correlation", (9,), (4,), groups=2, padding="inside", dilation_rate=2, exact=False),
    FilterCase("local_correlation", (6, 5), (2, 3), 3, strides=2, data_format="channels_first", exact=False),
]


def name_of(case):
    return f"{case.function}-{case.data_format}-{case.padding}"


@pytest.fixture(params=CASES, ids=name_of)
def case(request):
    return request.param


def function_of(case):
    names = list(case.arrays())
    return lambda *arrays: case.run(ops, dict(zip(names, arrays, strict=True)))


def gradient_cases(case):
    """Those of the derivatives of a case's function for its two arrays."""
    ends = {"local_filter": ("_input", "_filters"), "local_correlation": ("_input", "_queries")}[case.kind]
    return [FilterCase(**(vars(case) | {"kind": case.kind + end})) for end in ends]


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------ functions


@pytest.mark.parametrize("kind", ["local_filter", "local_correlation"])
@pytest.mark.parametrize("number", range(8))
def test_random_geometries(kind, number):
    """Also where filters that meet no pixel hold NaN."""
    case = draw_filter_case(rng := random.Random(f"{kind} {number}"), kind, rng.randint(1, 3))
    while case.dtype not in ("float32", "float64"):
        case = draw_filter_case(rng, kind, rng.randint(1, 3))
    arrays = wild_where_absent(case, case.arrays(), np.nan)
    tensors = {name: keras.ops.convert_to_tensor(value, dtype=case.dtype) for name, value in arrays.items()}
    result = case.run(ops, tensors)
    case.check(array(result))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(case, dtype):
    """Is rounded once; filters of it beside inputs of float32 are what they are in float32."""
    first, second = (keras.ops.cast(a, dtype) for a in case.arrays().values())
    wide = keras.ops.cast(first, "float32"), keras.ops.cast(second, "float32")
    call = function_of(case)
    result = call(first, second)
    assert keras.backend.standardize_dtype(result.dtype) == dtype
    np.testing.assert_array_equal(
        array(keras.ops.cast(result, "float32")), array(keras.ops.cast(keras.ops.cast(call(*wide), dtype), "float32"))
    )
    mixed = call(wide[0], second)
    assert keras.backend.standardize_dtype(mixed.dtype) == "float32"
    np.testing.assert_array_equal(array(mixed), array(call(*wide)))


if TRAINS:

    def test_gradients(case):
        call = function_of(case)
        arrays = case.arrays()
        weights = FilterCase(**(vars(case) | {"seed": 1})).run(localconv)

        def total(*tensors):
            y = call(*tensors)
            return keras.ops.sum(y * keras.ops.convert_to_tensor(weights)), y

        (_, y), found = value_and_gradients(total, list(arrays.values()))
        case.check(array(y))
        for one, value in zip(gradient_cases(case), found, strict=True):
            one.check(value, {name: weights if name == "grad_output" else arrays[name] for name in one.arrays()})

    def test_derivatives_of_derivatives(case):
        """|gradient|^2 has the slope along the arrays that its degree says: it is a sum of products of powers."""
        call = function_of(case)
        tensors = [keras.ops.convert_to_tensor(a) for a in case.arrays().values()]

        def square(*tensors):
            parts = gradient(lambda *t: keras.ops.sum(call(*t) ** 2), list(tensors))
            return sum(keras.ops.sum(part**2) for part in parts)

        if BACKEND == "torch":
            for tensor in tensors:
                tensor.requires_grad_()
        slopes = gradient(square, tensors)
        along = sum((array(a) * array(b)).sum() for a, b in zip(tensors, slopes, strict=True))
        assert along == pytest.approx(6 * array(square(*tensors)), rel=1e-3)

    @pytest.mark.parametrize("jit_compile", ["auto", False])
    def test_functional_models_learn(jit_compile):
        """Both functions as nodes; what XLA cannot compile it is not asked to."""
        inputs = keras.Input((8, 4))
        queries = keras.layers.Conv1D(4, 1)(inputs)
        scores = ops.local_correlation1d(inputs, queries, 3, padding="inside")
        outputs = ops.local_filter1d(inputs, keras.layers.Softmax()(scores), 3, padding="inside")
        model = keras.Model(inputs, outputs)
        model.compile(keras.optimizers.Adam(0.1), "mse", jit_compile=jit_compile)
        x = normal(16, 8, 4)
        losses = model.fit(x, np.roll(x, 1, 1), epochs=10, verbose=0).history["loss"]
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("way", ["json", "keras"])
def test_functional_models_are_saved(way, tmp_path):
    inputs, taps = keras.Input((None, 7, 4)), keras.Input((None, 7, 2 * 3 * 2))
    y = ops.local_filter2d(inputs, taps, (3, 2), padding="same", groups=2)
    model = keras.Model([inputs, taps], [y, ops.local_correlation2d(y, inputs, 3, padding=((1, 1), (1, 1)))])
    assert model.output_shape == [(None, None, 7, 4), (None, None, 7, 9)]
    if way == "keras":
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
    else:
        again = keras.models.model_from_json(model.to_json())
    arrays = [normal(2, 5, 7, 4), normal(2, 5, 7, 12)]
    for a, b in zip(model(arrays), again(arrays), strict=True):
        np.testing.assert_array_equal(array(a), array(b))
    np.testing.assert_array_equal(
        array(model(arrays)[0]), array(ops.local_filter2d(*arrays, (3, 2), padding="same", groups=2))
    )


if BACKEND == "tensorflow":

    def test_sizes_that_a_graph_does_not_know(case):
        import tensorflow as tf

        call = function_of(case)

        def total(x, other):
            with tf.GradientTape() as tape:
                tape.watch([x, other])
                y = call(x, other)
            return (y, *tape.gradient(y, [x, other]))

        arrays = [tf.constant(a) for a in case.arrays().values()]
        unknown = [tf.TensorSpec([None] * a.ndim, a.dtype) for a in case.arrays().values()]
        channels = 1 if case.data_format == "channels_first" else -1
        for spec, a in zip(unknown, arrays, strict=True):
            sizes = [None] * a.ndim
            sizes[channels] = a.shape[channels]
            spec._shape = tf.TensorShape(sizes)
        for found, expected in zip(tf.function(total, input_signature=unknown)(*arrays), total(*arrays), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ops.__all__)
def test_arguments_are_those_of_the_functions_for_numpy(name):
    """Names, order, defaults; `out` is not Keras's way, and padding with pixels is `keras.ops.pad`."""
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (ops, localconv))
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [
        (p.name, p.default, p.kind) for p in theirs.values() if p.name not in ("out", "padding_mode", "normalize")
    ]


def test_data_format_of_the_settings():
    x, filters = normal(1, 4, 9), normal(1, 3, 7)
    keras.config.set_image_data_format("channels_first")
    expected = localconv.local_filter1d(x, filters, 3, 1, "channels_first")
    np.testing.assert_allclose(array(ops.local_filter1d(x, filters, 3)), expected, rtol=1e-5)


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize(
    ("function", "changes", "error", "words"),
    [
        ("filter", {"filters": (2, 7, 4)}, ValueError, "filters must have shape"),
        ("filter", {"inputs": (2, 9, 4, 1)}, ValueError, "inputs must have 3 axes"),
        ("filter", {"groups": 3, "filters": (2, 7, 9)}, ValueError, "groups must divide the 4 channels of inputs"),
        ("filter", {"padding": "inside", "strides": 2}, ValueError, "strides must be 1 with padding='inside'"),
        ("correlation", {"queries": (2, 7, 5)}, ValueError, "queries must have the shape of"),
        ("correlation", {"kernel_size": 10, "padding": "inside"}, ValueError, "kernel_size .* at most the size"),
    ],
)
def test_wrong_arguments(function, changes, error, words, symbolic):
    """The same errors for tensors and in models, whose batch is not known."""
    given = {"filter": {"filters": (2, 7, 3)}, "correlation": {"queries": (2, 7, 4)}}[function]
    arguments = {"inputs": (2, 9, 4), "kernel_size": 3, "data_format": "channels_last"} | given | changes
    for name in ("inputs", *given):
        shape = arguments[name]
        arguments[name] = keras.KerasTensor((None, *shape[1:])) if symbolic else normal(*shape)
    with pytest.raises(error, match=words):
        getattr(ops, f"local_{function}1d")(**arguments)


def test_wrong_dtypes():
    with pytest.raises(TypeError, match="filters must have one of the dtypes"):
        ops.local_filter1d(normal(1, 9, 4), np.ones((1, 7, 3), int), 3)


# ----------------------------------------------------------------------------------------------------------- Involution


def involved(layer, x, training=False):
    """What the layer computes of an array, by its own convolutions and the function for NumPy."""
    filters = keras.ops.convert_to_tensor(x)
    for stage in layer._stages:
        filters = stage(filters, training=training) if "normal" in stage.name else stage(filters)
    window = (layer.kernel_size, layer.strides, layer.data_format)
    options = {"padding": layer.padding, "dilation_rate": layer.dilation_rate, "groups": layer.groups}
    return localconv.local_filter2d(x, array(filters), *window, **options)


LAYERS = [
    {},
    {"kernel_size": (3, 5), "groups": 4, "reduction_ratio": 2, "dilation_rate": (2, 1)},
    {"kernel_size": 3, "strides": (2, 1), "groups": 2, "normalization": None},
    {"kernel_size": 3, "padding": "inside", "use_bias": False, "activation": "tanh"},
    {"kernel_size": 3, "data_format": "channels_first", "groups": 2, "strides": 2},
    {"kernel_size": 3, "engine": "ops", "groups": 2, "strides": 2},
]


@pytest.fixture(params=LAYERS, ids=lambda given: ",".join(given) or "defaults")
def arguments(request):
    return request.param


def image_of(arguments):
    return normal(2, 8, 9, 7) if arguments.get("data_format") == "channels_first" else normal(2, 9, 7, 8)


def test_involution(arguments):
    """Values and shapes; and a copy by its config and weights computes the same."""
    layer, x = Involution2D(**arguments), image_of(arguments)
    y = array(layer(x))
    np.testing.assert_allclose(y, involved(layer, x), rtol=1e-4, atol=1e-4)
    assert layer.compute_output_shape((None, *x.shape[1:])) == (None, *y.shape[1:])
    config = json.loads(json.dumps(layer.get_config()))
    again = Involution2D.from_config(config)
    assert again.get_config() == layer.get_config()
    again.build(x.shape)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(array(again(x)), y)


def test_weights_are_those_of_the_paper():
    layer = Involution2D(7, groups=2, reduction_ratio=4)
    layer.build((None, 9, 9, 16))
    named = {weight.path.partition("/")[2]: tuple(weight.shape) for weight in layer.trainable_weights}
    assert named == {
        "reduce/kernel": (1, 1, 16, 4),
        "normalize/gamma": (4,),
        "normalize/beta": (4,),
        "span/kernel": (1, 1, 4, 98),
        "span/bias": (98,),
    }


def test_both_convolutions_draw_weights_of_their_own():
    layer = Involution2D(2, reduction_ratio=1, kernel_initializer=keras.initializers.RandomNormal())
    layer.build((None, 5, 5, 4))
    first, second = [array(w) for w in layer.weights if w.path.endswith("kernel")]
    assert not np.array_equal(first, second)


def test_normalization_by_a_layer(tmp_path):
    """That a user gives: it is in the config, and in the file."""
    layer = Involution2D(3, reduction_ratio=2, normalization=keras.layers.LayerNormalization(epsilon=0.5))
    model = keras.Sequential([keras.Input((6, 5, 4)), layer])
    model.set_weights([normal(*w.shape) for w in model.get_weights()])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.layers[0].normalization.epsilon == 0.5
    x = normal(2, 6, 5, 4)
    np.testing.assert_array_equal(array(again(x)), array(model(x)))


@pytest.mark.parametrize("way", ["deepcopy", "clone", "json", "keras"])
def test_copies_of_models(way, tmp_path):
    model = keras.Sequential([keras.Input((6, 5, 8)), Involution2D(3, groups=2)])
    if way == "keras":
        model.save(tmp_path / "model.keras")
    again = {
        "deepcopy": lambda: copy.deepcopy(model),
        "clone": lambda: keras.models.clone_model(model),
        "json": lambda: keras.models.model_from_json(model.to_json()),
        "keras": lambda: keras.saving.load_model(tmp_path / "model.keras"),
    }[way]()
    if way in ("clone", "json"):
        again.set_weights(model.get_weights())
    x = normal(3, 6, 5, 8)
    np.testing.assert_array_equal(array(again(x)), array(model(x)))


def test_training_reaches_the_normalization():
    layer, x = Involution2D(3), 3 + normal(4, 6, 5, 8)
    layer.build(x.shape)
    still = array(layer(x))
    assert not np.allclose(array(layer(x, training=True)), still)
    assert not np.allclose(array(layer(x)), still)  # its averages have moved


# Under numpy Keras's own convolution refuses float64.
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", *(["float64"] if TRAINS else [])])
def test_policies(policy):
    layer, x = Involution2D(3, dtype=policy), normal(2, 6, 5, 8)
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == policy.removeprefix("mixed_")
    wide = Involution2D(3)
    wide.build(x.shape)
    wide.set_weights(layer.get_weights())
    np.testing.assert_allclose(array(keras.ops.cast(y, "float32")), array(wide(x)), atol=0.1)


if TRAINS:

    @pytest.mark.parametrize("engine", ["auto", "ops"])
    def test_involution_learns(engine):
        model = keras.Sequential([keras.Input((6, 6, 4)), Involution2D(3, reduction_ratio=1, engine=engine)])
        model.compile(keras.optimizers.Adam(0.02), "mse")
        x = normal(16, 6, 6, 4)
        losses = model.fit(x, np.roll(x, 1, 1), epochs=12, verbose=0).history["loss"]
        assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"kernel_size": 0}, ValueError, "kernel_size must be at least 1"),
        ({"reduction_ratio": 0}, ValueError, "reduction_ratio must be at least 1"),
        ({"padding": "valid"}, ValueError, r"padding must be one of \('same', 'inside'\)"),
        ({"padding": "inside", "strides": 2}, ValueError, "strides must be 1 with padding='inside'"),
        ({"normalization": "layer"}, ValueError, "normalization must be 'batch', None or a layer"),
        ({"use_bias": 1}, TypeError, "use_bias must be True or False"),
        ({"engine": "fast"}, ValueError, "engine must be one of"),
        ({"groups": 3}, ValueError, "groups and reduction_ratio must fit the 8 channels"),
        ({"reduction_ratio": 9}, ValueError, "groups and reduction_ratio must fit the 8 channels"),
        ({"kernel_size": 6, "padding": "inside"}, ValueError, "kernel_size .* at most the size of inputs"),
    ],
)
def test_refused_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        Involution2D(**arguments).build((None, 6, 5, 8))


def test_refused_shapes():
    with pytest.raises(ValueError, match="channels that are known"):
        Involution2D(3).build((None, 6, 5, None))
    with pytest.raises(ValueError, match="input_shape must have 4 axes"):
        Involution2D(3).compute_output_shape((None, 6, 5))


def test_engines_have_the_same_values():
    x, compiled = normal(2, 6, 5, 8), Involution2D(3, groups=2)
    compiled.build(x.shape)
    plain = Involution2D(3, groups=2, engine="ops")
    plain.build(x.shape)
    plain.set_weights(compiled.get_weights())
    np.testing.assert_allclose(array(plain(x)), array(compiled(x)), rtol=1e-4, atol=1e-5)
    assert compiled.supports_jit is backends.filtering_for("auto").supports_jit
    assert plain.supports_jit
