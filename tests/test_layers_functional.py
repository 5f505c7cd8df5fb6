"""conv1d with its store of variables; the names and errors are those that TensorFlow 2.15 answered."""

import inspect

import numpy as np
import pytest

import localconv
from localconv import layers

X = np.random.default_rng(0).normal(size=(2, 8, 3)).astype("float32")


@pytest.fixture(autouse=True)
def empty_store():
    layers.clear_session()
    yield
    layers.clear_session()


def names(variables=None):
    return [variable.name for variable in (layers.global_variables() if variables is None else variables)]


def test_signature():
    expected = ("inputs, filters, kernel_size, strides=1, padding='valid', data_format='channels_last', dilation_rate=1, activation=None, "
                "use_bias=True, kernel_initializer=None, bias_initializer=Zeros(), kernel_regularizer=None, bias_regularizer=None, "
                "activity_regularizer=None, kernel_constraint=None, bias_constraint=None, trainable=True, name=None, reuse=None")
    signature = inspect.signature(layers.conv1d)
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    assert str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty)) == f"({expected})"


def test_variables_by_name():
    y = layers.conv1d(X, 4, 3, activation="relu", name="c")
    kernel, bias = layers.global_variables()
    assert names() == ["c/kernel:0", "c/bias:0"]
    assert (kernel.shape, bias.shape) == ((3, 3, 4), (4,))
    assert not bias.value.any()
    assert kernel.value.any()
    np.testing.assert_array_equal(y, np.maximum(localconv.conv1d(X, kernel.value), 0))


def test_same_as_tensorflow():
    """The sequence of calls that was run with tf.compat.v1.layers."""
    layers.conv1d(X, 4, 3)
    layers.conv1d(X, 4, 3)
    layers.conv1d(X, 4, 3, name="c")
    with pytest.raises(ValueError, match=r"Variable c/kernel already exists, disallowed. Did you mean to set reuse=True"):
        layers.conv1d(X, 4, 3, name="c")
    layers.conv1d(X, 4, 3, name="c", reuse=True)
    with pytest.raises(ValueError, match=r"Trying to share variable c/kernel, but specified shape \(3, 3, 5\) and found shape \(3, 3, 4\)"):
        layers.conv1d(X, 5, 3, name="c", reuse=True)
    with pytest.raises(ValueError, match="Variable d/kernel does not exist, or was not created"):
        layers.conv1d(X, 5, 3, name="d", reuse=True)
    with layers.variable_scope("s"):
        layers.conv1d(X, 4, 3)
        layers.conv1d(X, 4, 3, name="k", trainable=False)
        with layers.variable_scope("in") as prefix:
            assert prefix == "s/in"
            layers.conv1d(X, 4, 3)
    with layers.variable_scope("s", reuse=True):
        layers.conv1d(X, 4, 3)
        with pytest.raises(ValueError, match="Variable s/conv1d_1/kernel does not exist"):
            layers.conv1d(X, 4, 3)
    with layers.variable_scope("s"):
        layers.conv1d(X, 4, 3, name="k2")
        with pytest.raises(ValueError, match="Variable s/conv1d/kernel already exists"):
            layers.conv1d(X, 4, 3)
    layers.conv1d(X, 4, 3, name="conv1d_2")
    layers.conv1d(X, 4, 3)
    stems = ["conv1d", "conv1d_1", "c", "s/conv1d", "s/k", "s/in/conv1d", "s/k2", "conv1d_2", "conv1d_3"]
    assert names() == [f"{stem}/{weight}:0" for stem in stems for weight in ("kernel", "bias")]
    assert names(layers.trainable_variables()) == [name for name in names() if not name.startswith("s/k/")]


