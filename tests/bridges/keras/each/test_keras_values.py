"""Both engines against the twin of tests/oracle.py: what Keras 2 does not have (dilation, groups), both data formats,
both floats; derivatives of the first and second order.
"""

import dataclasses

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st
from keras import ops
from keras_tools import BACKEND, TRAINS, array, gradient, run_layer, value_and_gradients
from oracle import Case, Gradient
from test_properties import cases as cases_of_functions

from localconv.convert import convert
from localconv.keras import LocallyConnected1D, LocallyConnected2D, LocallyConnected3D

ENGINES = ("compiled", "ops")
LAYERS = {1: LocallyConnected1D, 2: LocallyConnected2D, 3: LocallyConnected3D}


def cases(data_format, **common):
    common |= {"data_format": data_format, "bias": "full"}
    return [
        Case("local_conv1d", (9,), (3,), strides=2, **common),
        Case("local_conv1d", (11,), (3,), dilation_rate=3, padding="same", groups=3, filters=6, **common),
        Case("local_conv1d", (5,), (1,), batch=1, channels=1, filters=1, **common),
        Case("local_conv2d", (7, 6), (3, 2), strides=(2, 1), **common),
        Case("local_conv2d", (6, 5), (4, 2), padding="same", strides=(1, 2), batch=3, **common),
        Case("local_conv2d", (6, 7), (2, 3), dilation_rate=(2, 1), groups=2, channels=4, filters=2, **common),
        Case("local_conv2d", (5, 5), (2, 2), batch=0, **common),
        Case("local_conv3d", (4, 3, 5), (2, 3, 2), strides=(1, 1, 2), padding="same", **common),
        Case("local_conv3d", (5, 4, 3), (2, 1, 2), dilation_rate=(2, 1, 1), groups=2, channels=4, filters=2, **common),
    ]


CASES = [case for data_format in ("channels_last", "channels_first") for case in cases(data_format)]
ids = [f"{case.function[-2:]}-{case.data_format}-{number}" for number, case in enumerate(CASES)]


def made(case, engine):
    """The case's layer, with its kernel and bias."""
    layer = LAYERS[case.rank](
        case.filters,
        case.kernel_size,
        strides=case.strides,
        padding=case.padding,
        data_format=case.data_format,
        dilation_rate=case.dilation_rate,
        groups=case.groups,
        use_bias=case.bias is not None,
        engine=engine,
        dtype=case.dtype,
    )
    x, kernel, bias = case.arrays()
    layer.build((None, *x.shape[1:]))
    layer.set_weights([kernel] if bias is None else [kernel, bias])
    return layer, x


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES, ids=ids)
def test_exact(case, engine, dtype):
    """Small integers: equal to the last bit."""
    case = dataclasses.replace(case, dtype=dtype)
    layer, x = made(case, engine)
    of_input, of_kernel = Gradient(case, "input"), Gradient(case, "kernel")
    g = of_input.arrays()[1]
    y, _, dx, dw = run_layer(layer, x, g)
    case.check(y)
    assert layer.compute_output_shape((None, *x.shape[1:])) == (None, *y.shape[1:])
    if TRAINS:
        of_input.check(dx)
        of_kernel.check(dw[0])
        bias = g.sum(0)
        np.testing.assert_array_equal(dw[1], bias.reshape(dw[1].shape))


@pytest.mark.parametrize("engine", ENGINES)
def test_within_rounding(engine):
    case = Case("local_conv2d", (8, 9), (3, 3), channels=5, filters=7, bias="full", exact=False, padding="same")
    layer, x = made(case, engine)
    of_input, of_kernel = Gradient(case, "input"), Gradient(case, "kernel")
    y, _, dx, dw = run_layer(layer, x, of_input.arrays()[1])
    case.check(y)
    if TRAINS:
        of_input.check(dx)
        of_kernel.check(dw[0])


def test_without_bias():
    case = Case("local_conv2d", (5, 4), (2, 3))
    layer, x = made(case, "compiled")
    assert layer.bias is None
    y, _, dx, dw = run_layer(layer, x, Gradient(case, "input").arrays()[1])
    case.check(y)
    if TRAINS:
        Gradient(case, "input").check(dx)
        Gradient(case, "kernel").check(*dw)


# --- what is not in a sum is not multiplied ---------------------------------------------------------------------------


