"""Backward against central differences in float64, and what training needs besides."""

import copy
import pickle
import threading

import numpy as np
import pytest
from layer_cases import away_from, central_differences, differentiable, whatever_errstate

from localconv import layers
from localconv.layers import constraints, regularizers

FORMATS = ("channels_last", "channels_first")
ACTIVATIONS = [
    "linear",
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "sigmoid",
    "hard_sigmoid",
    "tanh",
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "silu",
    "exponential",
    "mish",
    {"class_name": "relu", "config": {"alpha": 0.1, "max_value": 1.5, "threshold": 0.3}},
    {"class_name": "gelu", "config": {"approximate": True}},
    {"class_name": "elu", "config": {"alpha": 0.4}},
    {"class_name": "leaky_relu", "config": {"alpha": 0.05}},
    {"class_name": "softmax", "config": {"axis": 1}},
]
KINKS = (0, 0.3, 1.5, 6, -2.5, 2.5)
REGULARIZERS = ["l1", "l2", "l1_l2", {"class_name": "L1L2", "config": {"l1": 0.3, "l2": 0.2}}]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activations(activation):
    rng = np.random.default_rng(1)
    function = layers.activations.get(activation)
    x = away_from(rng.normal(scale=3, size=(3, 5)), *KINKS)
    g = rng.normal(size=x.shape)
    expected = central_differences(lambda at: (function(at) * g).sum(), x)
    np.testing.assert_allclose(function.gradient(g, x, function(x)), expected, rtol=1e-6, atol=1e-8)
    differentiable(layers.Activation(activation, dtype="float64"), (2, 4))


@pytest.mark.parametrize(
    "regularizer",
    [
        *REGULARIZERS,
        "orthogonal_regularizer",
        {"class_name": "OrthogonalRegularizer", "config": {"factor": 0.7, "mode": "columns"}},
    ],
    ids=str,
)
def test_regularizers(regularizer):
    function = layers.regularizers.get(regularizer)
    x = away_from(np.random.default_rng(2).normal(size=(4, 3)), 0)
    np.testing.assert_allclose(function.gradient(x), central_differences(function, x), rtol=1e-6, atol=1e-9)
    differentiable(layers.Dense(3, kernel_regularizer=regularizer, dtype="float64"), (2, 4))


def test_orthogonal_regularizer_of_zeros_and_of_one_row():
    regularizer = layers.regularizers.OrthogonalRegularizer()
    assert np.isfinite(regularizer.gradient(np.zeros((3, 2)))).all()
    assert regularizer(np.ones((1, 5))) == 0
    assert not regularizer.gradient(np.ones((1, 5))).any()


@pytest.mark.parametrize("implementation", [1, 2, 3])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("data_format", FORMATS)
def test_locally_connected(implementation, padding, data_format):
    common = {
        "implementation": implementation,
        "padding": padding,
        "data_format": data_format,
        "dtype": "float64",
        "activation": "tanh",
        "kernel_regularizer": "l2",
        "bias_regularizer": "l1",
        "activity_regularizer": "l2",
    }
    differentiable(
        layers.LocallyConnected1D(2, 3, 2, **common), (2, 3, 6) if data_format == "channels_first" else (2, 6, 3)
    )
    differentiable(
        layers.LocallyConnected2D(2, (2, 3), (2, 1), **common),
        (2, 2, 4, 3) if data_format == FORMATS[1] else (2, 4, 3, 2),
    )
    differentiable(
        layers.LocallyConnected3D(2, (2, 1, 3), (1, 2, 1), **common),
        (1, 2, 3, 2, 3) if data_format == FORMATS[1] else (1, 3, 2, 3, 2),
    )


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(
    "arguments",
    [{}, {"padding": "same", "strides": 2}, {"dilation_rate": 2}, {"groups": 2}, {"use_bias": False}],
    ids=str,
)
def test_convolutions(arguments, data_format):
    common = {
        "data_format": data_format,
        "dtype": "float64",
        "activation": "softplus",
        "kernel_regularizer": "l2",
        "activity_regularizer": "l1",
        **arguments,
    }
    first = data_format == "channels_first"
    differentiable(layers.Conv1D(4, 3, **common), (2, 2, 7) if first else (2, 7, 2))
    differentiable(layers.Conv1D(4, 3, **common), (2, 2, 2, 5) if first else (2, 2, 5, 2))  # two batch axes
    differentiable(layers.Conv2D(2, (2, 3), **common), (2, 2, 4, 5) if first else (2, 4, 5, 2))
    differentiable(layers.Conv3D(2, (1, 2, 3), **common), (1, 2, 2, 3, 5) if first else (1, 2, 3, 5, 2))


