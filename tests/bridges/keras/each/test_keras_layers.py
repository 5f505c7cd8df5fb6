"""The layers as members of Keras: models, shapes, dtypes, masks, seeds, copies, and what they refuse."""

import copy
import json
import pickle
import shutil

import keras
import numpy as np
import pytest
from keras import ops
from keras_tools import BACKEND, TRAINS, array

import localconv.layers
from localconv.convert import convert
from localconv.keras import LocallyConnected1D, LocallyConnected2D, LocallyConnected3D

rng = np.random.default_rng(14)


def normal(*shape):
    return rng.standard_normal(shape).astype("float32")


def small(**more):
    return keras.Sequential(
        [
            keras.Input((8, 7, 2)),
            LocallyConnected2D(3, 3, activation="relu", **more),
            LocallyConnected2D(2, (2, 3), strides=2, padding="same", **more),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )


# --- models -----------------------------------------------------------------------------------------------------------


def test_predict_and_evaluate():
    model = small()
    x, y = normal(10, 8, 7, 2), normal(10, 2)
    assert model.output_shape == (None, 2)
    expected = np.concatenate([array(model(x[:6])), array(model(x[6:]))])
    np.testing.assert_allclose(model.predict(x, batch_size=3, verbose=0), expected, rtol=1e-5, atol=1e-5)
    model.compile(loss="mse")
    loss = model.evaluate(x, y, batch_size=4, verbose=0)
    np.testing.assert_allclose(loss, np.mean((expected - y) ** 2), rtol=1e-5)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.local = LocallyConnected1D(4, 3, strides=2)
        self.answer = keras.layers.Dense(1)

    def call(self, x):
        return self.answer(ops.tanh(self.local(x)))


def test_subclassed_model():
    model = Subclassed()
    x = normal(5, 9, 2)
    assert model(x).shape == (5, 4, 1)
    assert len(model.weights) == 4
    if TRAINS:
        model.compile("sgd", loss="mse")
        before = model.local.get_weights()
        model.fit(x, normal(5, 4, 1), verbose=0)
        assert all((a != b).any() for a, b in zip(before, model.local.get_weights(), strict=True))


def test_functional_model_with_two_inputs():
    a, b = keras.Input((6, 2)), keras.Input((9, 2))
    shared = LocallyConnected1D(2, 3)
    y = keras.layers.Add()([shared(a), LocallyConnected1D(2, 6)(b)])
    model = keras.Model([a, b], y)
    assert model.output_shape == (None, 4, 2)
    assert model.predict([normal(3, 6, 2), normal(3, 9, 2)], verbose=0).shape == (3, 4, 2)


def test_time_distributed():
    layer = keras.layers.TimeDistributed(LocallyConnected1D(2, 3, activation="tanh"))
    x = normal(4, 3, 6, 2)
    y = array(layer(x))
    for step in range(3):
        np.testing.assert_allclose(y[:, step], array(layer.layer(x[:, step])), rtol=1e-5, atol=1e-6)


def test_empty_batch():
    assert small()(np.zeros((0, 8, 7, 2), "float32")).shape == (0, 2)


if TRAINS:

    @pytest.mark.parametrize("engine", ["auto", "ops"])
    def test_fit_learns(engine):
        model = small(engine=engine)
        x, y = normal(16, 8, 7, 2), normal(16, 2)
        model.compile(keras.optimizers.Adam(0.02), loss="mse")
        losses = model.fit(x, y, batch_size=16, epochs=40, verbose=0).history["loss"]
        assert losses[-1] < 0.5 * losses[0]

    def test_frozen_layers_keep_their_weights():
        model = small()
        model.layers[0].trainable = False
        before = [layer.get_weights() for layer in model.layers[:2]]
        model.compile("sgd", loss="mse")
        model.fit(normal(4, 8, 7, 2), normal(4, 2), verbose=0)
        after = [layer.get_weights() for layer in model.layers[:2]]
        assert all((a == b).all() for a, b in zip(before[0], after[0], strict=True))
        assert all((a != b).any() for a, b in zip(before[1], after[1], strict=True))

    @pytest.mark.parametrize("implementation", [1, 2, 3])
    def test_implementations_learn_alike(implementation):
        """The stored kernels differ, the network that they make does not."""
        x, y = normal(8, 7, 2), normal(8, 5, 3)
        kernel = normal(5, 6, 3)
        layers = [LocallyConnected1D(3, 3, implementation=i) for i in (1, implementation)]
        models = [keras.Sequential([keras.Input((7, 2)), layer]) for layer in layers]
        layers[0].set_weights([kernel, np.zeros((5, 3), "float32")])
        shape = {"input_size": (7,), "channels": 2}
        connections = convert(kernel, "rows", f"keras_{implementation}", (3,), **shape)
        layers[1].set_weights([connections, np.zeros((5, 3), "float32")])
        for model in models:
            model.compile(keras.optimizers.SGD(0.1), loss="mse")
            model.fit(x, y, epochs=3, verbose=0, shuffle=False)
        back = convert(layers[1].get_weights()[0], f"keras_{implementation}", "rows", (3,), **shape)
        np.testing.assert_allclose(layers[0].get_weights()[0], back, rtol=1e-5, atol=1e-6)


# --- shapes and dtypes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_symbolic_batch_and_output_spec(data_format):
    first = data_format == "channels_first"
    layer = LocallyConnected2D(5, 3, strides=(2, 1), data_format=data_format)
    shape = (2, 9, 8) if first else (9, 8, 2)
    spec = layer.compute_output_spec(keras.KerasTensor((None, *shape), dtype="float32"))
    assert (spec.shape, spec.dtype) == ((None, 5, 4, 6) if first else (None, 4, 6, 5), "float32")
    assert layer(keras.Input(shape)).shape == spec.shape
    assert layer(normal(2, *shape)).shape == (2, *spec.shape[1:])


def test_output_shape_with_unknown_sizes():
    assert LocallyConnected1D(4, 3).compute_output_shape((None, None, 2)) == (None, None, 4)
    assert LocallyConnected2D(4, 3).compute_output_shape((2, None, 5, 2)) == (2, None, 3, 4)


def test_data_format_of_the_settings():
    keras.config.set_image_data_format("channels_first")
    assert LocallyConnected1D(4, 3).data_format == "channels_first"
    keras.config.set_image_data_format("channels_last")
    assert LocallyConnected1D(4, 3).data_format == "channels_last"
    assert LocallyConnected1D(4, 3, data_format="Channels_First", padding="SAME").get_config()["padding"] == "same"


@pytest.mark.parametrize("engine", ["compiled", "ops"])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float16", "bfloat16", "float64"])
def test_policies(policy, engine):
    """Sums run in float32 and are rounded once: equal to the float32 layer's, rounded."""
    layer = LocallyConnected1D(3, 3, dtype=policy, engine=engine)
    x = normal(4, 6, 2)
    y = layer(x)
    compute = layer.compute_dtype
    assert keras.backend.standardize_dtype(y.dtype) == compute
    assert keras.backend.standardize_dtype(layer.kernel.dtype) == layer.variable_dtype
    plain = LocallyConnected1D(3, 3, dtype="float64" if policy == "float64" else "float32", engine=engine)
    plain.build((None, 6, 2))
    plain.set_weights([array(ops.cast(w, plain.dtype)) for w in layer.weights])
    rounded = ops.cast(ops.cast(x, compute), plain.dtype)
    np.testing.assert_array_equal(
        array(ops.cast(y, "float64")), array(ops.cast(ops.cast(plain(rounded), compute), "float64"))
    )


if TRAINS:

    @pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
    def test_training_in_mixed_precision(policy):
        keras.config.set_dtype_policy(policy)
        model = small()
        assert model.layers[0].kernel.dtype == "float32"
        model.compile("sgd", loss="mse")
        before = model.layers[0].get_weights()
        history = model.fit(normal(8, 8, 7, 2), normal(8, 2), epochs=2, verbose=0).history
        assert np.isfinite(history["loss"]).all()
        assert (before[0] != model.layers[0].get_weights()[0]).any()


# --- masks, seeds, names ----------------------------------------------------------------------------------------------


def test_masks_are_treated_as_convolutions_do():
    x = np.array([[1, 2, 0, 0, 0], [3, 1, 2, 1, 0]])
    embedded = keras.layers.Embedding(4, 2, mask_zero=True)(x)
    for layer in (keras.layers.Conv1D(2, 3), LocallyConnected1D(2, 3)):
        assert not layer.supports_masking
        with pytest.warns(UserWarning, match="does not support masking"):
            y = layer(embedded)
        assert getattr(y, "_keras_mask", None) is None


def test_seeds():
    """As for other layers: the process's seed, or the initializer's."""
    weights = []
    for _ in range(2):
        keras.utils.set_random_seed(7)
        layer = LocallyConnected1D(2, 3)
        layer.build((None, 6, 2))
        weights.append(array(layer.kernel))
    np.testing.assert_array_equal(*weights)
    layer = LocallyConnected1D(2, 3)
    layer.build((None, 6, 2))
    assert (array(layer.kernel) != weights[0]).any()
    own = [LocallyConnected1D(2, 3, kernel_initializer=keras.initializers.HeNormal(seed=3)) for _ in range(2)]
    for layer in own:
        layer.build((None, 6, 2))
    np.testing.assert_array_equal(array(own[0].kernel), array(own[1].kernel))


def test_initial_weights_have_the_fans_of_keras_2():
    """The limits of glorot_uniform that Keras 2's layers have for 100 steps, 2 channels, 3 taps, 4 filters."""
    for implementation, limit in ((1, 0.0782), (2, 0.0171), (3, 0.0357)):
        layer = LocallyConnected1D(4, 3, implementation=implementation)
        layer.build((None, 100, 2))
        np.testing.assert_allclose(abs(array(layer.kernel)).max(), limit, rtol=5e-3)


def test_names():
    keras.utils.clear_session()
    assert LocallyConnected1D(1, 1).name == "locally_connected1d"
    assert LocallyConnected2D(1, 1).name == "locally_connected2d"
    assert LocallyConnected2D(1, 1).name == "locally_connected2d_1"
    layer = LocallyConnected2D(1, 1, name="own")
    layer.build((None, 2, 2, 1))
    assert [w.path for w in layer.weights] == ["own/kernel", "own/bias"]


def test_constraints_and_regularizers():
    layer = LocallyConnected1D(2, 3, kernel_constraint="non_neg", kernel_regularizer="l1_l2", bias_regularizer="l2")
    layer.build((None, 6, 2))
    assert layer.kernel.constraint is layer.kernel_constraint
    kernel = array(layer.kernel)
    (of_kernel, of_bias) = (float(array(loss)) for loss in layer.losses)
    np.testing.assert_allclose(of_kernel, 0.01 * abs(kernel).sum() + 0.01 * (kernel**2).sum(), rtol=1e-5)
    assert of_bias == 0


# --- copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "clone", "json", "keras"])
def test_copies_of_models(way, tmp_path):
    model = small(engine="ops", implementation=1)
    x = normal(3, 8, 7, 2)
    if way == "keras":
        model.save(tmp_path / "model.keras")
    again = {
        "pickle": lambda: pickle.loads(pickle.dumps(model)),
        "deepcopy": lambda: copy.deepcopy(model),
        "clone": lambda: keras.models.clone_model(model),
        "json": lambda: keras.models.model_from_json(model.to_json()),
        "keras": lambda: keras.models.load_model(tmp_path / "model.keras"),
    }[way]()
    if way in ("clone", "json"):
        again.set_weights(model.get_weights())
    np.testing.assert_array_equal(array(again(x)), array(model(x)))
    assert again.layers[0].engine == "ops"
    assert again.layers[0] is not model.layers[0]


def test_config_is_json_and_has_every_argument():
    layer = LocallyConnected2D(
        3,
        [3, 2],
        strides=np.int64(2),
        dilation_rate=1,
        groups=1,
        engine="ops",
        name="own",
        trainable=False,
        dtype="float32",
    )
    config = json.loads(json.dumps(layer.get_config()))
    assert config["kernel_size"] == [3, 2]
    assert config["strides"] == [2, 2]
    assert (config["engine"], config["name"], config["trainable"]) == ("ops", "own", False)
    assert LocallyConnected2D.from_config(config).get_config() == layer.get_config()


def test_old_sequential_models_tell_the_input_shape():
    """Keras before 2.3 wrote no InputLayer."""
    config = {"filters": 2, "kernel_size": (3,), "batch_input_shape": (None, 8, 2), "name": "a"}
    layer = LocallyConnected1D.from_config(config)
    assert keras.Sequential([layer]).output_shape == (None, 6, 2)
    with pytest.warns(UserWarning, match="Do not pass an `input_shape`"):
        layer = LocallyConnected1D(2, 3, input_shape=(8, 2))
    assert keras.Sequential([layer]).output_shape == (None, 6, 2)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("implementation", [2, 3])
def test_implementations_of_three_dimensions(implementation, data_format, padding):
    """Which Keras 2 has no files of: the same outputs, of integers, as implementation 1 with the kernel's rows."""
    first = data_format == "channels_first"
    shape = (2, 4, 3, 5) if first else (4, 3, 5, 2)
    x = rng.integers(-4, 5, (2, *shape)).astype("float32")
    options = {"strides": (1, 2, 2), "padding": padding, "data_format": data_format}
    one, other = (LocallyConnected3D(3, (2, 2, 3), implementation=i, **options) for i in (1, implementation))
    for layer in (one, other):
        layer.build((None, *shape))
    kernel, bias = (rng.integers(-4, 5, tuple(w.shape)).astype("float32") for w in other.weights)
    name, ending = f"keras_{implementation}", "_channels_first" if first else ""
    window = {"input_size": (4, 3, 5), "strides": (1, 2, 2), "padding": padding, "channels": 2}
    rows = convert(kernel, name + ending, "rows" + ending, (2, 2, 3), **window)
    one.set_weights([rows, bias])
    other.set_weights([kernel, bias])
    np.testing.assert_array_equal(array(other(x)), array(one(x)))
    assert one.name.startswith("locally_connected3d")
    assert other.get_config()["implementation"] == implementation


def test_plot_model(tmp_path):
    """What graphviz is given; and the picture, where graphviz is installed."""
    pytest.importorskip("pydot", reason="keras.utils.plot_model needs pydot")
    shown = {"show_shapes": True, "show_layer_activations": True}
    text = keras.utils.model_to_dot(small(), **shown).to_string()
    assert text.count("LocallyConnected2D") == 2
    for words in ("(None, 8, 7, 2)", "(None, 6, 5, 3)", "(None, 3, 3, 2)", "relu"):
        assert words in text
    if shutil.which("dot"):
        keras.utils.plot_model(small(), str(tmp_path / "model.png"), **shown)
        assert (tmp_path / "model.png").stat().st_size > 1000


# --- the choice of an engine ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["auto", "ops"])
@pytest.mark.parametrize("quantized", [False, True])
def test_errstate_changes_nothing(engine, quantized):
    """Sums past the largest number are infinite."""
    layer = LocallyConnected1D(2, 2, engine=engine, kernel_initializer=keras.initializers.Constant(3e38))
    layer.build((None, 5, 1))
    if quantized:
        layer.quantize("int8")
    with np.errstate(all="raise"):
        y = layer(np.ones((1, 5, 1), np.float32))
    assert np.isinf(array(y)).all()


def test_engines():
    assert LocallyConnected1D(1, 1, engine="ops").supports_jit
    assert LocallyConnected1D(1, 1).supports_jit == LocallyConnected1D(1, 1, engine="compiled").supports_jit
    assert LocallyConnected1D(1, 1).supports_jit == (BACKEND in ("torch", "jax"))


if BACKEND in ("tensorflow", "jax"):

    def test_ops_are_compiled_by_xla():
        model = small(engine="ops")
        x, y = normal(4, 8, 7, 2), normal(4, 2)
        expected = array(model(x))
        model.compile("sgd", loss="mse", jit_compile=True)
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)
        assert np.isfinite(model.fit(x, y, verbose=0).history["loss"][0])


