"""What the tests of Keras 2's own layers ask (tf_keras/layers/locally_connected), in our words.

One answer differs: padding 'same' with implementation 1, which Keras 2 refuses, is there.
"""

import itertools

import keras
import numpy as np
import pytest
from keras import ops
from keras_tools import TRAINS, array

from localconv.keras import LocallyConnected1D, LocallyConnected2D

rng = np.random.default_rng(16)
FORMATS, PADDINGS, IMPLEMENTATIONS = ("channels_first", "channels_last"), ("valid", "same"), (1, 2, 3)
KINDS = [
    dict(zip(("data_format", "padding", "implementation"), kind, strict=True))
    for kind in itertools.product(FORMATS, PADDINGS, IMPLEMENTATIONS)
]
ids = ["-".join(map(str, kind.values())) for kind in KINDS]
LAYERS = {"1d": (LocallyConnected1D, (8, 5)), "2d": (LocallyConnected2D, (6, 10, 4))}


@pytest.mark.parametrize("kind", KINDS, ids=ids)
@pytest.mark.parametrize("rank", LAYERS)
def test_a_layer_in_a_model(rank, kind):
    """Shapes known before the call, a config that makes the layer again with its weights, a step of training."""
    cls, shape = LAYERS[rank]
    given = {"filters": 4, "kernel_size": 3, "kernel_regularizer": "l2", "bias_regularizer": "l2", **kind}
    if kind["padding"] == "valid" and rank == "2d":
        given["strides"] = (2, 2)
    layer = cls(**given)
    x = rng.standard_normal((2, *shape)).astype("float32")
    model = keras.Sequential([keras.Input(shape), layer])
    y = array(model(x))
    assert layer.compute_output_shape((None, *shape)) == model.output_shape == (None, *y.shape[1:])
    again = cls.from_config(layer.get_config())
    again.build((None, *shape))
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(array(again(x)), y)
    model.compile("rmsprop", loss="mse")
    if TRAINS:
        before = layer.get_weights()
        model.train_on_batch(x, y + 1)
        assert all((a != b).any() for a, b in zip(before, layer.get_weights(), strict=True))