def test_causal():
    differentiable(layers.Conv1D(2, 3, padding="causal", dilation_rate=2, dtype="float64"), (2, 7, 2))


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dense(3, "sigmoid", bias_regularizer="l2", dtype="float64"),
        layers.Flatten(dtype="float64"),
        layers.Flatten("channels_first", dtype="float64"),
        layers.MaxPooling2D(3, 2, "same", dtype="float64"),
        layers.MaxPooling2D((2, 3), (1, 2), data_format="channels_first", dtype="float64"),
        layers.Dropout(0.0, dtype="float64"),
    ],
    ids=lambda layer: layer.name,
)
def test_layers_around(layer):
    differentiable(layer, (2, 4, 6, 4))


def test_max_pooling_1d():
    differentiable(layers.MaxPooling1D(3, 1, "same", dtype="float64"), (2, 6, 2))


@pytest.mark.parametrize(
    "layer",
    [
        layers.MaxPooling3D((2, 3, 1), 2, "same", dtype="float64"),
        layers.MaxPooling3D(2, (1, 2, 1), data_format="channels_first", dtype="float64"),
        layers.Flatten("channels_first", dtype="float64"),
        layers.Activation("softmax", dtype="float64"),
        layers.Dense(2, dtype="float64"),
    ],
    ids=lambda layer: layer.name,
)
def test_layers_around_in_3d(layer):
    differentiable(layer, (2, 3, 4, 3, 2))


def test_sequential():
    model = layers.Sequential(
        [
            layers.LocallyConnected1D(
                2, 3, implementation=3, activation="elu", dtype="float64", kernel_regularizer="l2", input_shape=(8, 2)
            ),
            layers.Sequential(
                [layers.Conv1D(3, 2, padding="causal", dtype="float64", activity_regularizer="l2")], dtype="float64"
            ),
            layers.Flatten(dtype="float64"),
            layers.Dense(2, "softmax", dtype="float64"),
        ],
        dtype="float64",
    )
    differentiable(model, (2, 8, 2))


def test_layer_by_layer_is_the_same():
    model = layers.Sequential(
        [layers.Conv1D(3, 3, activation="relu", input_shape=(8, 2)), layers.LocallyConnected1D(2, 2)]
    )
    x = np.random.default_rng(0).normal(size=(3, 8, 2)).astype("float32")
    y = model(x, training=True)
    dx = model.backward(y)
    gradients = [variable.grad for variable in model.weights]
    first, second = model.layers
    second(first(x, training=True), training=True)
    np.testing.assert_array_equal(first.backward(second.backward(y)), dx)
    for variable, gradient in zip(model.weights, gradients, strict=True):
        np.testing.assert_array_equal(variable.grad, gradient)


def test_what_the_caller_does_to_the_output_does_not_reach_backward():
    """The usual lines for softmax and cross-entropy change the output in place."""
    for model in (
        layers.Dense(3, "sigmoid"),
        layers.Sequential([layers.Dense(3, "sigmoid", input_shape=(4,))]),
        layers.Dense(3, "relu"),
        layers.Dense(3, "relu", activity_regularizer="l2"),
    ):
        x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
        y = model(x, training=True)
        expected = model.backward(np.ones_like(y))
        y = model(x, training=True)
        y -= 100
        np.testing.assert_array_equal(model.backward(np.ones_like(y)), expected)


