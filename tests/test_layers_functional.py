"""conv1d with its store of variables; the names and errors are those that TensorFlow 2.15 answered."""

import asyncio
import contextvars
import inspect
import json
import threading
import types

import numpy as np
import pytest
from golden.scope_programs import PROGRAMS, Record
from layer_cases import GOLDEN

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
    expected = (
        "inputs, filters, kernel_size, strides=1, padding='valid', data_format='channels_last', dilation_rate=1, "
        "activation=None, "
        "use_bias=True, kernel_initializer=None, bias_initializer=Zeros(), kernel_regularizer=None, "
        "bias_regularizer=None, "
        "activity_regularizer=None, kernel_constraint=None, bias_constraint=None, trainable=True, name=None, reuse=None"
    )
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
    with pytest.raises(
        ValueError, match=r"Variable c/kernel already exists, disallowed. Did you mean to set reuse=True"
    ):
        layers.conv1d(X, 4, 3, name="c")
    layers.conv1d(X, 4, 3, name="c", reuse=True)
    with pytest.raises(
        ValueError,
        match=r"Trying to share variable c/kernel, but specified shape \(3, 3, 5\) and found shape \(3, 3, 4\)",
    ):
        layers.conv1d(X, 5, 3, name="c", reuse=True)
    with pytest.raises(ValueError, match="Variable d/kernel does not exist, or was not created"):
        layers.conv1d(X, 5, 3, name="d", reuse=True)
    with layers.variable_scope("s"):
        layers.conv1d(X, 4, 3)
        layers.conv1d(X, 4, 3, name="k", trainable=False)
        with layers.variable_scope("in") as scope:
            assert scope.name == "s/in"
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
    np.testing.assert_allclose(
        layers.conv1d(X, 4, 3, strides=2, name="c", reuse=True), (2 * first + 1)[:, ::2], rtol=1e-5, atol=1e-5
    )
    assert len(layers.global_variables()) == 2
    np.testing.assert_allclose(
        layers.conv1d(X, 4, 3, name="c", reuse=True, use_bias=False), 2 * first, rtol=1e-5, atol=1e-5
    )


def test_reuse_without_a_name_is_the_first_layer():
    first = layers.conv1d(X, 4, 3)
    layers.conv1d(X, 4, 3)
    np.testing.assert_array_equal(layers.conv1d(X, 4, 3, reuse=True), first)


def answer(program):
    """What localconv answers to one of the programs that TensorFlow was given."""
    record = Record()

    def conv1d(filters=2, dtype="float32", **arguments):
        layers.conv1d(np.ones((2, 8, 3), dtype), filters, 3, **arguments)

    def losses(scope=None):
        return [float(loss) for loss in layers.get_regularization_losses(scope)]

    program(
        types.SimpleNamespace(
            variable_scope=layers.variable_scope,
            get_variable_scope=layers.get_variable_scope,
            AUTO_REUSE=layers.AUTO_REUSE,
            conv1d=conv1d,
            global_variables=layers.global_variables,
            trainable_variables=layers.trainable_variables,
            losses=losses,
            constant=layers.initializers.Constant,
            total=lambda factor: lambda weight: factor * weight.sum(),
            plus=np.add,
            say=record.say,
            refused=record.refused,
        )
    )
    penalties, trained = losses(), layers.trainable_variables()
    variables = [
        [variable.name, variable in trained, float(variable.value.flat[0]) if np.ptp(variable.value) == 0 else None]
        for variable in layers.global_variables()
    ]
    return {"said": record.said, "variables": variables, "penalties": penalties}


ANSWERS = json.loads((GOLDEN / "scopes.json").read_text(encoding="utf-8"))


