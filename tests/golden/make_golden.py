"""Makes the golden vectors in this folder with real TensorFlow 2.15: `python tests/golden/make_golden.py`.

Needs a Python 3.11 environment with `pip install 'tensorflow-cpu==2.15.*'` (which brings NumPy 1).

Each .npz holds many cases: the array `cases` is JSON text, a list of {function, arguments, arrays}. A case says:
localconv's `function`, given these arguments and the arrays `inputs` (or `x`), `kernel` and perhaps `bias`, is to give
the array `output`, which is TensorFlow's answer. `arrays` tells where each of them lies: [dtype, start, shape], in the
flat array named by its dtype (one zip member for every small array would double the size of the files).

Every window fits its image: where one does not, TensorFlow gives an empty array, and localconv an error.

Shapes are tiny: TensorFlow slices a locally connected layer's input once for every output position.
"""

import itertools
import json
import math
import os
import pathlib

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# oneDNN's Conv2D in TensorFlow 2.15 returns its input where the output is empty; the plain kernels are right.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import numpy as np
import tensorflow as tf
from keras import backend

FORMATS = ("channels_last", "channels_first")
rng = np.random.default_rng(2015)


class Family:
    """The cases of one .npz file."""

    def __init__(self, name):
        self.name, self.cases = name, []
        self.flat = {"float32": [], "float64": []}

    def add(self, function, arguments, output, **arrays):
        places = {key: self._store(np.asarray(array)) for key, array in {**arrays, "output": output}.items()}
        self.cases.append({"function": function, "arguments": arguments, "arrays": places})

    def _store(self, array):
        flat = self.flat[array.dtype.name]
        start = len(flat)
        flat.extend(array.ravel())
        return array.dtype.name, start, array.shape

    def save(self):
        path = pathlib.Path(__file__).with_name(f"{self.name}.npz")
        flat = {name: np.asarray(values, name) for name, values in self.flat.items()}
        np.savez_compressed(path, cases=json.dumps(self.cases), **flat)
        print(f"{path.name}: {len(self.cases)} cases, {path.stat().st_size} bytes", flush=True)


def normal(shape, dtype="float32"):
    return rng.standard_normal(shape).astype(dtype)


def image(spatial, channels, data_format, dtype="float32", batch=(2,)):
    last = data_format == "channels_last"
    return normal((*batch, *spatial, channels) if last else (*batch, channels, *spatial), dtype)


# --- K.local_conv1d and K.local_conv2d --------------------------------------------------------------------------------

LOCAL_WINDOWS = {  # (spatial, kernel_size, strides)
    1: [((7,), (3,), (1,)), ((9,), (2,), (2,)), ((8,), (3,), (3,)), ((6,), (1,), (1,)), ((5,), (5,), (1,))],
    2: [((5, 4), (3, 2), (1, 1)), ((6, 5), (2, 3), (2, 1)), ((5, 6), (3, 3), (2, 3)), ((3, 3), (1, 1), (1, 1))],
}


def local(rank):
    """Every window in both formats and dtypes, by turns without a bias, with one a filter, and with one an output."""
    family = Family(f"local{rank}d")
    biases = itertools.cycle([None, "filters", "full"])
    for window, data_format, dtype in itertools.product(LOCAL_WINDOWS[rank], FORMATS, ("float32", "float64")):
        add_local(family, rank, *window, data_format, dtype, next(biases))
    family.save()


