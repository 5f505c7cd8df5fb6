"""A layer is the backend's function, its bias and its activation, whatever the geometry.

Implementations are one function.
"""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import oracle
import pytest

import localconv
from localconv import layers

LOCAL = (layers.LocallyConnected1D, layers.LocallyConnected2D, layers.LocallyConnected3D)
CONV = (layers.Conv1D, layers.Conv2D, layers.Conv3D)


@st.composite
def local_layers(draw, implementations=(1, 2, 3)):
    """A locally connected layer, built, with random weights, and an input for it."""
    rank = draw(st.integers(1, 3))
    size = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    spatial = tuple(draw(st.integers(k, k + (4 if rank < 3 else 2))) for k in size)
    first = draw(st.booleans())
    channels = draw(st.integers(1, 3))
    layer = LOCAL[rank - 1](
        draw(st.integers(1, 3)),
        size,
        tuple(draw(st.integers(1, 3)) for _ in range(rank)),
        draw(st.sampled_from(["valid", "same"])),
        "channels_first" if first else "channels_last",
        draw(st.sampled_from([None, "relu", "tanh", "softmax"])),
        draw(st.booleans()),
        implementation=draw(st.sampled_from(implementations)),
        dtype=draw(st.sampled_from(["float32", "float64"])),
        name="drawn",
    )
    shape = (draw(st.integers(0, 3)), channels, *spatial) if first else (draw(st.integers(0, 3)), *spatial, channels)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    layer.build((None, *shape[1:]))
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    return layer, rng.normal(size=shape).astype(layer.dtype)


def by_backend(layer, x, kernel):
    """From the definition: the backend's function, bias reshaped to the output's axes, activation."""
    first = layer.data_format == "channels_first"
    function = getattr(localconv, f"local_conv{layer.rank}d")
    arguments = (x, kernel, layer.kernel_size, layer.strides)
    z = function(*arguments, data_format=layer.data_format, padding=layer.padding)
    if layer.use_bias:
        z = z + layer.bias.value.reshape((layer.filters, *z.shape[2:]) if first else z.shape[1:])
    return layer.activation(z)


@hypothesis.given(local_layers(implementations=(1,)))
def test_locally_connected(drawn):
    layer, x = drawn
    result = layer(x)
    assert result.dtype == layer.dtype
    np.testing.assert_allclose(result, by_backend(layer, x, layer.kernel.value), rtol=1e-5, atol=1e-6)


def sums(g, bias, data_format):
    """The gradient for a bias, and how many values each of its elements sums."""
    if bias.ndim > 1:
        return g.sum(0).reshape(bias.shape), len(g)
    channels = 1 if data_format == "channels_first" else g.ndim - 1
    return g.sum(tuple(axis for axis in range(g.ndim) if axis != channels)), g.size // len(bias)


@pytest.mark.parametrize("rank", oracle.RANKS)
@pytest.mark.parametrize("data_format", oracle.FORMATS)
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("implementation", [1, 2, 3, None], ids=["1", "2", "3", "shared"])
def test_output_and_gradients_are_the_twins(rank, data_format, padding, implementation):
    rng = np.random.default_rng(rank)
    size, strides, spatial = (3, 2, 2)[:rank], (1, 2, 2)[:rank], (5, 4, 3)[:rank]
    local = implementation is not None
    arguments = (3, size, strides, padding, data_format)
    layer = LOCAL[rank - 1](*arguments, implementation=implementation) if local else CONV[rank - 1](*arguments)
    x = rng.normal(size=(2, 2, *spatial) if data_format == "channels_first" else (2, *spatial, 2)).astype("float32")
    layer.build((None, *x.shape[1:]))
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    y = layer(x, training=True)
    g = rng.normal(size=y.shape).astype("float32")
    dx = layer.backward(g)
    kernel, dw = layer.kernel.value, layer.kernel.grad
    if local:
        config, shape = layer.get_config(), (None, *x.shape[1:])
        kernel, dw = (layers.convert_implementation([w], config, 1, shape)[0] for w in (kernel, dw))
    name = f"local_conv{rank}d" if local else f"conv{rank}d"
    window = {"strides": strides, "padding": padding, "data_format": data_format, "bound": True}
    window |= {"kernel_size": size} if local else {}
    taps, positions = np.prod(size), y.size // (2 * 3)
    expected = getattr(oracle, name)(x, kernel, bias=layer.bias.value, **window)
    oracle.assert_close(y, *expected, taps * 2 + 1, "float32")
    oracle.assert_close(dx, *getattr(oracle, f"{name}_input")(x.shape, kernel, g, **window), taps * 3, "float32")
    expected = getattr(oracle, f"{name}_kernel")(x, kernel.shape, g, **window)
    oracle.assert_close(dw, *expected, 2 if local else 2 * positions, "float32")
    expected, terms = sums(g.astype(float), layer.bias.value, data_format)
    bound, _ = sums(abs(g.astype(float)), layer.bias.value, data_format)
    oracle.assert_close(layer.bias.grad, expected, bound, terms, "float32")


