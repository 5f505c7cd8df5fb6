"""Variables, names, weights, losses, configs: what all layers have."""

import copy
import json
import pickle

import numpy as np
import pytest

import localconv
from localconv import layers
from localconv.core import settings


def built(**arguments):
    layer = layers.LocallyConnected1D(2, 3, **arguments)
    layer.build((None, 6, 2))
    return layer


# --- import -----------------------------------------------------------------------------------------------------------


def test_layers_wait_until_asked_for(python):
    assert (
        python(
            "import sys, localconv; print('localconv.layers' in sys.modules, localconv.layers.Conv1D.__name__, "
            "'localconv.layers' in sys.modules, 'h5py' in sys.modules)"
        )
        == "False Conv1D True False\n"
    )
    with pytest.raises(AttributeError, match="has no attribute 'layer'"):
        localconv.layer  # noqa: B018  # the attribute is the test


# --- variables --------------------------------------------------------------------------------------------------------


def test_variable():
    v = layers.Variable([[1.0, 2.0]], "w:0", "float32")
    assert (v.name, v.shape, v.dtype, v.ndim, v.size, v.trainable, v.grad) == (
        "w:0",
        (1, 2),
        np.dtype("float32"),
        2,
        2,
        True,
        None,
    )
    before = v.version
    v.assign([[3, 4]])
    assert v.numpy().tolist() == [[3, 4]]
    assert v.version is not before
    assert np.array_equal(np.asarray(v), [[3, 4]])
    assert np.asarray(v, "float64").dtype == "float64"
    assert np.sum(v) == 7
    assert v[0, 1] == 4
    assert len(v) == 1
    assert "w:0" in repr(v)
    v.grad = [[1, 2]]
    assert v.grad.dtype == "float32"
    v.grad = None


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_variable_adds_and_subtracts(name):
    v = layers.Variable([1.0, 2.0], "w:0", name)
    seen, before = v.value, v.version
    v.assign_add(np.array([0.5, 1e-3]))
    expected = np.array([1.0, 2.0], name) + np.array([0.5, 1e-3]).astype(name)
    assert (v.dtype, v.numpy().tolist()) == (name, expected.tolist())
    assert v.version is not before, "layers know of it"
    assert seen.tolist() == [1, 2], "what was taken earlier holds what it held"
    v.assign_sub([1, 2])
    assert v.numpy().tolist() == (expected - np.array([1, 2], name)).tolist()
    with pytest.raises(ValueError, match="read-only"):
        v.value[0] = 1


def test_what_becomes_too_large_is_infinite():
    v = layers.Variable(np.array([3e38, -3e38], "float32"), "w:0")
    with np.errstate(all="raise"):
        v.assign_add([3e38, 1e300])
    assert v.numpy().tolist() == [np.inf, np.inf]


@pytest.mark.parametrize("method", ["assign_add", "assign_sub"])
@pytest.mark.parametrize(
    ("wrong", "error"), [(1.0, ValueError), ([1.0], ValueError), (["a", "b"], TypeError), (None, TypeError)]
)
def test_wrong_deltas(method, wrong, error):
    v = layers.Variable([1.0, 2.0], "w:0")
    before = v.version
    with pytest.raises(error, match="delta of w:0"):
        getattr(v, method)(wrong)
    assert v.numpy().tolist() == [1, 2]
    assert v.version is before


def test_weights_by_keras_other_names():
    layer = layers.Dense(2, input_shape=(3,))
    layer.build((None, 3))
    model = layers.Sequential([layers.Flatten(input_shape=(3,)), layer])
    for found in (layer, model):
        assert found.variables == found.weights == found.trainable_variables == [layer.kernel, layer.bias]
        found.trainable = False
        assert (found.trainable_variables, found.non_trainable_variables) == ([], [layer.kernel, layer.bias])
        found.trainable = True