def test_weights_assigned_between_the_passes():
    """backward is that of the call before it, whatever has been assigned since."""
    for implementation in (1, 2, 3):
        layer = layers.LocallyConnected1D(2, 3, implementation=implementation, seed=1)
        x = np.random.default_rng(0).normal(size=(2, 6, 2)).astype("float32")
        y = layer(x, training=True)
        expected = layer.backward(y)
        layer(x, training=True)
        layer.set_weights([w * 0 for w in layer.get_weights()])
        np.testing.assert_array_equal(layer.backward(y), expected)


def test_prediction_between_the_passes():
    layer = layers.Conv1D(2, 3, seed=1)
    x = np.random.default_rng(0).normal(size=(2, 6, 2)).astype("float32")
    y = layer(x, training=True)
    expected = layer.backward(y)
    layer(x, training=True)
    layer(x[:1] * 5)
    np.testing.assert_array_equal(layer.backward(y), expected)


def test_layers_that_are_not_trained():
    model = layers.Sequential(
        [layers.Conv1D(2, 3, trainable=False, input_shape=(6, 2)), layers.LocallyConnected1D(2, 2)]
    )
    model.layers[1].bias.trainable = False
    y = model(np.ones((2, 6, 2), np.float32), training=True)
    assert model.backward(y).shape == (2, 6, 2)
    kernel, bias = model.layers[1].kernel, model.layers[1].bias
    assert kernel.grad is not None
    assert bias.grad is None
    assert all(variable.grad is None for variable in model.layers[0].weights)
    assert len(model.trainable_weights) == 1


def test_empty_batch():
    for layer in (
        layers.LocallyConnected1D(2, 3, activity_regularizer="l2"),
        layers.Conv1D(2, 3, activation="softmax"),
        layers.Dense(3),
        layers.MaxPooling1D(),
    ):
        y = layer(np.zeros((0, 6, 2), np.float32), training=True)
        assert layer.backward(y).shape == (0, 6, 2)
        for variable in layer.weights:
            assert not variable.grad.any()
        assert all(np.isfinite(loss) for loss in layer.losses)


def test_backward_without_a_training_call():
    layer = layers.Conv1D(2, 3, name="c")
    with pytest.raises(RuntimeError, match="backward of layer c needs a call with training=True"):
        layer.backward(np.zeros((2, 4, 2)))
    layer(np.ones((2, 6, 2), np.float32))
    with pytest.raises(RuntimeError, match="training=True"):
        layer.backward(np.zeros((2, 4, 2)))


def test_wrong_gradients_are_refused():
    layer = layers.Conv1D(2, 3)
    layer(np.ones((2, 6, 2), np.float32), training=True)
    with pytest.raises(ValueError, match=r"grad_output must have the shape .*\(2, 4, 2\), got \(2, 4, 3\)"):
        layer.backward(np.zeros((2, 4, 3)))
    with pytest.raises(TypeError, match="grad_output"):
        layer.backward(np.zeros((2, 4, 2), int))


def cube(x):
    return x**3


def test_users_activation_without_a_derivative():
    layer = layers.Conv1D(2, 3, activation=cube)
    y = layer(np.ones((2, 6, 2), np.float32), training=True)
    with pytest.raises(NotImplementedError, match=r"cube has no attribute gradient\(grad_output, x, y\)"):
        layer.backward(y)


def test_users_activation_with_one():
    activation = layers.ActivationFunction(cube, lambda grad_output, x, y: grad_output * 3 * x**2)
    differentiable(layers.LocallyConnected1D(2, 3, activation=activation, dtype="float64"), (2, 5, 2))