@hypothesis.given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 20), st.integers(1, 11)), min_size=1, max_size=3),
    st.sampled_from(["valid", "same"]),
    st.integers(1, 2),
    st.integers(1, 2),
)
def test_implementation_3_stores_the_connections(axes, padding, channels, filters):
    """One number for each pair of an output and an input that its window has, from the definition.

    Windows may be larger than inputs.
    """
    axes = [(n, min(k, n) if padding == "valid" else k, s) for n, k, s in axes]
    spatial, size, strides = zip(*axes, strict=True)
    layer = LOCAL[len(axes) - 1](filters, size, strides, padding, "channels_last", implementation=3)
    layer.build((None, *spatial, channels))
    pairs = 1
    for n, k, s in axes:
        before = k // 2 if padding == "same" else 0
        positions = -(-n // s) if padding == "same" else (n - k) // s + 1
        pairs *= sum(0 <= p * s + t - before < n for p in range(positions) for t in range(k))
    assert layer.kernel.shape == (pairs * channels * filters,)
    assert layer.count_params() == layer.kernel.size + layer.bias.size


@hypothesis.given(local_layers(), st.sampled_from([1, 2, 3]))
def test_implementations_are_one_function(drawn, to):
    """Through every conversion, and back; what implementation 2 ignores and dead rows are all that may get lost."""
    layer, x = drawn
    config, shape = layer.get_config(), (None, *x.shape[1:])
    converted = layers.convert_implementation(layer.get_weights(), config, to, shape)
    other = type(layer).from_config(config | {"implementation": to, "name": "other"})
    other.build(shape)
    other.set_weights(converted)
    np.testing.assert_array_equal(other(x), layer(x))
    back = layers.convert_implementation(converted, config | {"implementation": to}, layer.implementation, shape)
    forth = layers.convert_implementation(back, config, to, shape)
    assert all(np.array_equal(a, b) for a, b in zip(forth, converted, strict=True))
    if layer.padding == "valid" and layer.implementation != 2:
        assert all(np.array_equal(a, b) for a, b in zip(back, layer.get_weights(), strict=True))


@hypothesis.given(local_layers(), st.integers(0, 2**32))
def test_gradients_of_implementations_are_one_function(drawn, seed):
    layer, x = drawn
    g = np.random.default_rng(seed).normal(size=layer.compute_output_shape(x.shape)).astype(layer.dtype)
    plain = type(layer).from_config(layer.get_config() | {"implementation": 1, "name": "plain"})
    plain.build((None, *x.shape[1:]))
    plain.set_weights(layers.convert_implementation(layer.get_weights(), layer.get_config(), 1, (None, *x.shape[1:])))
    layer(x, training=True)
    plain(x, training=True)
    np.testing.assert_array_equal(layer.backward(g), plain.backward(g))
    gradient = layers.convert_implementation([layer.kernel.grad], layer.get_config(), 1, (None, *x.shape[1:]))[0]
    np.testing.assert_array_equal(gradient, plain.kernel.grad)


@hypothesis.given(st.data())
def test_convolutions(data):
    rank, first, groups = data.draw(st.integers(1, 3)), data.draw(st.booleans()), data.draw(st.integers(1, 2))
    size = tuple(data.draw(st.integers(1, 3)) for _ in range(rank))
    strides, dilation = data.draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))
    spatial = tuple(data.draw(st.integers((k - 1) * dilation + 1, 9 if rank < 3 else 6)) for k in size)
    channels, batch = (
        groups * data.draw(st.integers(1, 2)),
        tuple(data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=2))),
    )
    padding = data.draw(st.sampled_from(["valid", "same", "CAUSAL"] if rank == 1 else ["valid", "SAME"]))
    layer = CONV[rank - 1](
        2 * groups,
        size,
        strides,
        padding,
        "channels_first" if first else "channels_last",
        dilation,
        groups,
        data.draw(st.sampled_from([None, "relu", "elu"])),
        data.draw(st.booleans()),
        dtype="float64",
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    x = rng.normal(size=(*batch, channels, *spatial) if first else (*batch, *spatial, channels))
    result = layer(x)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    result = layer(x)
    function = (localconv.conv1d, localconv.conv2d, localconv.conv3d)[rank - 1]
    z = function(x, layer.kernel.value, strides, padding.lower(), layer.data_format, dilation, groups=groups)
    np.testing.assert_array_equal(layer.convolution_op(x, layer.kernel.value), z)
    if layer.use_bias:
        z = z + (layer.bias.value.reshape(-1, *(1,) * rank) if first else layer.bias.value)
    np.testing.assert_allclose(result, layer.activation(z), rtol=1e-12, atol=1e-12)
    assert layer.compute_output_shape(x.shape) == result.shape


def test_implementation_2_ignores_what_is_not_connected():
    layer = layers.LocallyConnected1D(2, 2, 2, implementation=2)
    x = np.random.default_rng(0).normal(size=(2, 6, 2)).astype("float32")
    before = layer(x)
    kernel = layer.kernel.numpy()
    connected = np.zeros(kernel.shape, bool)
    for position in range(3):
        connected[position * 2 : position * 2 + 2, :, position] = True
    kernel[~connected] = np.nan
    layer.kernel.assign(kernel)
    np.testing.assert_array_equal(layer(x, training=True), before)
    layer.backward(before)
    assert not layer.kernel.grad[~connected].any()
    assert layer.kernel.grad[connected].all()


@pytest.mark.parametrize("implementation", [1, 2, 3])
def test_converted_once_per_change_of_the_weights(implementation, monkeypatch):
    layer = layers.LocallyConnected1D(2, 3, implementation=implementation, seed=0)
    x = np.ones((2, 6, 2), np.float32)
    counted = []
    rows = layers.local.Connections.rows
    monkeypatch.setattr(
        layers.local.Connections, "rows", lambda self, *arguments: counted.append(1) or rows(self, *arguments)
    )
    first = layer(x)
    for _ in range(3):
        layer(x)
    assert len(counted) == (implementation != 1)
    layer.kernel.assign(2 * layer.kernel.value)
    np.testing.assert_allclose(layer(x), 2 * first, rtol=1e-6)
    layer(x, training=True)
    assert len(counted) == 2 * (implementation != 1)
    layer.set_weights(layer.get_weights())
    layer(x)
    assert len(counted) == 3 * (implementation != 1)
