"""Makes golden/gradients/*.npz: gradients by TensorFlow 2.15's GradientTape, torch's autograd and JAX's vjp.

    python tests/golden/make_golden_gradients.py tensorflow   # in the environment of make_golden.py
    python tests/golden/make_golden_gradients.py torch        # any torch
    python tests/golden/make_golden_gradients.py jax          # any JAX

Each .npz holds many cases: the array `cases` is JSON text, a list of {function, arguments, arrays, output}. A case
says: `function` of localconv.grad (or of localconv, for a transposed convolution), given these arguments and arrays, is
to give the array `output`. Places of arrays are [dtype, start, shape] in the flat array named by its dtype; several
cases share theirs.
"""

import itertools
import json
import math
import os
import pathlib
import sys

import numpy as np

FORMATS = ("channels_last", "channels_first")
rng = np.random.default_rng(1986)


class Family:
    """The cases of one .npz file."""

    def __init__(self, name):
        self.name, self.cases = name, []
        self.flat = {"float32": [], "float64": []}

    def add(self, function, arguments, output, **places):
        self.cases.append(
            {"function": function, "arguments": arguments, "arrays": places, "output": self.store(output)}
        )

    def add_gradients(self, function, arguments, x, kernel, grad_output, of_input, of_kernel):
        """Both gradients of a forward function, from its arguments and arrays."""
        places = [self.store(array) for array in (x, kernel, grad_output)]
        name = "inputs" if "local" in function else "x"
        of_x = {**arguments, "input_shape": x.shape}
        self.add(f"{function}_input", of_x, of_input, kernel=places[1], grad_output=places[2])
        of_k = {**arguments, "kernel_shape": kernel.shape}
        self.add(f"{function}_kernel", of_k, of_kernel, **{name: places[0]}, grad_output=places[2])

    def store(self, array):
        array = np.asarray(array)
        flat = self.flat[array.dtype.name]
        start = len(flat)
        flat.extend(array.ravel())
        return array.dtype.name, start, array.shape

    def save(self):
        path = pathlib.Path(__file__).with_name("gradients") / f"{self.name}.npz"
        path.parent.mkdir(exist_ok=True)
        flat = {name: np.asarray(values, name) for name, values in self.flat.items()}
        np.savez_compressed(path, cases=json.dumps(self.cases), **flat)
        print(f"{path.name}: {len(self.cases)} cases, {path.stat().st_size} bytes", flush=True)


def eighths(shape, dtype="float32"):
    """Values of few bits, so that every sum is exact and the files are small."""
    return (rng.integers(-32, 33, shape) / 8).astype(dtype)


def image(spatial, channels, data_format, dtype="float32", batch=2):
    return eighths(
        (batch, *spatial, channels) if data_format == "channels_last" else (batch, channels, *spatial), dtype
    )


def to_last(x, data_format):
    return x if data_format == "channels_last" else np.moveaxis(x, 1, -1)


def from_last(x, data_format):
    return x if data_format == "channels_last" else np.moveaxis(x, -1, 1)


def one_or_all(values):
    """A plain int for one spatial axis, else the tuple."""
    return values[0] if len(values) == 1 else values


# --- TensorFlow -------------------------------------------------------------------------------------------------------

LOCAL_WINDOWS = {  # (spatial, kernel_size, strides)
    1: [((7,), (3,), (1,)), ((9,), (2,), (2,)), ((9,), (2,), (3,)), ((5,), (5,), (1,))],
    2: [((5, 4), (3, 2), (1, 1)), ((6, 5), (2, 3), (2, 1)), ((5, 6), (1, 2), (2, 3))],
}
SAME_WINDOWS = [((7,), (3,), (1,)), ((7,), (2,), (2,)), ((4, 5), (3, 2), (1, 1)), ((5, 4), (2, 3), (2, 3))]
CONV_WINDOWS = {  # spatial, paddings, kernel sizes, strides
    1: ((11,), ("valid", "same", "causal"), [(2,), (3,)], [(1,), (2,), (3,)]),
    2: ((7, 5), ("valid", "same"), [(2, 3), (1, 1)], [(1, 1), (2, 2), (1, 3)]),
}
DILATED_WINDOWS = [((11,), (3,), (2,)), ((7, 8), (2, 3), (2, 1)), ((7, 8), (2, 2), (2, 2))]