def test_users_regularizer():
    layer = layers.Conv1D(2, 3, kernel_regularizer=lambda w: (w**4).sum())
    y = layer(np.ones((2, 6, 2), np.float32), training=True)
    assert len(layer.losses) == 1
    with pytest.raises(NotImplementedError, match=r"has no method gradient\(x\)"):
        layer.backward(y)

    class Quartic(layers.regularizers.Regularizer):
        def __call__(self, x):
            return (x**4).sum()

        def gradient(self, x):
            return 4 * x**3

    differentiable(layers.Conv1D(2, 3, kernel_regularizer=Quartic(), dtype="float64"), (2, 6, 2))


def test_gradients_of_users_must_fit():
    activation = layers.ActivationFunction(cube, lambda grad_output, x, y: grad_output[0])
    layer = layers.Conv1D(2, 3, activation=activation)
    y = layer(np.ones((2, 6, 2), np.float32), training=True)
    with pytest.raises(ValueError, match="the gradient of the activation cube must have the shape of x"):
        layer.backward(y)


def test_constraints_after_an_update():
    layer = layers.LocallyConnected1D(3, 2, kernel_constraint="non_neg", bias_constraint=lambda b: b * 0 + 2)
    layer.build((None, 5, 2))
    layer.kernel.assign(layer.kernel.value - 0.1)
    layer.apply_constraints()
    assert layer.kernel.value.min() == 0
    assert (layer.bias.value == 2).all()
    layer.trainable = False
    layer.kernel.assign(layer.kernel.value - 1)
    layer.apply_constraints()
    assert layer.kernel.value.min() == -1
    model = layers.Sequential([layer])
    model.trainable = True
    model.apply_constraints()
    assert layer.kernel.value.min() == 0


EXTREMES = [0, 1, -1, 1e-3, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-45, 1e-40, 1e-38, 1e19, 1e308, 5e-324, -1e300]


def extreme(rng, shape, dtype):
    with np.errstate(all="ignore"):
        return rng.choice(EXTREMES, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["l1", "l2", "l1_l2", "orthogonal"])
def test_errstate_changes_nothing_of_penalties(name, dtype):
    regularizer, rng = regularizers.get(name), np.random.default_rng(0)
    for _ in range(20):
        x = extreme(rng, (3, 4), dtype)
        whatever_errstate(lambda x=x: (regularizer(x), regularizer.gradient(x)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["max_norm", "unit_norm", "min_max_norm", "non_neg"])
def test_errstate_changes_nothing_of_constraints(name, dtype):
    constraint, rng = constraints.get(name), np.random.default_rng(0)
    for _ in range(20):
        w = extreme(rng, (3, 4), dtype)
        whatever_errstate(lambda w=w: (constraint(w),))


PLAIN = {"seed": 1}
SHARED_ARGUMENTS = PLAIN | {
    "activation": "tanh",
    "kernel_regularizer": "l1_l2",
    "bias_regularizer": "l2",
    "activity_regularizer": "l1_l2",
    "kernel_constraint": "max_norm",
    "bias_constraint": "unit_norm",
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda **base: layers.LocallyConnected1D(3, 2, **SHARED_ARGUMENTS, **base), (2, 5, 2)),
        (lambda **base: layers.LocallyConnected1D(3, 2, implementation=3, padding="same", **PLAIN, **base), (2, 5, 2)),
        (lambda **base: layers.Conv2D(3, 2, 3, "same", **SHARED_ARGUMENTS, **base), (2, 7, 7, 2)),
        (lambda **base: layers.Dense(3, **SHARED_ARGUMENTS, **base), (2, 5)),
        (lambda **base: layers.Dense(3, **PLAIN, **base), (2, 5)),
        (lambda **base: layers.Dropout(0.5, **PLAIN, **base), (4, 4)),
        (lambda **base: layers.MaxPooling2D(3, 2, "same", **base), (2, 5, 5, 1)),
        (lambda **base: layers.Activation("gelu", activity_regularizer="l2", **base), (3, 4)),
    ],
)
def test_errstate_changes_nothing_of_a_step(make, shape, dtype):
    for number in range(10):

        def compute(number=number):
            rng, layer = np.random.default_rng(number), make(dtype=dtype)
            layer.build((None, *shape[1:]))
            layer.set_weights([extreme(rng, w.shape, dtype) for w in layer.weights])
            y = layer(extreme(rng, shape, dtype), training=True)
            dx = layer.backward(extreme(rng, y.shape, dtype))
            found = [y, *layer.losses, dx, *[variable.grad for variable in layer.trainable_weights]]
            layer.apply_constraints()
            return found + layer.get_weights()

        whatever_errstate(compute)