def add_local(family, rank, spatial, kernel_size, strides, data_format, dtype, bias_kind, channels=2, filters=3):
    out = tuple((n - k) // s + 1 for n, k, s in zip(spatial, kernel_size, strides, strict=True))
    inputs = image(spatial, channels, data_format, dtype)
    kernel = normal((math.prod(out), math.prod(kernel_size) * channels, filters), dtype)
    arguments = {"kernel_size": kernel_size, "strides": strides, "data_format": data_format}
    if rank == 2:
        arguments["output_shape"] = out
    output = getattr(backend, f"local_conv{rank}d")(tf.constant(inputs), tf.constant(kernel), **arguments)
    arrays = {"inputs": inputs, "kernel": kernel}
    if bias_kind:
        arrays["bias"] = normal((filters,) if bias_kind == "filters" else (*out, filters), dtype)
        output = backend.bias_add(output, tf.constant(arrays["bias"]), data_format=data_format)
    family.add(f"local_conv{rank}d", arguments, output, **arrays)


# --- the locally connected layers with padding='same' -----------------------------------------------------------------

SAME_WINDOWS = {
    1: [((7,), (3,), (1,)), ((7,), (2,), (1,)), ((8,), (3,), (2,)), ((7,), (5,), (3,)), ((3,), (6,), (1,))],
    2: [((4, 5), (3, 3), (1, 1)), ((5, 4), (2, 3), (2, 1)), ((4, 5), (4, 2), (2, 3))],
}


def same():
    """Layers of implementation 2, with their weights in the plain layout (positions, D, filters).

    The rows of the plain kernel that meet padding are filled with noise, which is to have no effect.
    """
    family = Family("same_layers")
    for rank, data_format in itertools.product((1, 2), FORMATS):
        for window in SAME_WINDOWS[rank]:
            add_same(family, rank, *window, data_format)
    family.save()


def add_same(family, rank, spatial, kernel_size, strides, data_format, channels=2, filters=3):
    inputs = image(spatial, channels, data_format)
    layer = getattr(tf.keras.layers, f"LocallyConnected{rank}D")(
        filters, kernel_size, strides, padding="same", implementation=2, data_format=data_format
    )
    layer.build(inputs.shape)
    stored, bias = (normal(weight.shape) for weight in layer.weights)
    layer.set_weights([stored, bias])
    function, arguments = f"local_conv{rank}d", {"kernel_size": kernel_size, "strides": strides, "padding": "same"}
    if rank == 2:
        arguments["output_shape"] = tuple(layer.compute_output_shape(inputs.shape))[spatial_axes(data_format)]
    arguments["data_format"] = data_format
    kernel = plain_kernel(stored, kernel_size, strides, data_format)
    family.add(function, arguments, layer(inputs), inputs=inputs, kernel=kernel, bias=bias)


def spatial_axes(data_format):
    """Where the two spatial axes stand in a shape."""
    return slice(1, 3) if data_format == "channels_last" else slice(2, 4)


def plain_kernel(stored, kernel_size, strides, data_format):
    """(positions, D, filters) from in + (C,) + out + (O,), or from (C,) + in + (O,) + out when channels_first."""
    rank = len(kernel_size)
    if data_format == "channels_first":
        stored = np.moveaxis(np.moveaxis(stored, 0, rank), rank + 1, -1)
    spatial, out = stored.shape[:rank], stored.shape[rank + 1 : -1]
    plain = normal((*out, *kernel_size, stored.shape[rank], stored.shape[-1]))
    for position, tap in itertools.product(np.ndindex(*out), np.ndindex(*kernel_size)):
        place = tuple(p * s - k // 2 + i for p, s, k, i in zip(position, strides, kernel_size, tap, strict=True))
        if all(0 <= i < n for i, n in zip(place, spatial, strict=True)):
            plain[position + tap] = stored[(*place, slice(None), *position)]
    if data_format == "channels_first":
        plain = np.moveaxis(plain, -2, rank)
    return plain.reshape(math.prod(out), -1, plain.shape[-1])


# --- K.conv1d and K.conv2d --------------------------------------------------------------------------------------------


CONV_WINDOWS = {  # spatial, paddings, kernel sizes, (strides, dilation)
    1: (
        (11,),
        ("valid", "same", "causal"),
        [(2,), (3,), (4,)],
        [((1,), (1,)), ((2,), (1,)), ((3,), (1,)), ((1,), (2,)), ((1,), (3,))],
    ),
    2: (
        (7, 5),
        ("valid", "same"),
        [(2, 3), (3, 2), (1, 1)],
        [((1, 1), (1, 1)), ((2, 3), (1, 1)), ((1, 1), (2, 1)), ((1, 1), (2, 2))],
    ),
    3: (
        (4, 5, 3),
        ("valid", "same"),
        [(2, 3, 2), (3, 1, 2), (1, 1, 1)],
        [((1, 1, 1), (1, 1, 1)), ((2, 1, 2), (1, 1, 1)), ((3, 2, 1), (1, 1, 1))],
    ),
}
# TensorFlow has neither groups nor dilation for three axes on a processor.
GROUPS = {1: (1, 2), 2: (1, 2), 3: (1,)}


def conv(rank):
    """Every padding, size and step; the formats, dtypes and groups take turns."""
    family = Family(f"conv{rank}d")
    spatial, paddings, sizes, steps = CONV_WINDOWS[rank]
    turns = itertools.cycle(itertools.product(GROUPS[rank], FORMATS, ("float32", "float32", "float64")))
    for step, padding, size in itertools.product(steps, paddings, sizes):
        add_conv(family, spatial, size, *step, padding, next(turns))
    for padding, step in itertools.product(("valid", "same"), (steps[0], steps[-1])):
        add_conv(family, spatial, sizes[1], *step, padding, batch=(2, 1))
        add_conv(family, spatial, sizes[1], *step, padding, batch=(0,))
    family.save()


def add_conv(family, spatial, size, strides, dilation, padding, variant=(1, FORMATS[0], "float32"), batch=(1,)):
    groups, data_format, dtype = variant
    rank = len(spatial)
    x = image(spatial, 4, data_format, dtype, batch)
    kernel = normal((*size, 4 // groups, 6), dtype)
    # K.conv1d pads the channels when causal and channels_first (a fault of Keras's): there, and so everywhere, the
    # reference is channels_last with the axes moved. Elsewhere K.conv* transposes around the convolution just so.
    last = x if data_format == "channels_last" else np.moveaxis(x, 1, -1)
    plain = {"strides": strides, "padding": padding, "dilation_rate": dilation}
    if rank == 1:
        plain |= {"strides": strides[0], "dilation_rate": dilation[0]}
    output = getattr(backend, f"conv{rank}d")(tf.constant(last), tf.constant(kernel), **plain).numpy()
    if data_format == "channels_first":
        output = np.moveaxis(output, -1, 1)
    arguments = {**plain, "data_format": data_format, "groups": groups}
    family.add(f"conv{rank}d", arguments, output, x=x, kernel=kernel)


if __name__ == "__main__":
    for rank in (1, 2):
        local(rank)
        conv(rank)
    same()
    conv(3)