def make_tensorflow():
    # oneDNN is off, as in make_golden.py.
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    local, shared, transposed = (Family(f"tensorflow_{name}") for name in ("local", "conv", "transpose"))
    for rank in (1, 2):
        for window, data_format in itertools.product(LOCAL_WINDOWS[rank], FORMATS):
            tensorflow_local(local, rank, *window, data_format)
    for window, data_format in itertools.product(SAME_WINDOWS, FORMATS):
        tensorflow_same_layer(local, *window, data_format)
    for rank in (1, 2):
        spatial, paddings, sizes, strides = CONV_WINDOWS[rank]
        turns = itertools.cycle(itertools.product(FORMATS, ("float32", "float32", "float64")))
        for padding, size, steps in itertools.product(paddings, sizes, strides):
            tensorflow_conv(shared, spatial, size, steps, (1,) * rank, padding, *next(turns))
    for (spatial, size, dilation), padding in itertools.product(DILATED_WINDOWS, ("valid", "same")):
        tensorflow_conv(shared, spatial, size, (1,) * len(size), dilation, padding, *next(turns))
    for padding, strides, data_format in itertools.product(("valid", "same"), ((1, 1), (2, 2), (2, 3)), FORMATS):
        tensorflow_transpose(transposed, (7, 5), (3, 2), strides, (1, 1), padding, data_format)
    for padding, data_format in itertools.product(("valid", "same"), FORMATS):
        tensorflow_transpose(transposed, (7, 6), (2, 2), (1, 1), (2, 2), padding, data_format)
    for family in (local, shared, transposed):
        family.save()


def taped(function, x, kernel):
    """(output's gradient drawn anew, gradient of x, gradient of the kernel) of a function of two tensors."""
    import tensorflow as tf

    x, kernel = tf.constant(x), tf.constant(kernel)
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        output = function(x, kernel)
    grad_output = eighths(output.shape, output.dtype.name)
    gradients = tape.gradient(output, [x, kernel], output_gradients=tf.constant(grad_output))
    return grad_output, *(gradient.numpy() for gradient in gradients)


def tensorflow_local(family, rank, spatial, kernel_size, strides, data_format, channels=2, filters=3):
    from keras import backend

    out = tuple((n - k) // s + 1 for n, k, s in zip(spatial, kernel_size, strides, strict=True))
    arguments = {"kernel_size": kernel_size, "strides": strides, "data_format": data_format}
    if rank == 2:
        arguments["output_shape"] = out
    x = image(spatial, channels, data_format)
    kernel = eighths((math.prod(out), math.prod(kernel_size) * channels, filters))
    function = getattr(backend, f"local_conv{rank}d")
    answer = taped(lambda x, kernel: function(x, kernel, **arguments), x, kernel)
    family.add_gradients(f"local_conv{rank}d", arguments, x, kernel, *answer)


def tensorflow_same_layer(family, spatial, kernel_size, strides, data_format, channels=2, filters=3):
    """A layer of implementation 2 with padding='same', whose weights have the plain layout only after a move."""
    import tensorflow as tf

    rank = len(spatial)
    x = image(spatial, channels, data_format)
    layer = getattr(tf.keras.layers, f"LocallyConnected{rank}D")(
        filters, kernel_size, strides, padding="same", implementation=2, use_bias=False, data_format=data_format
    )
    layer.build(x.shape)
    stored = eighths(layer.weights[0].shape)
    layer.set_weights([stored])
    x_tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x_tensor)
        output = layer(x_tensor)
    grad_output = eighths(output.shape)
    of_input, of_stored = tape.gradient(output, [x_tensor, layer.weights[0]], output_gradients=tf.constant(grad_output))
    arguments = {"kernel_size": kernel_size, "strides": strides, "padding": "same", "data_format": data_format}
    if rank == 2:
        arguments["output_shape"] = to_last(grad_output, data_format).shape[1:-1]
    moved = (arguments["kernel_size"], strides, data_format)
    kernel, of_kernel = plain_kernel(stored, *moved), plain_kernel(of_stored.numpy(), *moved)
    family.add_gradients(f"local_conv{rank}d", arguments, x, kernel, grad_output, of_input.numpy(), of_kernel)


