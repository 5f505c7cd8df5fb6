"""Layers refuse wrong arguments, in Keras's words where Keras has any.

Their strings are case-insensitive where its are.
"""

import inspect
import re

import numpy as np
import pytest

import localconv
from localconv import layers

RANKED = {
    1: (layers.LocallyConnected1D, layers.Conv1D),
    2: (layers.LocallyConnected2D, layers.Conv2D),
    3: (layers.LocallyConnected3D, layers.Conv3D),
}
ALL = [maker for makers in RANKED.values() for maker in makers]
LOCAL = [makers[0] for makers in RANKED.values()]
CONV = [makers[1] for makers in RANKED.values()]


def rank(maker):
    return next(rank for rank, makers in RANKED.items() if maker in makers)


def shape(maker, size=6, channels=2):
    return (None, *[size] * rank(maker), channels)


@pytest.mark.parametrize("maker", ALL)
@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (
            {"kernel_size": 0},
            ValueError,
            "The `kernel_size` argument must be a tuple of .* that does not satisfy the requirement `> 0`",
        ),
        ({"kernel_size": -1}, ValueError, "kernel_size"),
        ({"kernel_size": 2.5}, ValueError, "The `kernel_size` argument must be a tuple of . integers. Received: 2.5"),
        (
            {"kernel_size": (2, 2, 2, 2)},
            ValueError,
            r"The `kernel_size` argument must be a tuple of . integers. Received: \(2, 2, 2, 2\)",
        ),
        ({"kernel_size": "3"}, ValueError, "kernel_size"),
        ({"kernel_size": None}, ValueError, "kernel_size"),
        ({"strides": 0}, ValueError, "The argument `strides` cannot contains"),
        ({"strides": -2}, ValueError, "strides"),
        ({"strides": True}, ValueError, "strides"),
        (
            {"filters": 0},
            ValueError,
            "Invalid value for argument `filters`. Expected a strictly positive value. Received filters=0.",
        ),
        ({"filters": -3}, ValueError, "filters=-3"),
        ({"filters": 2.5}, ValueError, "filters"),
        ({"filters": None}, ValueError, "filters"),
        ({"padding": "full"}, ValueError, "The `padding` argument must be one of .* Received: full"),
        ({"padding": 1}, ValueError, "padding"),
        (
            {"data_format": "NCHW"},
            ValueError,
            'The `data_format` argument must be one of "channels_first", "channels_last". Received: NCHW',
        ),
        ({"activation": "rleu"}, ValueError, "Unknown activation function 'rleu'"),
        ({"activation": 3}, TypeError, "Could not interpret activation function identifier: 3"),
        ({"activation": {"class_name": "relu", "config": {"slope": 1}}}, ValueError, "no parameter 'slope'"),
        ({"use_bias": "no"}, TypeError, "use_bias"),
        ({"kernel_initializer": "foo"}, ValueError, "Unknown initializer: 'foo'"),
        ({"bias_initializer": 3}, ValueError, "Could not interpret initializer identifier: 3"),
        ({"kernel_regularizer": "l3"}, ValueError, "Unknown regularizer: 'l3'"),
        ({"bias_regularizer": 0.1}, ValueError, "Could not interpret regularizer identifier: 0.1"),
        ({"activity_regularizer": {"class_name": 3}}, ValueError, "Could not interpret regularizer config"),
        ({"kernel_constraint": "foo"}, ValueError, "Unknown constraint: 'foo'"),
        ({"bias_constraint": 3}, ValueError, "Could not interpret constraint identifier: 3"),
        ({"dtype": "float16"}, ValueError, "dtype must be float32 or float64, got 'float16'"),
        ({"dtype": "real"}, ValueError, "dtype must be float32 or float64"),
        ({"name": 3}, TypeError, "name must be a string"),
        ({"trainable": None}, TypeError, "trainable"),
        ({"seed": 1.5}, TypeError, "seed"),
        ({"seed": -1}, ValueError, "seed"),
        ({"input_shape": 10}, TypeError, "input_shape"),
        ({"input_shape": (10, -2)}, ValueError, "input_shape"),
        ({"units": 3}, TypeError, "units"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_constructor(maker, wrong, error, words):
    with pytest.raises(error, match=words) as caught:
        maker(**({"filters": 2, "kernel_size": 3} | wrong))
    assert type(caught.value) is error


@pytest.mark.parametrize("maker", LOCAL)
def test_padding_and_implementation(maker):
    with pytest.raises(ValueError, match=rf"Invalid border mode for {maker.__name__} .*: causal"):
        maker(2, 3, padding="causal")
    for implementation in (2, 3):
        layer = maker(2, 3, padding="causal", implementation=implementation)
        with pytest.raises(NotImplementedError, match="Padding type causal not supported"):
            layer.build(shape(maker))
    for wrong in (4, 0, "1"):
        with pytest.raises(ValueError, match=f"Unrecognized implementation mode: {wrong}."):
            maker(2, 3, implementation=wrong).build(shape(maker))


def test_convolutions_only():
    for maker in CONV[1:]:
        with pytest.raises(ValueError, match="Causal padding is only supported for `Conv1D`"):
            maker(2, 3, padding="causal")
    for maker in CONV:
        with pytest.raises(ValueError, match="`strides > 1` not supported in conjunction with `dilation_rate > 1`"):
            maker(2, 3, strides=2, dilation_rate=2)
        with pytest.raises(
            ValueError, match=r"evenly divisible by the number of groups. Received: groups=2, filters=3"
        ):
            maker(3, 3, groups=2)
        with pytest.raises(ValueError, match=r"Received groups=2, but the input has 3 channels"):
            maker(2, 3, groups=2).build(shape(maker, channels=3))
        with pytest.raises(ValueError, match="The channel dimension of the inputs should be defined"):
            maker(2, 3).build(shape(maker, channels=None))


@pytest.mark.parametrize("maker", ALL)
def test_input_too_small(maker):
    layer = maker(2, 7, name="q")
    with pytest.raises(
        ValueError, match=r"One of the dimensions in the output is <= 0 due to downsampling in q. Consider increasing"
    ):
        layer.build(shape(maker))
    assert not layer.built
    assert not layer.weights
    layer.build(shape(maker, 7))
    assert len(layer.weights) == 2
    with pytest.raises(ValueError, match="One of the dimensions"):
        layer.compute_output_shape(shape(maker))


@pytest.mark.parametrize("maker", LOCAL)
def test_sizes_must_be_known(maker):
    with pytest.raises(ValueError, match="should be fully-defined, but layer received the inputs shape"):
        maker(2, 3).build(shape(maker, size=None))
    with pytest.raises(ValueError, match=r"should be fully-defined. Found shape"):
        maker(2, 3).build(shape(maker, channels=None))


@pytest.mark.parametrize("maker", ALL)
def test_inputs(maker):
    layer = maker(2, 3, name="a")
    word = "ndim" if maker in LOCAL else "min_ndim"
    axes = rank(maker) + 2
    words = 'Input 0 of layer "a" is incompatible with the layer: '
    words += rf"expected {word}={axes}, found ndim={axes - 1}. Full shape received: "
    # The shape that was given, before and after the layer is built; not the one that it would be built for.
    given = np.ones((2, *[6] * rank(maker)))
    words += re.escape(f"{given.shape}. A batch of one has shape {(1, *given.shape)}")
    with pytest.raises(ValueError, match=words):
        layer(given)
    good = np.ones((2, *shape(maker)[1:]))
    layer(good)
    with pytest.raises(ValueError, match=words):
        layer(given)
    with pytest.raises(
        ValueError, match="expected axis -1 of input shape to have value 2, but received input with shape"
    ):
        layer(np.ones((2, *shape(maker, channels=3)[1:])))
    if maker in LOCAL:
        with pytest.raises(ValueError, match="expected axis 1 of input shape to have value 6"):
            layer(np.ones((2, *shape(maker, size=7)[1:])))
    for wrong in (good.astype(int), good.astype(complex), good > 0, "x", None):
        with pytest.raises(TypeError, match="inputs of layer a must be an array of floats"):
            layer(wrong)
    for wrong, hint in ((np.ma.masked_array(good), r"\.filled\(0\)"), (good.astype(object), "inputs.astype")):
        with pytest.raises(TypeError, match=rf"inputs of layer a must be an? .*array of floats, got .*{hint}"):
            layer(wrong)
    with pytest.raises(ValueError, match="inputs of layer a"):
        layer([[1.0, 2.0], [1.0]])
    with pytest.raises(TypeError, match="training"):
        layer(good, training="yes")
    with pytest.raises(ValueError, match="ndim=0"):
        layer(1.0)


@pytest.mark.parametrize("maker", ALL)
def test_dtype_of_the_result(maker):
    x = np.ones((2, *shape(maker)[1:]))
    assert maker(2, 3)(x).dtype == "float32"
    assert maker(2, 3, dtype="float64")(x.astype("float16")).dtype == "float64"
    localconv.set_floatx("float64")
    layer = maker(2, 3)
    assert layer(x.astype("float32")).dtype == "float64"
    assert layer.get_config()["dtype"] == "float64"
    assert layer(x.tolist()).shape == layer(x.astype(">f4")).shape


@pytest.mark.parametrize("maker", ALL)
def test_case_of_strings(maker):
    layer = maker(2, 3, padding="VALID", data_format="Channels_First")
    assert (layer.padding, layer.data_format) == ("valid", "channels_first")
    assert maker(2, 3, padding="Same").padding == "same"
    with pytest.raises(ValueError, match="ONES"):
        maker(2, 3, kernel_initializer="ONES")


@pytest.mark.parametrize("maker", [*LOCAL, *CONV[1:]])
def test_default_data_format(maker):
    localconv.set_image_data_format("channels_first")
    assert maker(2, 3).data_format == "channels_first"
    assert layers.Conv1D(2, 3).data_format == "channels_last", "as in Keras"
    assert layers.Conv1D(2, 3, data_format=None).data_format == "channels_first"


def test_filters_as_keras_takes_them():
    assert layers.Conv2D(64.0, np.int64(3)).get_config()["filters"] == 64
    assert layers.Conv2D(2, np.array([3, 2])).kernel_size == (3, 2)


def test_convert_implementation_arguments():
    layer = layers.LocallyConnected1D(2, 3, input_shape=(6, 1))
    layer.build((None, 6, 1))
    weights, config = layer.get_weights(), layer.get_config()
    for to in (0, 4, True, "2"):
        with pytest.raises(ValueError, match="to must be one of"):
            layers.convert_implementation(weights, config, to)
    with pytest.raises(ValueError, match="Unrecognized implementation mode: 7"):
        layers.convert_implementation(weights, config | {"implementation": 7}, 1)
    with pytest.raises(ValueError, match="input_shape must be given"):
        layers.convert_implementation(weights, {k: v for k, v in config.items() if k != "batch_input_shape"}, 2)
    with pytest.raises(ValueError, match=r"weights\[0\] must have shape \(4, 3, 2\), as implementation 1 stores it"):
        layers.convert_implementation([weights[0][:2]], config, 2)
    with pytest.raises(ValueError, match="config must be that of a locally connected layer"):
        layers.convert_implementation(weights, {"units": 3}, 2, (None, 6, 1))
    with pytest.raises(TypeError, match="config must be a mapping"):
        layers.convert_implementation(weights, "config", 2)
    with pytest.raises(ValueError, match="weights must hold"):
        layers.convert_implementation([], config, 2)
    converted = layers.convert_implementation(weights, config, 1)
    assert not np.shares_memory(converted[0], weights[0])
    assert np.array_equal(converted[0], weights[0])


@pytest.mark.parametrize(
    "call",
    [
        lambda: layers.Dense(0),
        lambda: layers.Dropout(1.5),
        lambda: layers.Dropout("half"),
        lambda: layers.Dropout(0.5, (1,))(np.ones((2, 3)), training=True),
        lambda: layers.MaxPooling2D(0),
        lambda: layers.MaxPooling2D(padding="causal"),
        lambda: layers.MaxPooling3D((2, 2)),
        lambda: layers.MaxPooling3D(strides=(1, 0, 1)),
        lambda: layers.MaxPooling3D()(np.ones((1, 4, 4, 1))),
        lambda: layers.MaxPooling1D(3)(np.ones((1, 2, 1))),
        lambda: layers.Dense(3).build((None, None)),
        lambda: layers.InputLayer(),
        lambda: layers.activations.softmax(np.ones(3)),
        lambda: layers.Conv1D(2, 3, activation=lambda x: x[0])(np.ones((2, 5, 2))),
        lambda: layers.Conv1D(2, 3, kernel_initializer=lambda shape, dtype: np.zeros(3))(np.ones((2, 5, 2))),
        lambda: layers.Conv1D(2, 3, activation=lambda x: x).get_config(),
        lambda: layers.ProgressBar(3, verbose=7),
    ],
)
def test_values_refused(call):
    with pytest.raises(ValueError):  # noqa: PT011  # many messages
        call()


# --- names of arguments -----------------------------------------------------------------------------------------------

# What each layer must be given.
NEEDED = {maker: {"filters": 2, "kernel_size": 3} for maker in ALL} | {
    layers.LowRankLocallyConnected1D: {"filters": 2, "kernel_size": 3, "rank": 2},
    layers.LowRankLocallyConnected2D: {"filters": 2, "kernel_size": 3, "rank": 2},
    layers.Dense: {"units": 2},
    layers.Activation: {"activation": "relu"},
    layers.Dropout: {"rate": 0.5},
    layers.InputLayer: {"input_shape": (3,)},
    layers.Flatten: {},
    layers.MaxPooling1D: {},
    layers.MaxPooling2D: {},
    layers.MaxPooling3D: {},
    layers.Sequential: {},
}


def test_needed_has_all_layers():
    assert set(NEEDED) == set(layers.sequential.LAYERS.values())


class Own(layers.Conv2D):
    """A user's: it takes what it inherits."""


@pytest.mark.parametrize("maker", [*NEEDED, Own], ids=lambda maker: maker.__name__)
def test_wrong_names_blame_the_layer(maker):
    needed = NEEDED.get(maker, NEEDED[layers.Conv2D])
    name = maker.__name__
    meant = r"; did you mean 'kernel_size'\?" if "kernel_size" in needed else ""
    message = rf"^{name}\.__init__\(\) got an unexpected keyword argument 'kernel_sise'{meant}$"
    with pytest.raises(TypeError, match=message):
        maker(**needed, kernel_sise=3)
    with pytest.raises(TypeError, match=f"^{name}.*'k{{999}}\\.\\.\\.$"):
        maker(**needed, **{"k" * 10**6: 3})
    owner = "Conv2D" if maker is Own else name
    if needed and maker is not layers.InputLayer:
        with pytest.raises(TypeError, match=rf"^{owner}\.__init__\(\) missing {len(needed)} required positional"):
            maker()
    with pytest.raises(TypeError, match=rf"^{owner}\.__init__\(\) takes .* but 41 were given$"):
        maker(*[1] * 40)


def test_constructors_are_as_they_were():
    """Of one class only in name: what they take, and what help shows."""
    for maker in (layers.LocallyConnected2D, layers.Conv2D, layers.MaxPooling2D):
        inherited = maker.__mro__[1].__init__
        assert inspect.signature(maker.__init__) == inspect.signature(inherited)
        assert maker.__init__.__qualname__ == f"{maker.__name__}.__init__"
        assert inherited.__qualname__ == f"{maker.__mro__[1].__name__}.__init__"


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_kernel_mask(data_format, padding):
    """The connected pairs of implementation 2: those for which the converted kernel has weights."""
    shape = (None, 4, 5, 2) if data_format == "channels_last" else (None, 2, 4, 5)
    one, two = (
        layers.LocallyConnected2D(
            3, (3, 2), strides=(2, 1), padding=padding, data_format=data_format, implementation=implementation
        )
        for implementation in (1, 2)
    )
    assert not hasattr(two, "kernel_mask")
    for layer in (one, two):
        layer.build(shape)
    assert not hasattr(one, "kernel_mask")
    with pytest.raises(AttributeError, match="kernel_mask is of built layers with implementation 2"):
        _ = one.kernel_mask
    ones, _ = layers.convert_implementation(
        [np.ones(weight.shape) for weight in one.weights], one.get_config(), 2, shape
    )
    assert two.kernel_mask.dtype == np.float32
    np.testing.assert_array_equal(np.broadcast_to(two.kernel_mask, two.kernel.shape), ones)