def test_reuse_shares_the_variables():
    first = layers.conv1d(X, 4, 3, name="c", kernel_initializer="he_normal")
    np.testing.assert_array_equal(layers.conv1d(X, 4, 3, name="c", reuse=True, kernel_initializer="zeros"), first)
    kernel, bias = layers.global_variables()
    kernel.assign(kernel.value * 2)
    bias.assign(bias.value + 1)
    np.testing.assert_allclose(layers.conv1d(X, 4, 3, name="c", reuse=True), 2 * first + 1, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(layers.conv1d(X, 4, 3, strides=2, name="c", reuse=True), (2 * first + 1)[:, ::2], rtol=1e-5, atol=1e-5)
    assert len(layers.global_variables()) == 2
    np.testing.assert_allclose(layers.conv1d(X, 4, 3, name="c", reuse=True, use_bias=False), 2 * first, rtol=1e-5, atol=1e-5)


def test_reuse_without_a_name_is_the_first_layer():
    first = layers.conv1d(X, 4, 3)
    layers.conv1d(X, 4, 3)
    np.testing.assert_array_equal(layers.conv1d(X, 4, 3, reuse=True), first)


def test_inner_scopes_inherit_reuse():
    with layers.variable_scope("a"), layers.variable_scope("b"):
        first = layers.conv1d(X, 4, 3)
    with layers.variable_scope("a", reuse=True), layers.variable_scope("b"):
        np.testing.assert_array_equal(layers.conv1d(X, 4, 3), first)
    with layers.variable_scope("a", reuse=True), layers.variable_scope("b", reuse=False):
        np.testing.assert_array_equal(layers.conv1d(X, 4, 3), first)
    with pytest.raises(RuntimeError), layers.variable_scope("a"):
        raise RuntimeError
    layers.conv1d(X, 4, 3)
    assert names()[-1] == "conv1d/bias:0", "the scope is closed whatever happens in it"


def test_every_argument_works():
    y = layers.conv1d(np.moveaxis(X, 1, 2), 4, (2,), 1, "SAME", "channels_first", 2, "tanh", True, "ones", "ones", "l2", "l1", "l2",
                      "non_neg", "unit_norm", True, "all", None)
    expected = np.tanh(localconv.conv1d(X, np.ones((2, 3, 4), np.float32), 1, "same", "channels_last", 2) + 1)
    np.testing.assert_allclose(y, np.moveaxis(expected, 1, 2), rtol=1e-5, atol=1e-6)
    losses = layers.get_regularization_losses()
    np.testing.assert_allclose(losses, [0.24, 0.04, 0.01 * np.square(y).sum() / 2], rtol=1e-5)
    kernel, bias = layers.global_variables()
    assert kernel.constraint == layers.constraints.NonNeg()
    assert bias.constraint == layers.constraints.UnitNorm()


def test_several_batch_axes_and_dtypes():
    assert layers.conv1d(np.ones((4, 7, 10, 5)), 2, 3, name="double").dtype == "float64"
    assert layers.conv1d(np.ones((4, 7, 10, 5)), 2, 3, name="double", reuse=True).shape == (4, 7, 8, 2)
    with pytest.raises(ValueError, match="specified dtype float32 and found dtype float64"):
        layers.conv1d(np.ones((7, 10, 5), "float32"), 2, 3, name="double", reuse=True)
    assert layers.conv1d([[[1.0], [2.0], [3.0]]], 2, 3).dtype == "float32"


@pytest.mark.parametrize(("wrong", "error"), [({"filters": 0}, ValueError), ({"kernel_size": 9}, ValueError), ({"name": 3}, TypeError),
                                              ({"name": ""}, ValueError), ({"inputs": X.astype(int)}, TypeError),
                                              ({"inputs": X[0]}, ValueError),
                                              ({"reuse": "yes"}, TypeError), ({"kernel_initializer": "foo"}, ValueError)])
def test_nothing_is_stored_when_refused(wrong, error):
    with pytest.raises(error):
        layers.conv1d(**({"inputs": X, "filters": 4, "kernel_size": 3} | wrong))
    assert names() == []
    layers.conv1d(X, 4, 3)
    assert names() == ["conv1d/kernel:0", "conv1d/bias:0"]


@pytest.mark.parametrize(("name", "error"), [(3, TypeError), ("", ValueError), (None, TypeError)])
def test_scope_names(name, error):
    with pytest.raises(error, match="name"), layers.variable_scope(name):
        pass