def test_errstate_changes_nothing_of_what_users_return():
    """Their float64 becomes the layer's float32."""

    def cube(x):
        return x.astype(np.float64) ** 3 * 1e300

    def penalty(x):
        return np.float64(1e300)

    penalty.gradient = lambda x: np.full(x.shape, 1e300)
    activation = layers.ActivationFunction(cube, lambda grad_output, x, y: grad_output * np.float64(1e300))
    plain = layers.ActivationFunction(cube, lambda g, x, y: g)
    plain.gradient = lambda g, x, y: np.full(x.shape, 1e300)
    for found in (activation, plain):

        def compute(found=found):
            layer = layers.Dense(2, found, kernel_regularizer=penalty, activity_regularizer=penalty, seed=1)
            y = layer(np.ones((2, 3), np.float32), training=True)
            return [y, layer.backward(np.ones((2, 2))), layer.kernel.grad]

        y, _, slope = whatever_errstate(compute)
        assert np.isinf(y).all()
        assert np.isinf(slope).any()


def test_max_pooling_with_infinite_gradients():
    """They reach the maximum, and nothing of them any other element."""
    layer = layers.MaxPooling1D(2)
    layer(np.array([1, 2, 4, 3], np.float32).reshape(1, 4, 1), training=True)
    dx = layer.backward(np.array([np.inf, np.nan], np.float32).reshape(1, 2, 1))
    np.testing.assert_array_equal(dx.ravel(), [0, np.inf, np.nan, 0])


def test_dropout():
    x = np.ones((200, 50), np.float32)
    layer = layers.Dropout(0.25, seed=3)
    np.testing.assert_array_equal(layer(x), x)
    y = layer(x, training=True)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.02
    np.testing.assert_array_equal(layer.backward(x), y)
    assert (layer(x, training=True) != y).any()
    np.testing.assert_array_equal(layers.Dropout(0.25, seed=3)(x, training=True), y)
    rows = layers.Dropout(0.5, (None, 1), seed=1)(x, training=True)
    assert (rows == rows[:, :1]).all()
    assert not layers.Dropout(1)(x, training=True).any()