def test_values_cannot_be_written_to():
    source = np.zeros(3)
    v = layers.Variable(source, "w:0")
    source[:] = 1
    assert not v.value.any()
    for view in (v.value, np.asarray(v), v[:2]):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            view.setflags(write=True)
    copy = v.numpy()
    copy[:] = 1
    assert not v.value.any()
    before = v.value
    v.assign(copy)
    copy[:] = 2
    assert v.value.tolist() == [1, 1, 1]
    assert not before.any()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ([1.0, 2.0], ValueError),
        (["a", "b", "c"], TypeError),
        ([1j, 0, 0], TypeError),
        (np.array([1, 2, 3], object), TypeError),
        (np.zeros(3, [("a", "f4")]), TypeError),
        ([[1.0], [1.0, 2.0]], ValueError),
        (None, TypeError),
    ],
)
def test_wrong_values(wrong, error):
    v = layers.Variable([1.0, 2.0, 3.0], "w:0")
    before = v.version
    with pytest.raises(error, match="value of w:0"):
        v.assign(wrong)
    assert v.numpy().tolist() == [1, 2, 3]
    assert v.version is before
    v.grad = [1, 2, 3]
    if wrong is not None:
        with pytest.raises(error, match="grad of w:0"):
            v.grad = wrong
    assert v.grad.tolist() == [1, 2, 3]


# --- weights ----------------------------------------------------------------------------------------------------------


def test_weights():
    layer = built(name="local")
    assert [(v.name, v.shape) for v in layer.weights] == [("local/kernel:0", (4, 6, 2)), ("local/bias:0", (4, 2))]
    assert layer.weights == layer.trainable_weights == [layer.kernel, layer.bias]
    assert layer.count_params() == 56
    layer.trainable = False
    assert layer.trainable_weights == []
    assert layer.weights == layer.non_trainable_weights == [layer.kernel, layer.bias]
    with pytest.raises(ValueError, match="You tried to call `count_params` on layer c, but the layer isn't built"):
        layers.Conv1D(2, 3, name="c").count_params()


def test_set_weights():
    layer = built(name="c")
    before = layer.get_weights()
    with pytest.raises(
        ValueError,
        match=r'`set_weights\(weights\)` on layer "c" with a weight list of length 1, .* expecting 2 weights',
    ):
        layer.set_weights(before[:1])
    with pytest.raises(
        ValueError, match=r"Layer c weight shape \(4, 2\) is not compatible with provided weight shape \(2,\)"
    ):
        layer.set_weights([before[0] * 2, np.zeros(2)])
    with pytest.raises(TypeError, match="c/bias:0"):
        layer.set_weights([before[0] * 2, before[1].astype(complex)])
    assert np.array_equal(layer.kernel.value, before[0])
    layer.get_weights()[0][:] = 0
    assert layer.kernel.value.any()


def test_build_once():
    layer = built()
    kernel = layer.kernel
    layer.build((5, 6, 2))
    assert layer.kernel is kernel
    assert layer.input_shape == (None, 6, 2)
    assert layer.output_shape == (None, 4, 2)
    with pytest.raises(ValueError, match="expected axis 1"):
        layer.build((None, 7, 2))
    with pytest.raises(
        AttributeError, match='The layer "c" has never been called and thus has no defined output shape'
    ):
        layers.Conv1D(2, 3, name="c").output_shape  # noqa: B018
    with pytest.raises(AttributeError, match="input shape"):
        layers.Conv1D(2, 3).input_shape  # noqa: B018


def test_seed():
    def weights(**arguments):
        return layers.LocallyConnected1D(2, 3, input_shape=(6, 2), bias_initializer="random_normal", **arguments)

    a, b, c, d = weights(seed=1), weights(seed=1), weights(seed=2), weights()
    for layer in (a, b, c, d):
        layer.build((None, 6, 2))
    assert all(np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True))
    assert not np.array_equal(a.get_weights()[0], c.get_weights()[0])
    assert not np.array_equal(weights().get_config(), a.get_config())
    assert not np.array_equal(np.sort(a.kernel.value.ravel())[:8], np.sort(a.bias.value.ravel()))


def test_losses():
    layer = built(
        kernel_regularizer="l2",
        bias_regularizer="l1",
        activity_regularizer=layers.regularizers.L2(0.5),
        bias_initializer="ones",
    )
    assert len(layer.losses) == 2, "there is no output yet"
    x = np.random.default_rng(0).normal(size=(3, 6, 2)).astype("float32")
    y = layer(x)
    expected = [0.5 * np.square(y).sum() / 3, 0.01 * np.square(layer.kernel.value).sum(), 0.01 * layer.bias.size]
    np.testing.assert_allclose(layer.losses, expected, rtol=1e-5)
    assert layers.Conv1D(2, 3).losses == []