def test_every_program_was_run_by_tensorflow():
    assert list(ANSWERS) == list(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_scopes_as_in_tensorflow(name):
    assert answer(PROGRAMS[name]) == ANSWERS[name]


def test_refused_calls_take_no_name():
    """Unlike in TensorFlow, whose next layer would be a/conv1d_1."""
    with layers.variable_scope("a"):
        with pytest.raises(ValueError, match="output"):
            layers.conv1d(X, 4, 9)
        layers.conv1d(X, 4, 3)
    assert names() == ["a/conv1d/kernel:0", "a/conv1d/bias:0"]


def test_refused_calls_store_nothing():
    """Unlike in TensorFlow, which would have c/bias."""
    layers.conv1d(X, 4, 3, name="c", use_bias=False)
    with pytest.raises(ValueError, match="Variable c/kernel already exists"):
        layers.conv1d(X, 4, 3, name="c")
    assert names() == ["c/kernel:0"]


def test_the_last_output_is_penalized():
    def total(output):
        return output.sum()

    total.gradient = np.ones_like
    for step in range(3):
        for name in ("a", "b"):
            x = np.full((2, 3, 1), step + 1.0)
            layers.conv1d(
                x, 1, 3, name=name, kernel_initializer="ones", activity_regularizer=total, reuse=layers.AUTO_REUSE
            )
    assert layers.get_regularization_losses() == [9, 9]


def test_each_thread_is_outside_all_scopes():
    """Also where Python hands it the context of the thread that starts it."""
    seen = []

    def work():
        for name in ("in", "in"):
            seen.append(layers.get_variable_scope().name)
            with layers.variable_scope(name, reuse=layers.AUTO_REUSE):
                layers.conv1d(X, 4, 3)

    with layers.variable_scope("outer") as scope:
        layers.get_variable_scope().reuse_variables()
        thread = threading.Thread(target=contextvars.copy_context().run, args=(work,))
        thread.start()
        thread.join()
        assert layers.get_variable_scope() is scope
    assert seen == ["", ""]
    assert names() == ["in/conv1d/kernel:0", "in/conv1d/bias:0"]


def test_threads_make_a_variable_once():
    start, results = threading.Barrier(8), []

    def work():
        start.wait()
        with layers.variable_scope("net", reuse=layers.AUTO_REUSE):
            results.append(layers.conv1d(X, 4, 3))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names() == ["net/conv1d/kernel:0", "net/conv1d/bias:0"]
    assert len({result.tobytes() for result in results}) == 1
    assert len(results) == 8


def test_tasks_have_scopes_of_their_own():
    async def work(name):
        with layers.variable_scope(name) as scope:
            for _ in range(2):
                await asyncio.sleep(0)
                assert layers.get_variable_scope() is scope
                layers.conv1d(X, 4, 3, use_bias=False)

    async def both():
        await asyncio.gather(work("a"), work("b"))

    asyncio.run(both())
    assert sorted(names()) == ["a/conv1d/kernel:0", "a/conv1d_1/kernel:0", "b/conv1d/kernel:0", "b/conv1d_1/kernel:0"]


def test_clear_session():
    layers.get_variable_scope().reuse_variables()
    with layers.variable_scope("a"), pytest.raises(RuntimeError, match="inside a variable_scope; 'a' is open"):
        layers.clear_session()
    layers.clear_session()
    assert layers.get_variable_scope().reuse is False
    layers.conv1d(X, 4, 3, kernel_regularizer="l2")
    layers.clear_session()
    assert names() == layers.get_regularization_losses() == []
    layers.conv1d(X, 4, 3)
    assert names() == ["conv1d/kernel:0", "conv1d/bias:0"]


def test_a_custom_getter_may_return_an_array():
    """The layer computes with it; the variables behind it are stored, as getter makes them."""

    def doubled(getter, name, *args, **kwargs):
        return 2 * getter(name, *args, **kwargs).value

    with layers.variable_scope("a", custom_getter=doubled) as scope:
        y = layers.conv1d(X, 4, 3, name="c")
    kernel, bias = layers.global_variables()
    assert names() == ["a/c/kernel:0", "a/c/bias:0"]
    np.testing.assert_array_equal(y, localconv.conv1d(X, 2 * kernel.value, bias=2 * bias.value))
    np.testing.assert_array_equal(layers.conv1d(X, 4, 3, name=scope, reuse=layers.AUTO_REUSE).shape, y.shape)
    assert scope.custom_getter is doubled


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, r"an array of shape \(3, 3, 4\) and dtype float32 for a/c/kernel, got None"),
        (np.ones((3, 4), "float32"), r"got one of shape \(3, 4\) and dtype float32"),
        (np.ones((3, 3, 4)), r"got one of shape \(3, 3, 4\) and dtype float64"),
        (layers.Variable(np.ones(4), "v:0"), r"got one of shape \(4,\) and dtype float64"),
    ],
)
def test_what_a_custom_getter_must_return(returned, words):
    def wrong(getter, name, *args, **kwargs):
        getter(name, *args, **kwargs)
        return returned

    with layers.variable_scope("a", custom_getter=wrong), pytest.raises(ValueError, match=words):
        layers.conv1d(X, 4, 3, name="c", kernel_regularizer="l2")
    assert names() == layers.get_regularization_losses() == []


