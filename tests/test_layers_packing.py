"""Kernels of convolution layers that are kept as they are packed: the same bits, and never those of another kernel."""

import copy
import pickle
import threading

import numpy as np
import pytest

from localconv import layers
from localconv.core.packing import KEPT_BELOW
from localconv.core.settings import available_isas, forced, set_isa

# Rank, groups, channels, filters, kernel, data format: kernels that no instruction set reads where they lie, since they
# have several panels, the last of them full or not, or several groups.
CASES = [
    (1, 1, 3, 130, 5, "channels_last"),
    (2, 1, 16, 128, 3, "channels_last"),
    (2, 1, 16, 70, 3, "channels_first"),
    (2, 2, 8, 36, 1, "channels_last"),
    (2, 80, 80, 80, 3, "channels_last"),
    (3, 1, 4, 66, 2, "channels_last"),
]
CONV = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}


def made(case, dtype="float32", side=6, batch=1):
    """A layer with random weights, and an input."""
    rank, groups, channels, filters, kernel, data_format = case
    rng = np.random.default_rng(3)
    shape = (batch, *(side,) * rank, channels) if data_format == "channels_last" else (batch, channels, *(side,) * rank)
    layer = CONV[rank](filters, kernel, groups=groups, data_format=data_format, dtype=dtype, padding="same")
    layer.build((None, *shape[1:]))
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    return layer, rng.normal(size=shape).astype(dtype)


def kept(layer):
    """The packed kernel that a layer keeps, or None."""
    return layer._packing._kept[2]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_kept_kernel_gives_the_same_bits(case, isa, dtype):
    layer, x = made(case, dtype)
    with forced("conv_direct"):
        expected = layer(x)
        assert kept(layer) is None
        second = layer(x)
        packed = kept(layer)
        assert packed is not None
        np.testing.assert_array_equal(second, expected)
        np.testing.assert_array_equal(layer(x), expected)
        assert kept(layer) is packed


def test_other_batches_and_sizes_share_it():
    layer, x = made(CASES[1])
    layer(x)
    layer(x)
    packed = kept(layer)
    for shape in [(3, 6, 6, 16), (1, 9, 2, 16), (2, 5, 1, 1, 16)]:
        other = np.random.default_rng(5).normal(size=shape).astype(np.float32)
        np.testing.assert_array_equal(layer(other), copy.deepcopy(layer)(other))
        assert kept(layer) is packed


def test_every_instruction_set_packs_its_own():
    layer, x = made(CASES[1])
    expected = {}
    for isa in available_isas():
        set_isa(isa)
        expected[isa] = copy.deepcopy(layer)(x)
    for isa in (*available_isas(), *available_isas()):
        set_isa(isa)
        for _ in range(3):
            np.testing.assert_array_equal(layer(x), expected[isa])


@pytest.mark.parametrize("change", ["assign", "add", "set_weights"])
def test_another_kernel_is_never_taken_for_it(change):
    layer, x = made(CASES[1])
    old = [layer(x) for _ in range(3)][-1]
    kernel, bias = layer.kernel.value, layer.bias.value
    if change == "assign":
        layer.kernel.assign(2 * kernel)
    elif change == "add":
        layer.kernel.assign_add(kernel)
    else:
        layer.set_weights([2 * kernel, bias])
    assert kept(layer) is not None
    for _ in range(3):
        np.testing.assert_allclose(layer(x), 2 * (old - bias) + bias, rtol=1e-4, atol=1e-4)


def test_kernels_of_others_are_not_taken_for_it():
    layer, x = made(CASES[1])
    y = [layer(x) for _ in range(3)][-1] - layer.bias.value
    np.testing.assert_allclose(layer.convolution_op(x, -layer.kernel.value), -y, rtol=1e-4, atol=1e-4)


def test_nothing_is_kept_of_kernels_in_training():
    layer, x = made(CASES[1])
    for _ in range(4):
        y = layer(x, training=True)
        layer.backward(y)
        for weight in layer.trainable_weights:
            weight.assign_sub(1e-3 * weight.grad)
        assert kept(layer) is None


def test_nothing_is_kept_for_large_calls_or_in_other_dtypes():
    layer, x = made(CASES[1], side=8, batch=KEPT_BELOW // 64)
    for _ in range(3):
        layer(x)
    assert kept(layer) is None
    for _ in range(3):
        layer(x[:-1])
    assert kept(layer) is not None
    layer.quantize("int8")
    for _ in range(3):
        layer(x[:1])
    assert kept(layer) is None


@pytest.mark.parametrize("shape", [(KEPT_BELOW // 64, 8, 8, 16), (0, 6, 6, 16)])
def test_what_is_kept_of_an_older_kernel_is_given_back_by_any_call(shape):
    layer, x = made(CASES[1])
    layer(x)
    layer(x)
    layer(np.zeros(shape, np.float32))
    assert kept(layer) is not None
    layer.kernel.assign(layer.kernel.value)
    layer(np.zeros(shape, np.float32))
    assert kept(layer) is None


def test_buffers_of_a_pickle_are_not_the_weights():
    layer, x = made(CASES[1])
    buffers = []
    pickled = pickle.dumps(layer, protocol=5, buffer_callback=buffers.append)
    memories = [bytearray(buffer) for buffer in buffers]
    loaded = pickle.loads(pickled, buffers=memories)
    expected = [loaded(x) for _ in range(3)][-1]
    for memory in memories:
        memory[:] = bytes(len(memory))
    np.testing.assert_array_equal(loaded(x), expected)
    np.testing.assert_array_equal(loaded.kernel.value, layer.kernel.value)


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_have_a_kernel_of_their_own(copied):
    layer, x = made(CASES[1])
    expected = [layer(x) for _ in range(3)][-1]
    other = copied(layer)
    np.testing.assert_array_equal(other(x), expected)
    other.kernel.assign(np.zeros(other.kernel.shape))
    if other.kernel is not layer.kernel:
        np.testing.assert_array_equal(layer(x), expected)
    for _ in range(3):
        np.testing.assert_array_equal(other(x), np.broadcast_to(other.bias.value, expected.shape))


def test_threads_that_assign_meanwhile():
    layer, x = made((2, 1, 16, 128, 3, "channels_last"))
    kernel = layer.kernel.value
    values = [kernel, -kernel]
    results = []
    for value in values:
        layer.kernel.assign(value)
        results.append(copy.deepcopy(layer)(x))
    stop, wrong = threading.Event(), []

    def call():
        while not stop.is_set():
            y = layer(x)
            if not any(np.array_equal(y, result) for result in results):
                wrong.append(y)
                return

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(300):
        layer.kernel.assign(values[i % 2])
        layer(x)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    # And what is in force at the end is what comes out.
    for _ in range(3):
        np.testing.assert_array_equal(layer(x), results[299 % 2])