def test_users_layer():
    class Scale(layers.Layer):
        def _build(self, shape):
            self.scale = self.add_weight("scale", shape[-1:], "ones")
            self.shift = self.add_weight("shift", (), "zeros", trainable=False)

        def _forward(self, x, training):
            return x * self.scale.value + self.shift.value, x

        def _backward(self, grad_output, saved):
            self.scale.grad = (grad_output * saved).sum(tuple(range(saved.ndim - 1)))
            return grad_output * self.scale.value

    layers.clear_session()
    layer = Scale()
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(layer(x, training=True), x)
    assert layer.backward(x).shape == (2, 3)
    assert layer.scale.grad.tolist() == [2, 2, 2]
    assert layer.name == "scale"
    assert layer.compute_output_shape((None, 3)) == (None, 3)
    assert layer.trainable_weights == [layer.scale]
    model = layers.Sequential([Scale(input_shape=(3,)), layers.Dense(2)])
    again = layers.Sequential.from_json(model.to_json(), custom_objects={"Scale": Scale})
    assert type(again.layers[0]) is Scale
    with pytest.raises(ValueError, match="Unknown layer: 'Scale'"):
        layers.Sequential.from_json(model.to_json())


def test_copies_and_pickles():
    model = layers.Sequential(
        [
            built(activation="relu", kernel_regularizer="l2"),
            layers.Conv1D(2, 2, activation=layers.activations.get({"class_name": "elu", "config": {"alpha": 0.5}})),
        ]
    )
    x = np.random.default_rng(0).normal(size=(2, 6, 2)).astype("float32")
    y = model(x)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(again(x), y)
        assert again.layers[0].activation is layers.activations.relu
        assert again.layers[1].activation == model.layers[1].activation
        again.layers[0].kernel.assign(again.layers[0].kernel.value * 2)
        with pytest.raises(ValueError, match="read-only"):
            again.layers[1].kernel.value[:] = 0
        assert not np.array_equal(again(x), y)
        np.testing.assert_array_equal(model(x), y)


# --- names ------------------------------------------------------------------------------------------------------------


def test_automatic_names():
    layers.clear_session()
    assert [layers.Conv1D(1, 1).name for _ in range(3)] == ["conv1d", "conv1d_1", "conv1d_2"]
    assert layers.Conv1D(1, 1, name="conv1d_7").name == "conv1d_7"
    assert layers.Convolution1D(1, 1).name == "conv1d_3"
    assert layers.LocallyConnected2D(1, 1).name == "locally_connected2d"
    assert layers.MaxPooling2D().name == "max_pooling2d"
    assert layers.LocallyConnected3D(1, 1).name == "locally_connected3d"
    assert layers.Convolution3D(1, 1).name == "conv3d"
    assert layers.MaxPooling3D().name == "max_pooling3d"
    layers.clear_session()
    assert layers.Conv1D(1, 1).name == "conv1d"


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("LocallyConnected1D", "locally_connected1d"),
        ("Conv2DTranspose", "conv2d_transpose"),
        ("MyLSTMCell", "my_lstm_cell"),
        ("Dense", "dense"),
        ("HTTPLayer2", "http_layer2"),
    ],
)
def test_snake_case(name, snake):
    assert layers.naming.snake_case(name) == snake


# --- configs ----------------------------------------------------------------------------------------------------------


EVERYTHING = {
    "filters": 4,
    "kernel_size": (2,),
    "strides": (2,),
    "padding": "same",
    "data_format": "channels_first",
    "activation": {"class_name": "leaky_relu", "config": {"alpha": 0.1}},
    "use_bias": True,
    "kernel_initializer": layers.initializers.VarianceScaling(2.0, "fan_out", "UNIFORM", 3, "position"),
    "bias_initializer": layers.initializers.Constant([1.0, 2.0, 3.0, 4.0]),
    "kernel_regularizer": layers.regularizers.L1L2(0.1, 0.2),
    "bias_regularizer": {"class_name": "L1", "config": {"l1": 0.3}},
    "activity_regularizer": "l2",
    "kernel_constraint": layers.constraints.MinMaxNorm(0.1, 2, 0.5, [0, 1]),
    "bias_constraint": "non_neg",
    "name": "all",
    "trainable": False,
    "dtype": "float64",
    "input_shape": (2, 6),
    "seed": 5,
}