def plain_kernel(stored, kernel_size, strides, data_format):
    """(positions, D, filters) from in + (C,) + out + (O,), or from (C,) + in + (O,) + out when channels_first.

    Rows that meet padding are 0.
    """
    rank = len(kernel_size)
    if data_format == "channels_first":
        stored = np.moveaxis(np.moveaxis(stored, 0, rank), rank + 1, -1)
    spatial, out = stored.shape[:rank], stored.shape[rank + 1 : -1]
    plain = np.zeros((*out, *kernel_size, stored.shape[rank], stored.shape[-1]), stored.dtype)
    for position, tap in itertools.product(np.ndindex(*out), np.ndindex(*kernel_size)):
        place = tuple(p * s - k // 2 + i for p, s, k, i in zip(position, strides, kernel_size, tap, strict=True))
        if all(0 <= i < n for i, n in zip(place, spatial, strict=True)):
            plain[position + tap] = stored[(*place, slice(None), *position)]
    if data_format == "channels_first":
        plain = np.moveaxis(plain, -2, rank)
    return plain.reshape(math.prod(out), -1, plain.shape[-1])


def tensorflow_conv(family, spatial, size, strides, dilation, padding, data_format, dtype):
    """channels_first is channels_last with the axes moved, for the reason that make_golden.py gives."""
    from keras import backend

    rank = len(spatial)
    x, kernel = image(spatial, 2, data_format, dtype), eighths((*size, 2, 3), dtype)
    plain = {"strides": one_or_all(strides), "padding": padding, "dilation_rate": one_or_all(dilation)}
    function = getattr(backend, f"conv{rank}d")
    grad_output, of_input, of_kernel = taped(
        lambda x, kernel: function(x, kernel, data_format="channels_last", **plain), to_last(x, data_format), kernel
    )
    moved = from_last(grad_output, data_format), from_last(of_input, data_format)
    family.add_gradients(f"conv{rank}d", {**plain, "data_format": data_format}, x, kernel, *moved, of_kernel)


def tensorflow_transpose(family, spatial, size, strides, dilation, padding, data_format):
    import tensorflow as tf
    from keras import backend

    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    sizes = zip(spatial, reach, strides, strict=True)
    before = [-(-n // s) if padding == "same" else (n - r) // s + 1 for n, r, s in sizes]
    x, kernel = image(before, 3, data_format), eighths((*size, 2, 3))
    arguments = {"strides": strides, "padding": padding, "data_format": data_format, "dilation_rate": dilation}
    arguments["output_shape"] = image(spatial, 2, data_format).shape
    output = backend.conv2d_transpose(tf.constant(x), tf.constant(kernel), **arguments)
    family.add("conv2d_transpose", arguments, output, x=family.store(x), kernel=family.store(kernel))


# --- torch ------------------------------------------------------------------------------------------------------------

TORCH_WINDOWS = {  # (spatial, kernel_size, strides, dilation, padding)
    1: [((9,), (3,), (1,), (2,), ((3, 1),)), ((9,), (3,), (2,), (1,), ((0, 2),)), ((8,), (2,), (5,), (1,), ((6, 4),))],
    2: [
        ((5, 4), (3, 2), (1, 1), (2, 1), ((2, 1), (0, 1))),
        ((5, 4), (2, 3), (2, 3), (1, 1), ((1, 0), (4, 5))),
        ((4, 4), (2, 2), (1, 1), (1, 3), ((0, 0), (1, 2))),
    ],
    3: [
        ((3, 4, 4), (2, 3, 2), (1, 1, 1), (1, 2, 1), ((1, 0), (2, 1), (0, 1))),
        ((4, 3, 5), (2, 2, 3), (2, 1, 3), (1, 1, 1), ((0, 1), (0, 0), (2, 3))),
        ((3, 5, 2), (3, 1, 2), (1, 4, 2), (1, 1, 1), ((2, 2), (1, 0), (0, 0))),
    ],
}
BOTH_STEPS = {1: ((12,), (3,), (2,), (2,), ((2, 1),)), 2: ((6, 5), (2, 2), (3, 2), (2, 1), ((1, 2), (3, 0)))}


def make_torch():
    shared, local, transposed = (Family(f"torch_{name}") for name in ("conv", "local", "transpose"))
    for rank in (1, 2):
        turns = itertools.cycle(itertools.product(FORMATS, ("float32", "float64")))
        for window, groups in itertools.product(TORCH_WINDOWS[rank], (1, 2, 4)):
            torch_conv(shared, *window, groups, *next(turns))
        for window, groups in itertools.product([*TORCH_WINDOWS[rank], BOTH_STEPS[rank]], (1, 2)):
            torch_local(local, *window, groups, *next(turns))
        for pad, (strides, dilation), groups in itertools.product((0, 1), ((1, 1), (2, 1), (3, 1), (1, 2)), (1, 2)):
            torch_transpose(transposed, rank, pad, strides, dilation, groups, *next(turns))
    for family in (shared, local, transposed):
        family.save()
    volumes = Family("torch_volumes")
    turns = itertools.cycle(itertools.product(FORMATS, ("float32", "float64")))
    for window, groups in itertools.product(TORCH_WINDOWS[3], (1, 2)):
        torch_conv(volumes, *window, groups, *next(turns))
    for pad, (strides, dilation), groups in itertools.product((0, 1), ((1, 1), (2, 1), (1, 2)), (1, 2)):
        torch_transpose(volumes, 3, pad, strides, dilation, groups, *next(turns))
    volumes.save()


def padded(x, padding):
    """x, a channels-first tensor, with (before, after) zeros around each spatial axis."""
    import torch.nn.functional as F

    return F.pad(x, [n for pair in reversed(padding) for n in pair])


def autograd(function, x, kernel, data_format):
    """As `taped`; the function gets x with the channels in front, and its output has them there."""
    import torch

    x_tensor = torch.tensor(np.moveaxis(to_last(x, data_format), -1, 1).copy(), requires_grad=True)
    kernel_tensor = torch.tensor(kernel, requires_grad=True)
    output = function(x_tensor, kernel_tensor)
    grad_output = eighths(tuple(output.shape), x.dtype.name)
    gradients = torch.autograd.grad(output, [x_tensor, kernel_tensor], torch.tensor(grad_output))
    of_input, of_kernel = (gradient.numpy() for gradient in gradients)
    back = [from_last(np.moveaxis(array, 1, -1), data_format) for array in (grad_output, of_input)]
    return *back, of_kernel


def torch_weight(kernel):
    """(filters, channels / groups, *size)"""
    rank = kernel.ndim - 2
    return kernel.permute(rank + 1, rank, *range(rank))


def torch_conv(family, spatial, size, strides, dilation, padding, groups, data_format, dtype, channels=4, filters=4):
    import torch.nn.functional as F

    rank = len(spatial)
    x, kernel = image(spatial, channels, data_format, dtype), eighths((*size, channels // groups, filters), dtype)
    convolution = getattr(F, f"conv{rank}d")

    def forward(x, kernel):
        steps = {"stride": strides, "dilation": dilation, "groups": groups}
        return convolution(padded(x, padding), torch_weight(kernel), **steps)

    plain = {"strides": one_or_all(strides), "dilation_rate": one_or_all(dilation), "padding": padding}
    arguments = {**plain, "groups": groups, "data_format": data_format}
    family.add_gradients(f"conv{rank}d", arguments, x, kernel, *autograd(forward, x, kernel, data_format))


def torch_local(family, spatial, size, strides, dilation, padding, groups, data_format, dtype, channels=2, filters=4):
    """Unshared: unfold, and a product with each position's matrix."""
    import torch
    import torch.nn.functional as F

    rank = len(spatial)
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    sizes = zip(spatial, padding, reach, strides, strict=True)
    out = tuple((n + sum(pair) - r) // s + 1 for n, pair, r, s in sizes)
    taps, inner, positions = math.prod(size), channels // groups, math.prod(out)
    x, kernel = image(spatial, channels, data_format, dtype), eighths((positions, taps * inner, filters), dtype)

    def forward(x, kernel):
        x = padded(x, padding)
        fill = (1,) * (2 - rank)  # unfold knows images only
        image = x.reshape(*x.shape[:2], *fill, *x.shape[2:])
        columns = F.unfold(image, fill + size, fill + dilation, stride=fill + strides)
        columns = columns.reshape(len(x), groups, inner, taps, positions)
        if data_format == "channels_first":
            weights = kernel.reshape(positions, inner, taps, groups, filters // groups)
            products = torch.einsum("bgctp,pctgf->bgfp", columns, weights)
        else:
            weights = kernel.reshape(positions, taps, inner, groups, filters // groups)
            products = torch.einsum("bgctp,ptcgf->bgfp", columns, weights)
        return products.reshape(len(x), filters, *out)

    plain = {"kernel_size": size, "strides": strides, "dilation_rate": dilation, "padding": padding}
    arguments = {**plain, "groups": groups, "data_format": data_format}
    if rank == 2:
        arguments["output_shape"] = out
    family.add_gradients(f"local_conv{rank}d", arguments, x, kernel, *autograd(forward, x, kernel, data_format))


def torch_transpose(family, rank, pad, strides, dilation, groups, data_format, dtype, channels=2, filters=4):
    """The last element of every row is reached only by output_padding."""
    import torch
    import torch.nn.functional as F

    before, size = (4, 3, 2)[:rank], (3, 2, 2)[:rank]
    extra = int(strides > 1)
    kernel = eighths((*size, channels // groups, filters), dtype)
    x = image(before, filters, data_format, dtype)
    steps = {"stride": strides, "padding": pad, "output_padding": extra, "dilation": dilation, "groups": groups}
    first = torch.tensor(np.moveaxis(to_last(x, data_format), -1, 1).copy())
    output = getattr(F, f"conv_transpose{rank}d")(first, torch_weight(torch.tensor(kernel)), **steps).numpy()
    output = from_last(np.moveaxis(output, 1, -1), data_format)
    arguments = {"strides": strides, "dilation_rate": dilation, "padding": ((pad, pad),) * rank, "groups": groups}
    arguments |= {"data_format": data_format, "output_shape": output.shape}
    places = {"x": family.store(x), "kernel": family.store(kernel)}
    family.add(f"conv{rank}d_transpose", arguments, output, **places)


# --- JAX --------------------------------------------------------------------------------------------------------------

BOTH_STEPS_3D = ((5, 4, 3), (2, 2, 1), (2, 1, 2), (1, 2, 1), ((1, 0), (1, 2), (0, 1)))


def make_jax():
    """Three axes, of which no other library has unshared convolutions: forward and both gradients."""
    import jax

    jax.config.update("jax_enable_x64", True)
    family = Family("jax_local_volumes")
    turns = itertools.cycle(itertools.product(FORMATS, ("float32", "float64")))
    for window in [*TORCH_WINDOWS[3], BOTH_STEPS_3D]:
        for _ in range(2):
            jax_local(family, *window, *next(turns))
    family.save()


def jax_local(family, spatial, size, strides, dilation, padding, data_format, dtype, channels=2, filters=3):
    """JAX's rows are channels outside, taps inside, as those of channels_first here."""
    import jax

    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    sizes = zip(spatial, padding, reach, strides, strict=True)
    out = tuple((n + sum(pair) - r) // s + 1 for n, pair, r, s in sizes)
    taps, positions = math.prod(size), math.prod(out)
    x, kernel = image(spatial, channels, data_format, dtype), eighths((positions, taps * channels, filters), dtype)

    def forward(x, kernel):
        if data_format == "channels_last":
            kernel = kernel.reshape(positions, taps, channels, filters).transpose(0, 2, 1, 3)
        return jax.lax.conv_general_dilated_local(
            x,
            kernel.reshape(*out, channels * taps, filters),
            strides,
            padding,
            size,
            rhs_dilation=dilation,
            dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )

    output, pull = jax.vjp(forward, to_last(x, data_format), kernel)
    grad_output = eighths(output.shape, dtype)
    of_input, of_kernel = pull(grad_output)
    plain = {"kernel_size": size, "strides": strides, "dilation_rate": dilation, "padding": padding}
    arguments = {**plain, "data_format": data_format, "output_shape": out}
    places = {"inputs": family.store(x), "kernel": family.store(kernel)}
    family.add("local_conv3d", arguments, from_last(output, data_format), **places)
    moved = [from_last(np.asarray(array), data_format) for array in (grad_output, of_input)]
    family.add_gradients("local_conv3d", arguments, x, kernel, *moved, of_kernel)


if __name__ == "__main__":
    {"tensorflow": make_tensorflow, "torch": make_torch, "jax": make_jax}[sys.argv[1]]()