if BACKEND == "tensorflow":

    def test_jit_compile_is_declined_for_the_compiled_kernels():
        """Keras then trains without XLA, by itself or with a warning."""
        model = small(engine="compiled")
        model.compile("sgd", loss="mse")
        assert not model.jit_compile
        assert np.isfinite(model.fit(normal(4, 8, 7, 2), normal(4, 2), verbose=0).history["loss"][0])


if BACKEND == "torch":

    @pytest.mark.parametrize("padding", ["valid", "same"])
    @pytest.mark.parametrize("engine", ["compiled", "ops"])
    def test_dynamo_takes_both_engines(engine, padding):
        """As with jit_compile=True, but for inductor's C++ compiler."""
        import torch

        layer = LocallyConnected2D(3, 3, activation="relu", padding=padding, engine=engine)
        x = torch.tensor(normal(2, 6, 5, 2))
        expected = layer(x)
        compiled = torch.compile(layer.call, backend="aot_eager")
        torch.testing.assert_close(compiled(x), expected)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"filters": 0}, ValueError, "filters must be at least 1, got 0"),
        ({"filters": 1.5}, TypeError, "filters must be an int, got 1.5"),
        ({"kernel_size": 0}, ValueError, "kernel_size must be at least 1"),
        ({"kernel_size": (1, 2, 3)}, ValueError, "kernel_size must be 2 ints"),
        ({"strides": 0}, ValueError, "strides must be at least 1"),
        ({"strides": "2"}, TypeError, "strides must be 2 ints, got '2'"),
        ({"dilation_rate": -1}, ValueError, "dilation_rate must be at least 1"),
        ({"groups": 0}, ValueError, "groups must be at least 1"),
        ({"groups": True}, TypeError, "groups must be an int"),
        ({"padding": "causal"}, ValueError, "padding must be one of ('valid', 'same'), got 'causal'"),
        ({"padding": 3}, TypeError, "padding must be a string, got 3"),
        ({"data_format": "NCHW"}, ValueError, "data_format must be one of"),
        ({"implementation": 4}, ValueError, "implementation must be one of (1, 2, 3), got 4"),
        ({"implementation": True}, ValueError, "implementation must be one of (1, 2, 3), got True"),
        ({"implementation": 2, "groups": 2}, ValueError, "implementation must be 1 for dilation_rate=1 and groups=2"),
        ({"implementation": 3, "dilation_rate": 2}, ValueError, "implementation must be 1 for dilation_rate=2"),
        ({"engine": "fast"}, ValueError, "engine must be one of ('auto', 'compiled', 'ops'), got 'fast'"),
        ({"use_bias": 1}, TypeError, "use_bias must be True or False, got 1"),
        ({"activation": "no such"}, ValueError, "no such"),
        ({"kernel_regularizer": "no such"}, ValueError, "no such"),
    ],
)
def test_refused_arguments(change, error, words):
    with pytest.raises(error) as caught:
        LocallyConnected2D(**{"filters": 2, "kernel_size": 2, **change})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((None, None, 5, 2), "only the batch may be None"),
        ((None, 5, 5, None), "only the batch may be None"),
        ((None, 5, 5), "input_shape must have 4 axes"),
        (
            (None, 5, 2, 2),
            "input_shape must be large enough for kernel_size=(3, 3), strides=(1, 1), dilation_rate=(1, 1)",
        ),
        ((None, 5, 5, 3), "groups must divide the 3 channels"),
    ],
)
def test_refused_shapes(shape, words):
    layer = LocallyConnected2D(2, 3, groups=2)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the words are compared below
        layer.build(shape)
    assert words in str(caught.value)
    assert not layer.built


def test_refused_inputs():
    layer = LocallyConnected1D(2, 3)
    layer(normal(2, 6, 2))
    for shape in ((2, 7, 2), (2, 6, 3), (6, 2)):
        with pytest.raises(ValueError, match="is incompatible with the layer"):
            layer(normal(*shape))
    with pytest.raises(ValueError, match="large enough for kernel_size"):
        LocallyConnected1D(2, 9).compute_output_shape((None, 6, 2))


def test_the_layers_for_numpy_name_these():
    """Keras's symbols and layers, given to what only looks alike."""
    for use in (lambda x: localconv.layers.LocallyConnected1D(2, 3)(x), localconv.layers.Sequential().predict):
        with pytest.raises(TypeError, match=r"got KerasTensor .*; localconv\.keras computes with these"):
            use(keras.Input((6, 2)))
    with pytest.raises(TypeError, match=r"^The added layer.*localconv\.keras has layers"):
        localconv.layers.Sequential([keras.layers.Dense(2)])