@pytest.mark.parametrize("maker", [layers.LocallyConnected1D, layers.Conv1D])
def test_config_of_everything(maker):
    more = {"implementation": 3} if maker is layers.LocallyConnected1D else {"groups": 2, "dilation_rate": 1}
    layer = maker(**EVERYTHING, **more)
    config = layer.get_config()
    assert set(config) == (
        set(EVERYTHING) | set(more) | {"batch_input_shape"} | ({"dilation_rate"} if "groups" in more else set())
    ) - {"input_shape"}
    again = maker.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    for name in (
        "kernel_initializer",
        "bias_initializer",
        "kernel_regularizer",
        "bias_regularizer",
        "activity_regularizer",
        "kernel_constraint",
        "bias_constraint",
    ):
        assert getattr(again, name) == getattr(layer, name)
    layer.build((None, 2, 6))
    again.build((None, 2, 6))
    assert all(np.array_equal(a, b) for a, b in zip(again.get_weights(), layer.get_weights(), strict=True))


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dense(3, "relu"),
        layers.Flatten("channels_first"),
        layers.Activation("mish", activity_regularizer="l1"),
        layers.Dropout(0.3, (None, 1), seed=3),
        layers.MaxPooling1D(3, 2),
        layers.MaxPooling2D((2, 3), padding="same"),
        layers.Conv2D(4, 3, groups=2),
        layers.LocallyConnected2D(2, 3, implementation=2),
        layers.MaxPooling3D((1, 2, 3), (1, 2, 1), "same", "channels_first"),
        layers.Conv3D(4, (1, 2, 3), (1, 1, 2), groups=2),
        layers.LocallyConnected3D(2, 3, implementation=3),
    ],
    ids=lambda layer: layer.name,
)
def test_config_round_trip(layer):
    config = layer.get_config()
    assert type(layer).from_config(json.loads(json.dumps(config))).get_config() == config


def double(x):
    return 2 * x


class Ternary(layers.initializers.Initializer):
    def _values(self, shape, rng):
        return rng.integers(-1, 2, shape)


def test_custom_objects():
    layer = layers.Conv1D(
        2, 3, activation=double, kernel_initializer=Ternary(), kernel_regularizer=double, bias_constraint=double
    )
    config = json.loads(json.dumps(layer.get_config()))
    with pytest.raises(ValueError, match="custom_object"):
        layers.Conv1D.from_config(config)
    with layers.custom_object_scope({"double": double, "Ternary": Ternary}):
        again = layers.Conv1D.from_config(config)
    assert (again.activation, again.kernel_regularizer, again.bias_constraint) == (double, double, double)
    assert again.kernel_initializer == Ternary()
    assert set(np.unique(again(np.ones((1, 5, 2))) * 0 + again.kernel.value.max())) <= {0, 1}
    with pytest.raises(TypeError, match="objects must be a mapping"), layers.custom_object_scope([double]):
        pass


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            "regularizers",
            ["l1", "L1", "l2", "L2", "l1_l2", "L1L2", "orthogonal_regularizer", "OrthogonalRegularizer", "orthogonal"],
        ),
        (
            "constraints",
            [
                "max_norm",
                "maxnorm",
                "MaxNorm",
                "non_neg",
                "nonneg",
                "NonNeg",
                "unit_norm",
                "UnitNorm",
                "min_max_norm",
                "MinMaxNorm",
            ],
        ),
        (
            "initializers",
            [
                "zeros",
                "Zeros",
                "ones",
                "constant",
                "Constant",
                "random_normal",
                "RandomNormal",
                "random_uniform",
                "uniform",
                "normal",
                "truncated_normal",
                "variance_scaling",
                "glorot_uniform",
                "GlorotUniform",
                "glorot_normal",
                "he_uniform",
                "he_normal",
                "lecun_uniform",
                "lecun_normal",
                "orthogonal",
                "identity",
            ],
        ),
    ],
)
def test_names_of_keras(module, names):
    module = getattr(layers, module)
    for name in names:
        found = module.get(name)
        config = json.loads(json.dumps(module.serialize(found)))
        assert module.get(config) == found
        assert module.get({"class_name": config["class_name"], "config": config["config"]}) == found, (
            "as older files have it"
        )
        assert module.get(type(found)) == type(found)()
        assert repr(found).startswith(type(found).__name__)
    assert module.get(None) is None
    assert module.serialize(None) is None
    assert module.get(double) is double


def test_defaults_by_name():
    """As in Keras, where the name l1_l2 and the class L1L2 differ."""
    assert layers.regularizers.get("l1_l2").get_config() == {"l1": 0.01, "l2": 0.01}
    assert layers.regularizers.get("L1L2").get_config() == {"l1": 0.0, "l2": 0.0}
    assert layers.regularizers.L1(None).l1 == 0.01