def padded_cases():
    for data_format in ("channels_last", "channels_first"):
        common = {"padding": "same", "data_format": data_format}
        yield Case("local_conv1d", (6,), (3,), channels=1, filters=1, **common)
        yield Case("local_conv2d", (6, 5), (3, 4), strides=(2, 1), **common)
        yield Case("local_conv2d", (4, 5), (3, 2), dilation_rate=(3, 2), groups=2, channels=4, filters=6, **common)
        # No tap of the window meets the input.
        yield Case("local_conv1d", (1,), (2,), dilation_rate=3, **common)
        yield Case("local_conv3d", (3, 4, 3), (2, 3, 2), strides=(1, 2, 1), **common)


PADDED = list(padded_cases())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", PADDED, ids=[f"{case.function[-2:]}-{case.data_format}-{case.out}" for case in PADDED])
def test_weights_that_meet_padding_do_nothing(case, engine):
    """NaN and inf in such rows of the kernel, and derivatives of the output that are inf."""
    layer, x = made(case, engine)
    kernel, present = layer.get_weights()[0], case.rows_present()
    assert not present.all()
    kernel[~present] = np.resize([np.nan, np.inf, -np.inf], kernel[~present].shape)
    layer.set_weights([kernel])
    of_input, of_kernel = Gradient(case, "input"), Gradient(case, "kernel")
    g = of_input.arrays()[1]
    y, _, dx, dw = run_layer(layer, x, g)
    case.check(y)
    if TRAINS:
        of_input.check(dx)
        of_kernel.check(dw[0])
        *_, (wild,) = run_layer(layer, np.full_like(x, np.inf), np.full_like(g, np.nan))
        assert (wild[~present] == 0).all()
        assert np.isnan(wild[present]).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("place", [0, 1], ids=["input", "kernel"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_nan_and_inf(place, data_format, engine):
    """They reach exactly the outputs, and derivatives, whose sums hold them; strides leave pixels out."""
    shared = {"strides": (3, 1), "channels": 2, "filters": 3, "data_format": data_format, "padding": "same"}
    case = Case("local_conv2d", (7, 5), (2, 3), **shared)
    layer, x = made(case, engine)
    arrays = [x, layer.get_weights()[0]]
    flat, heard = arrays[place].reshape(-1), np.ones(arrays[place].size, bool)
    if place == 1:
        heard = case.rows_present().repeat(3)
    flat[np.flatnonzero(heard)[[3, heard.sum() // 2, -1]]] = np.nan, np.inf, -np.inf
    layer.set_weights(arrays[1:])
    of_input, of_kernel = Gradient(case, "input"), Gradient(case, "kernel")
    g = of_input.arrays()[1]
    y, _, dx, dw = run_layer(layer, arrays[0], g)
    assert 0 < np.isfinite(y).sum() < y.size
    case.check(y, (*arrays, None))
    if TRAINS:
        of_input.check(dx, (arrays[1], g))
        of_kernel.check(dw[0], (arrays[0], g))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_weights_without_connection_do_nothing(data_format, engine):
    """Implementation 2 stores a weight for every pair of an input and an output; some of them here are not finite."""
    case = Case("local_conv2d", (5, 4), (3, 2), data_format=data_format, padding="same")
    plain, x = made(case, engine)
    config = plain.get_config()
    dense, sparse = (LocallyConnected2D.from_config(config | {"implementation": i}) for i in (2, 3))
    g = Gradient(case, "input").arrays()[1]
    expected = run_layer(plain, x, g)
    for layer in (dense, sparse):
        layer.build((None, *x.shape[1:]))
        name = f"keras_{layer.implementation}" + ("_channels_first" if data_format == "channels_first" else "")
        rows = name.replace(f"keras_{layer.implementation}", "rows")
        window = {"input_size": (5, 4), "padding": "same", "channels": x.size // (len(x) * 20)}
        kernel = convert(plain.get_weights()[0], rows, name, (3, 2), **window)
        ones = convert(np.ones_like(plain.get_weights()[0]), rows, name, (3, 2), **window)
        kernel[ones == 0] = np.inf
        layer.set_weights([kernel])
        y, _, dx, dw = run_layer(layer, x, g)
        np.testing.assert_array_equal(y, expected[0])
        if TRAINS:
            np.testing.assert_array_equal(dx, expected[2])
            np.testing.assert_array_equal(dw[0], convert(expected[3][0], rows, name, (3, 2), **window))


# --- any geometry, and derivatives of derivatives ---------------------------------------------------------------------


def for_layers(case):
    """A case with a padding and a bias that layers have, and a dtype that Keras's operations keep: under numpy they
    make float32 of float64.
    """
    padding = case.padding if case.padding in ("valid", "same") else "same"
    bias, dtype = None if case.bias == "filters" else case.bias, "float32" if BACKEND == "numpy" else case.dtype
    return dataclasses.replace(case, padding=padding, bias=bias, dtype=dtype)


if BACKEND in ("numpy", "torch"):  # the others compile every geometry anew

    @hypothesis.given(cases_of_functions(local=True).map(for_layers), st.sampled_from(ENGINES))
    def test_any_geometry(case, engine):
        layer, x = made(case, engine)
        of_input, of_kernel = Gradient(case, "input"), Gradient(case, "kernel")
        y, _, dx, dw = run_layer(layer, x, of_input.arrays()[1])
        case.check(y)
        if TRAINS:
            of_input.check(dx)
            of_kernel.check(dw[0])


if TRAINS:

    @pytest.mark.parametrize(
        "case", [CASES[3], CASES[10], CASES[14], CASES[17]], ids=["2d", "first-1d", "first-groups", "first-3d"]
    )
    def test_derivatives_of_derivatives(case):
        """The slope of |gradient|^2, by the compiled kernels and by keras.ops, whose derivatives are the backend's own:
        integers, and so equal.
        """
        slopes = []
        for engine in ENGINES:
            layer, x = made(case, engine)
            _, kernel, bias = case.arrays()
            g = Gradient(case, "input").arrays()[1]

            def loss(x, kernel, bias, layer=layer, g=g):
                y, _ = layer.stateless_call([kernel, bias], [], x)
                return ops.sum(ops.multiply(ops.square(y), ops.convert_to_tensor(g)))

            def slope(x, kernel, bias, loss=loss):
                return sum(ops.sum(ops.square(part)) for part in gradient(loss, [x, kernel, bias])), ()

            arrays = [np.sign(a) for a in (x, kernel, bias)]
            slopes.append(value_and_gradients(slope, arrays))
        assert array(slopes[0][0][0]) == array(slopes[1][0][0])
        for ours, theirs in zip(slopes[0][1], slopes[1][1], strict=True):
            assert abs(theirs).max() > 0
            np.testing.assert_array_equal(ours, theirs)


if BACKEND == "torch":

    @pytest.mark.parametrize("case", CASES, ids=ids)
    def test_modules_of_layers(case):
        """A module made of a layer computes what the layer does, dilation and groups too."""
        from localconv.torch import from_keras

        layer, x = made(case, "compiled")
        first = case.data_format == "channels_first"
        given = ops.convert_to_tensor(x)
        y = from_keras(layer, input_shape=x.shape)(given if first else given.movedim(-1, 1))
        case.check(array(y if first else y.movedim(1, -1)))


if BACKEND == "tensorflow":

    def test_derivatives_in_a_graph_of_any_batch():
        import tensorflow as tf

        case = CASES[3]
        layer, x = made(case, "compiled")
        g = Gradient(case, "input").arrays()[1]

        @tf.function(input_signature=[tf.TensorSpec((None, *x.shape[1:])), tf.TensorSpec((None, *g.shape[1:]))])
        def step(x, g):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x)
                assert y.shape.as_list() == [None, *g.shape[1:]]
                total = tf.reduce_sum(y * g)
            return y, tape.gradient(total, [x, *layer.trainable_variables_of_tensorflow])

        layer.trainable_variables_of_tensorflow = [v.value for v in layer.trainable_variables]
        y, (dx, dw, _) = step(x, g)
        case.check(array(y))
        Gradient(case, "input").check(array(dx))
        Gradient(case, "kernel").check(array(dw))

    def test_no_copy_of_what_is_aligned():
        """The result of the kernels is the tensor's memory."""
        import tensorflow as tf

        from localconv.keras import tensorflow_functions as functions

        out = functions.empty((1000, 1000), np.dtype("float32"))
        assert out.ctypes.data % functions.ALIGNMENT == 0
        tensor = functions.called(lambda x: out, (keras.ops.zeros(1),), (1000, 1000))
        assert np.asarray(tensor).ctypes.data == out.ctypes.data

        @tf.function
        def in_a_graph(x):
            tensor = functions.called(lambda x: out, (x,), (1000, 1000))
            return tf.numpy_function(lambda array: np.int64(array.ctypes.data), [tensor], tf.int64)

        assert int(in_a_graph(keras.ops.zeros(1))) == out.ctypes.data