def test_a_custom_getter_that_fails_at_the_bias_stores_nothing():
    def fails(getter, name, *args, **kwargs):
        if name.endswith("bias"):
            raise KeyError(name)
        return getter(name, *args, **kwargs)

    with layers.variable_scope("a", custom_getter=fails, regularizer="l2"):
        with pytest.raises(KeyError, match="a/conv1d/bias"):
            layers.conv1d(X, 4, 3)
        layers.conv1d(X, 4, 3, use_bias=False)
    assert names() == ["a/conv1d/kernel:0"]
    assert len(layers.get_regularization_losses()) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": 3}, "name must be a string, got 3"),
        ({"name": "a b"}, "name must match the pattern .*, got 'a b'"),
        ({"shape": None}, "shape must be given to make the variable a/c/kernel"),
        ({"shape": (0, 3, 4)}, "shape must be at least 1"),
        ({"dtype": "float16"}, "dtype must be float32 or float64"),
        ({"reuse": "yes"}, "reuse must be True, False, None or AUTO_REUSE"),
        ({"initializer": "foo"}, "Unknown initializer: 'foo'"),
        ({"regularizer": "foo"}, "Unknown regularizer: 'foo'"),
        ({"constraint": "foo"}, "Unknown constraint: 'foo'"),
        ({"collections": []}, "collections"),
    ],
)
def test_what_getters_refuse(changes, words):
    def changed(getter, **kwargs):
        return getter(**kwargs | changes)

    with layers.variable_scope("a", custom_getter=changed), pytest.raises((TypeError, ValueError), match=words):
        layers.conv1d(X, 4, 3, name="c")
    assert names() == []


def test_scopes_take_what_layers_take():
    """Names of initializers and regularizers, their configs, and classes."""
    for given in ("ones", layers.initializers.serialize(layers.initializers.Ones()), layers.initializers.Ones):
        with layers.variable_scope("a", initializer=given, regularizer="l2") as scope:
            layers.conv1d(X, 4, 3)
        assert (layers.global_variables()[0].value == 1).all()
        assert scope.initializer == layers.initializers.Ones()
        np.testing.assert_allclose(layers.get_regularization_losses(), [0.36, 0], rtol=1e-6)
        layers.clear_session()


def test_printed_scope():
    with layers.variable_scope("a", reuse=layers.AUTO_REUSE), layers.variable_scope("b") as scope:
        assert repr(scope) == "<VariableScope 'a/b' reuse=AUTO_REUSE>"


def test_every_argument_works():
    y = layers.conv1d(
        np.moveaxis(X, 1, 2),
        4,
        (2,),
        1,
        "SAME",
        "channels_first",
        2,
        "tanh",
        True,
        "ones",
        "ones",
        "l2",
        "l1",
        "l2",
        "non_neg",
        "unit_norm",
        True,
        "all",
        None,
    )
    expected = np.tanh(localconv.conv1d(X, np.ones((2, 3, 4), np.float32), 1, "same", "channels_last", 2) + 1)
    np.testing.assert_allclose(y, np.moveaxis(expected, 1, 2), rtol=1e-5, atol=1e-6)
    losses = layers.get_regularization_losses()
    np.testing.assert_allclose(losses, [0.24, 0.04, 0.01 * np.square(y).sum() / 2], rtol=1e-5)
    kernel, bias = layers.global_variables()
    assert kernel.constraint == layers.constraints.NonNeg()
    assert bias.constraint == layers.constraints.UnitNorm()