@pytest.mark.parametrize(
    "call",
    [
        lambda: layers.regularizers.L2(np.nan),
        lambda: layers.regularizers.L1("a"),
        lambda: layers.regularizers.OrthogonalRegularizer(mode="x"),
        lambda: layers.regularizers.OrthogonalRegularizer()(np.ones(3)),
        lambda: layers.constraints.MaxNorm(-1),
        lambda: layers.constraints.MinMaxNorm(2, 1),
        lambda: layers.activations.get({"class_name": 3}),
        lambda: layers.regularizers.get({"class_name": "L2", "config": 3}),
    ],
)
def test_values_refused(call):
    with pytest.raises(ValueError):  # noqa: PT011  # many messages
        call()


def test_activation_identifiers():
    activations = layers.activations
    assert activations.get(None) is activations.linear
    assert activations.get(double) is double
    assert activations.get("silu") is activations.get("swish")
    assert activations.serialize(activations.silu) == "swish"
    assert activations.serialize(None) is None
    assert activations.get({"class_name": "function", "config": "relu"}) is activations.relu
    assert activations.get({"class_name": "LeakyReLU", "config": {"name": "x", "dtype": "float32", "trainable": True}})(
        np.array([-1.0])
    ) == [-0.3]
    assert activations.serialize(double) == {
        "module": "builtins",
        "class_name": "function",
        "config": "double",
        "registered_name": "function",
    }
    assert activations.relu.with_parameters(alpha=1.0) != activations.relu
    assert len({activations.relu, activations.get("relu")}) == 1


@pytest.mark.parametrize("name", layers.keras_objects.activations.REGISTRY.names())
def test_activations_of_extreme_values(name):
    """No warning (they are errors here), no NaN but for softmax of inf, and the dtype stays."""
    x = np.array([[-3e38, -1e4, -90, 0, 90, 1e4, 3e38]], np.float32)
    activation = layers.activations.get(name)
    y = activation(x)
    assert y.dtype == x.dtype
    assert not np.isnan(y).any()
    assert activation.gradient(np.ones_like(x), x, y).dtype == x.dtype
    assert activation(np.zeros((0, 3), np.float32)).shape == (0, 3)
    with pytest.raises(TypeError):
        activation(np.arange(3).reshape(1, 3))


def test_gelu_in_the_tail():
    """To full relative precision, against the asymptotic value."""
    x = np.array([[-30.0, -10.0]])
    expected = -np.exp(-x * x / 2) / np.sqrt(2 * np.pi) * (1 - 1 / x**2 + 3 / x**4 - 15 / x**6 + 105 / x**8)
    np.testing.assert_allclose(layers.activations.gelu(x), expected, rtol=1e-5)


# --- odds and ends ----------------------------------------------------------------------------------------------------


def test_equal_configs_are_equal_and_hash_alike():
    for make in (
        lambda: layers.initializers.HeNormal(seed=1),
        lambda: layers.regularizers.L2(0.5),
        lambda: layers.constraints.MaxNorm(3),
        lambda: layers.activations.get("elu"),
    ):
        assert make() == make()
        assert hash(make()) == hash(make())
    assert layers.initializers.HeNormal(seed=1) != layers.initializers.HeNormal(seed=2)


def test_texts():
    assert repr(layers.Flatten(name="f")) == "<Flatten 'f', not built>"
    assert repr(layers.activations.get("relu")) == "<activation relu>"
    assert repr(layers.Variable([1.0], "v:0", "float32")) == "<Variable 'v:0' shape=(1,) dtype=float32 trainable=True>"


def times_two(x):
    return 2 * x


def two(grad_output, x, y):
    return 2 * grad_output


def test_pickled_activation_of_ones_own():
    again = pickle.loads(pickle.dumps(layers.ActivationFunction(times_two, two, {})))
    np.testing.assert_array_equal(again(np.ones(2)), 2 * np.ones(2))


class Shifted:
    """A user's activation with a config."""

    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return x + np.float32(self.by)

    def get_config(self):
        return {"by": self.by}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def test_users_activation_with_a_config():
    config = layers.Activation(Shifted(3)).get_config()
    with layers.custom_object_scope({"Shifted": Shifted}):
        again = layers.Activation.from_config(config)
    np.testing.assert_array_equal(again(np.zeros((1, 2), np.float32)), [[3, 3]])