def test_training_learns():
    """Each example is at its own place in the input, which shared weights cannot tell apart."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 6, 1)).astype("float32")
    target = (x[:, :, 0] * np.array([1, -1, 2, 0, 3, -2], "float32"))[:, :, None]
    model = layers.Sequential([layers.LocallyConnected1D(1, 1, input_shape=(6, 1), seed=0)])
    velocity = [0 * w for w in model.get_weights()]
    for _ in range(200):
        error = model(x, training=True) - target
        model.backward(2 * error / len(x))
        for variable, v in zip(model.trainable_weights, velocity, strict=True):
            v *= 0.5
            v -= 0.1 * variable.grad
            variable.assign(variable.value + v)
    assert np.abs(error).max() < 1e-3
    np.testing.assert_allclose(model.layers[0].kernel.value.ravel(), [1, -1, 2, 0, 3, -2], atol=1e-3)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("first", [False, True])
def test_bias_gradient_sums_a_million_terms(first, rank):
    spatial = ((500,), (500, 500), (64, 64, 64))[rank - 1]
    shape = (4, 2, *spatial) if first else (4, *spatial, 2)
    layer = (layers.Conv1D, layers.Conv2D, layers.Conv3D)[rank - 1](1, 1, data_format=FORMATS[first])
    y = layer(np.zeros(shape, np.float32), training=True)
    layer.backward(np.full_like(y, 0.1))
    np.testing.assert_allclose(layer.bias.grad, y.size * float(np.float32(0.1)), rtol=1e-6)


# --- memory of gradients ----------------------------------------------------------------------------------------------

LARGE = {
    "local": lambda: layers.LocallyConnected1D(32, 3, input_shape=(40, 32), kernel_regularizer="l2"),
    "conv": lambda: layers.Conv1D(96, 5, input_shape=(40, 96)),
    "dense": lambda: layers.Dense(300, input_shape=(200,), kernel_regularizer="l2", bias_regularizer="l1"),
    "another dtype": lambda: layers.Dense(300, input_shape=(200,), dtype="float64"),
}


def trained(kind):
    """A layer with a large kernel, whose gradient is another one for every number."""
    layer = LARGE[kind]()
    layer.build(layer._batch_input_shape)
    assert layer.kernel.value.nbytes > layers.memory.LEAST_BYTES
    layer.set_weights([np.random.default_rng(1).standard_normal(w.shape) for w in layer.weights])

    def step(number):
        rng = np.random.default_rng(number)
        y = layer(rng.standard_normal((2, *layer.input_shape[1:])), training=True)
        layer.backward(rng.standard_normal(y.shape))
        return layer.kernel.grad

    return layer, step


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("kind", LARGE)
def test_gradients_that_nobody_kept_give_their_memory(kind):
    layer, step = trained(kind)
    _, fresh = trained(kind)
    places = set()
    for number in range(6):
        found = step(number)
        places.add(address(found))
        assert found.flags.writeable
        assert found.flags.c_contiguous
        assert found.tobytes() == fresh(number).tobytes()
        del found
        if number == 3:
            layer.kernel.grad = layer.kernel.grad * 0.5  # clipped, for instance
    assert len(places) == 1


KEPT = {
    "array": lambda grad: grad,
    "view": lambda grad: grad[..., 1:2],
    "view of a view": lambda grad: grad.reshape(-1)[5:][::2],
    "memoryview": memoryview,
    "flat": lambda grad: grad.flat,
    "array of a memoryview": lambda grad: np.frombuffer(memoryview(grad).cast("B"), np.uint8),
    "matrix": lambda grad: grad.reshape(-1, 4).view(np.matrix),
    "dlpack": lambda grad: np.from_dlpack(grad),
}


@pytest.mark.parametrize("how", KEPT)
@pytest.mark.parametrize("kind", ["local", "dense"])
def test_a_gradient_that_is_kept_keeps_its_values(kind, how):
    """Whatever part of it is kept, and in whatever form; and it is used again when that is over."""
    layer, step = trained(kind)
    kept, places = [], []
    for number in range(4):
        found = step(number)
        kept.append((KEPT[how](found), np.array(KEPT[how](found))))
        del found
        places.append(address(layer.kernel.grad))
    assert len(set(places)) == 4
    for one, values in kept:
        np.testing.assert_array_equal(np.array(one), values)
    del kept, one
    assert address(step(5)) in places


def test_gradients_in_threads_of_one_layer():
    """Each has memory of its own, also while another one's is given back."""
    variable, wrong = layers.Variable(np.zeros(2**16), "v:0"), []

    def work(number):
        for repeat in range(300):
            array = variable.gradient_array()
            array[...] = number + 1000 * repeat
            if (array != number + 1000 * repeat).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_setting_none_gives_the_memory_back():
    layer, step = trained("dense")
    step(0)
    step(1)
    layer.kernel.grad = None
    assert not layer.kernel._gradients._free
    kept = step(2)
    assert kept.any()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
def test_copies_have_memory_of_their_own(duplicate):
    layer, step = trained("dense")
    step(0)
    other, expected = duplicate(layer.kernel), layer.kernel.grad.copy()
    step(1)
    assert other.grad.tobytes() == expected.tobytes()
    array = other.gradient_array()
    array[...] = 7
    assert not (layer.kernel.grad == 7).any()
    assert len(pickle.dumps(layer.kernel)) < 3 * layer.kernel.value.nbytes