def test_inputs_without_a_batch():
    with pytest.raises(ValueError, match=r"received: \(8, 3\). A batch of one has shape \(1, 8, 3\)"):
        layers.conv1d(X[0], 4, 3)


def test_several_batch_axes_and_dtypes():
    assert layers.conv1d(np.ones((4, 7, 10, 5)), 2, 3, name="double").dtype == "float64"
    assert layers.conv1d(np.ones((4, 7, 10, 5)), 2, 3, name="double", reuse=True).shape == (4, 7, 8, 2)
    with pytest.raises(ValueError, match="specified dtype float32 and found dtype float64"):
        layers.conv1d(np.ones((7, 10, 5), "float32"), 2, 3, name="double", reuse=True)
    assert layers.conv1d([[[1.0], [2.0], [3.0]]], 2, 3).dtype == "float32"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"filters": 0}, ValueError),
        ({"kernel_size": 9}, ValueError),
        ({"name": 3}, TypeError),
        ({"name": "a b"}, ValueError),
        ({"inputs": X.astype(int)}, TypeError),
        ({"inputs": X[0]}, ValueError),
        ({"reuse": "yes"}, ValueError),
        ({"kernel_initializer": "foo"}, ValueError),
    ],
)
def test_nothing_is_stored_when_refused(wrong, error):
    with pytest.raises(error):
        layers.conv1d(**({"inputs": X, "filters": 4, "kernel_size": 3} | wrong))
    assert names() == []
    layers.conv1d(X, 4, 3)
    assert names() == ["conv1d/kernel:0", "conv1d/bias:0"]


def inside_custom_getter(call):
    with layers.variable_scope("outer", custom_getter=lambda getter, **kwargs: getter(**kwargs)):
        call()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: layers.conv1d(X, 4, 3, name=3), TypeError, "name must be a string or a VariableScope, got 3"),
        (lambda: layers.conv1d(X, 4, 3, reuse=2), ValueError, "reuse must be True, False, None or AUTO_REUSE, got 2"),
        (
            lambda: layers.variable_scope(3).__enter__(),
            TypeError,
            "name_or_scope must be a string or a VariableScope, got 3",
        ),
        (
            lambda: layers.variable_scope("ö").__enter__(),
            ValueError,
            "name_or_scope must match the pattern .*, got 'ö'",
        ),
        (
            lambda: layers.variable_scope(None).__enter__(),
            TypeError,
            "name_or_scope must be a string or a VariableScope if",
        ),
        (lambda: layers.variable_scope(None, 3).__enter__(), TypeError, "default_name must be a string, got 3"),
        (
            lambda: layers.variable_scope(None, "d", reuse=True).__enter__(),
            ValueError,
            "reuse=True needs name_or_scope",
        ),
        (lambda: layers.variable_scope("a", initializer="foo").__enter__(), ValueError, "Unknown initializer: 'foo'"),
        (
            lambda: layers.variable_scope("a", regularizer=3).__enter__(),
            ValueError,
            "Could not interpret regularizer identifier: 3",
        ),
        (
            lambda: layers.variable_scope("a", custom_getter="zeros").__enter__(),
            TypeError,
            "custom_getter must be callable or None, got 'zeros'",
        ),
        (
            lambda: inside_custom_getter(lambda: layers.variable_scope("a", custom_getter=3).__enter__()),
            TypeError,
            "custom_getter must be callable or None, got 3",
        ),
        (
            lambda: layers.VariableScope(None, custom_getter=3),
            TypeError,
            "custom_getter must be callable or None, got 3",
        ),
        (lambda: layers.VariableScope(None, 3), TypeError, "name must be a string, got 3"),
        (lambda: layers.trainable_variables(3), TypeError, "scope must be a string, got 3"),
        (
            lambda: layers.global_variables(layers.get_variable_scope()),
            TypeError,
            "scope must be a string, got <VariableScope",
        ),
        (lambda: layers.get_regularization_losses("("), ValueError, r"scope must be a regular expression, got '\('"),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()
    assert layers.get_variable_scope().name == ""