@pytest.mark.parametrize("kind", KINDS, ids=ids)
@pytest.mark.parametrize("rank", LAYERS)
def test_regularizers_and_constraints(rank, kind):
    cls, shape = LAYERS[rank]
    terms = dict.fromkeys(("kernel_regularizer", "bias_regularizer", "activity_regularizer"), "l2")
    layer = cls(4, 3, **kind, **terms)
    layer.build((2, *shape))
    assert len(layer.losses) == 2
    layer(np.ones((2, *shape), "float32"))
    assert len(layer.losses) == 3
    constraint = keras.constraints.MaxNorm(0.01)
    layer = cls(4, 3, **kind, kernel_constraint=constraint, bias_constraint=constraint)
    layer.build((2, *shape))
    assert layer.kernel.constraint is constraint
    assert layer.bias.constraint is constraint


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("rank", LAYERS)
def test_kernels_larger_than_the_input_are_refused(rank, implementation):
    cls, shape = LAYERS[rank]
    layer = cls(2, 11, implementation=implementation)
    for use in (layer.build, layer.compute_output_shape):
        with pytest.raises(
            ValueError,
            match=r"One of the dimensions in the output is <= 0 due to downsampling in .*large enough for kernel_size",
        ):
            use((None, *shape))
    assert not layer.built


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("rank", LAYERS)
def test_kernel_mask(rank, data_format, padding):
    """1 for the pairs of an input and an output that the definition connects."""
    cls, shape = LAYERS[rank]
    first = data_format == "channels_first"
    spatial = shape[1:] if first else shape[:-1]
    strides, size = (2, 1)[: len(spatial)], (3, 2)[: len(spatial)]
    layer = cls(2, size, strides=strides, padding=padding, data_format=data_format, implementation=2)
    for other in (layer, cls(2, size, implementation=1)):
        assert not hasattr(other, "kernel_mask")
    layer.build((None, *shape))
    output = layer.compute_output_shape((None, *shape))
    output = output[2:] if first else output[1:-1]
    mask = layer.kernel_mask
    assert mask.shape == ((1, *spatial, 1, *output) if first else (*spatial, 1, *output, 1))
    before = [k // 2 if padding == "same" else 0 for k in size]
    for here in np.ndindex(spatial):
        for position in np.ndindex(output):
            starts = [p * s - b for p, s, b in zip(position, strides, before, strict=True)]
            inside = all(0 <= i - start < k for i, start, k in zip(here, starts, size, strict=True))
            assert mask[(0, *here, 0, *position) if first else (*here, 0, *position, 0)] == inside
    layer.quantize("int8")
    assert not hasattr(layer, "kernel_mask")


def network(implementation, data_format, rank):
    options = {"data_format": data_format, "implementation": implementation, "activation": "relu"}
    window = ((3,), (1,)) if rank == "1d" else ((3, 2), (1, 3))
    normal = keras.initializers.RandomNormal()
    locals_ = [
        LAYERS[rank][0](2, *window, kernel_initializer=normal, bias_initializer=normal, **options) for _ in range(2)
    ]
    shape = (7,) if rank == "1d" else (7, 6)
    shape = (2, *shape) if data_format == "channels_first" else (*shape, 2)
    model = keras.Sequential([keras.Input(shape), *locals_, keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile(keras.optimizers.RMSprop(0.01), keras.losses.CategoricalCrossentropy(from_logits=True))
    return model


def connected(layer):
    """The weights of connected pairs in implementation 2, and which they are, as (inputs, outputs)."""
    kernel, mask = array(layer.kernel), np.broadcast_to(layer.kernel_mask, layer.kernel.shape)
    inputs = int(np.prod(kernel.shape[: kernel.ndim // 2]))
    return kernel.reshape(inputs, -1), mask.reshape(inputs, -1) == 1


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("rank", LAYERS)
def test_implementations_agree(rank, data_format):
    """With weights copied by `kernel_mask`, before and after training: to implementation 3, and by it to 1."""
    models = [network(implementation, data_format, rank) for implementation in (1, 2, 3)]
    for one, two, three in zip(*(model.layers for model in models), strict=True):
        if not hasattr(two, "kernel_mask"):
            for layer in (one, three):
                layer.set_weights(two.get_weights())
            continue
        kernel, mask = connected(two)
        # Implementation 3 lists them by output, then by input; 1 has them by position, (D, filters) each.
        listed = kernel.T[mask.T]
        three.set_weights([listed, two.get_weights()[1]])
        positions, depth, filters = one.kernel.shape
        if data_format == "channels_first":
            rows = listed.reshape(filters, positions, depth).transpose(1, 2, 0)
        else:
            rows = listed.reshape(positions, filters, depth).transpose(0, 2, 1)
        one.set_weights([rows, two.get_weights()[1]])
    x = rng.standard_normal((4, *models[0].input_shape[1:])).astype("float32")
    targets = np.eye(3, dtype="float32")[rng.integers(0, 3, 4)]

    def compare(tolerance):
        expected, *others = [array(ops.convert_to_tensor(model(x))) for model in models]
        for y in others:
            np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)

    compare(1e-5)
    if TRAINS:
        for model in models:
            model.fit(x, targets, epochs=2, batch_size=4, shuffle=False, verbose=0)
        compare(2e-4)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("rank", LAYERS)
def test_saved_models(rank, data_format, implementation, tmp_path):
    model = network(implementation, data_format, rank)
    x = rng.standard_normal((4, *model.input_shape[1:])).astype("float32")
    if TRAINS:
        model.fit(x, np.eye(3, dtype="float32")[[0, 1, 2, 0]], verbose=0)
    for suffix in ("keras", "h5"):
        model.save(tmp_path / f"model.{suffix}")
        # Under numpy the optimizer has no state, which Keras does not expect in its files.
        again = keras.models.load_model(tmp_path / f"model.{suffix}", compile=TRAINS)
        np.testing.assert_array_equal(array(again(x)), array(model(x)))