def test_array_of_a_variable():
    variable = layers.Variable([1.0, 2.0], "v:0", "float32")
    assert np.asarray(variable, np.float64).dtype == np.float64
    assert np.shares_memory(np.asarray(variable), variable.value)
    assert not np.shares_memory(np.array(variable), variable.value)
    with pytest.raises(ValueError, match="without a copy"):
        variable.__array__(np.float64, copy=False)


class WrongShape:
    def __call__(self, x):
        return float(np.sum(x))

    def gradient(self, x):
        return np.ones(3)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "name must be a string, got 3", lambda: layers.Variable([1.0], 3)),
        (TypeError, "real numbers, got dtype complex128", lambda: layers.Variable([1j], "v:0")),
        (
            TypeError,
            r"got dtype object: value.astype\(np.float32\) is one",
            lambda: layers.Variable(np.ones(2, object), "v:0"),
        ),
        (TypeError, "got a masked array: a mask has no meaning", lambda: layers.Variable(np.ma.ones(2), "v:0")),
        (TypeError, "got a masked array: a mask", lambda: layers.Variable([1.0], "v:0").assign(np.ma.ones(1))),
        (TypeError, "axis must be an int or a sequence of ints, got 'x'", lambda: layers.constraints.MaxNorm(axis="x")),
        (ValueError, "filters.*at most", lambda: layers.Conv1D(2**63, 3)),
        (ValueError, "kernel_size.*above", lambda: layers.Conv1D(2, 2**63)),
        (
            TypeError,
            r"input_shape must be a tuple of ints and None, got \(2.5,\)",
            lambda: layers.Flatten(input_shape=(2.5,)),
        ),
        (TypeError, "shape must be a sequence of ints", lambda: layers.initializers.Zeros()((2.5,))),
        (
            ValueError,
            "must name a layer",
            lambda: layers.Sequential.from_config(
                {"name": "m", "layers": [{"class_name": "Odd", "config": {}}]}, {"Odd": lambda **_: 3}
            ),
        ),
    ],
)
def test_refused(error, match, call):
    with pytest.raises(error, match=match):
        call()


def test_regularizer_whose_gradient_has_another_shape():
    layer = built(kernel_regularizer=WrongShape())
    x = np.ones((1, 6, 2), np.float32)
    y = layer(x, training=True)
    with pytest.raises(ValueError, match="must have the shape of x"):
        layer.backward(y)


def test_initializer_of_another_shape():
    with pytest.raises(ValueError, match="must return an array of shape"):
        built(kernel_initializer=lambda shape, dtype: np.ones(3, dtype))
    assert (built(kernel_initializer=np.ones).kernel.value == 1).all()


def test_input_layer_hands_through():
    layer = layers.InputLayer(input_shape=(2,))
    x = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(layer(x, training=True), x)
    np.testing.assert_array_equal(layer.backward(x), x)


@pytest.mark.parametrize(
    ("line_length", "positions"), [(8, None), (65, [0.5]), (65, [0.2, 0.1, 1.0]), (65, "abc"), (10**9, None)]
)
def test_summary_without_room(line_length, positions):
    model = layers.Sequential([layers.Flatten(input_shape=(2, 3))])
    with pytest.raises(ValueError, match=r"positions|line_length"):
        model.summary(line_length=line_length, positions=positions, print_fn=print)


def test_first_keras_2_configs_list_the_layers():
    model = layers.Sequential([layers.Flatten(input_shape=(2, 3))])
    old = {"class_name": "Sequential", "config": json.loads(model.to_json())["config"]["layers"]}
    assert [type(layer) for layer in layers.Sequential.from_json(json.dumps(old)).layers] == [layers.Flatten]


def test_relu_and_bias_by_columns():
    layer = layers.Conv2D(3, 2, activation="relu", bias_initializer="ones", input_shape=(4, 5, 2))
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 2)).astype(np.float32)
    direct = layer(x)
    with settings.forced(settings.COLUMNS):
        np.testing.assert_allclose(layer(x), direct, rtol=1e-5, atol=1e-6)
    assert (direct == 0).any()


def test_models_not_built():
    for model in (layers.Sequential(name="empty"), layers.Sequential([layers.Flatten()], name="unbuilt")):
        again = layers.Sequential.from_config(json.loads(json.dumps(model.get_config())))
        assert again.get_config() == model.get_config()
    lines = []
    empty = layers.Sequential(name="empty")
    empty.build((None, 2))
    empty.summary(print_fn=lines.append)
    assert lines[0] == 'Model: "empty"'
