"""Models of these layers as ONNX files, which run where this package is not: in standard operators alone.

A file has the batch as its one unknown size, unless the model has more. Its constants are the weights, each once and in
its own dtype; kernels of 8 and 16 bits are made float32 where they are multiplied, scales multiply the sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod, sqrt
from os import PathLike
from typing import Any

import numpy as np

from ..core import formulation
from ..core.arguments import Ints
from ..core.arrays import FLOAT32, Array
from ..core.config import CHANNELS_FIRST
from ..core.families import CONV
from ..core.formulation import Piece
from ..core.windows import Convolution, axis_windows
from ..version import __version__
from .arguments import Shape, as_path
from .base import Layer
from .conv import Conv1D, Conv2D, Conv3D
from .core import Activation, Dense, Dropout, Flatten, MaxPooling1D, MaxPooling2D, MaxPooling3D
from .files.atomic import write_whole
from .keras_objects import activations
from .local import LocallyConnected1D, LocallyConnected2D, LocallyConnected3D
from .low_rank import LowRankLocallyConnected1D, LowRankLocallyConnected2D

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise ImportError(f"ONNX files need the package onnx ({error}): pip install 'onnx>=1.19'") from error

# The oldest that has all operators used here, so that runtimes that are some years old read the files.
OPSET = 17
# A file is one message of protobuf, of less than 2 GiB; the rest is for what is around the weights.
LARGEST_WEIGHTS = 2**31 - 2**24


class Graph:
    """The nodes and constants of a model as they are added; what flows between nodes is called by names."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._prefix = ""

    def begin(self, layer: Layer) -> None:
        """Name what comes next by a layer."""
        self._prefix = layer.name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; return its output."""
        output = f"{self._prefix}/{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def constant(self, value: Any, dtype: Any = None, name: str = "constant") -> str:
        """Add a constant; return its name."""
        label = f"{self._prefix}/{name}_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype), label))
        return label

    def number(self, value: float) -> str:
        """A constant number of float32."""
        return self.constant(np.float32(value))

    def sizes(self, values: Sequence[int] | Array) -> str:
        """A constant list of sizes, axes or indices."""
        return self.constant(values, np.int64)

    def float32(self, values: Array, name: str = "kernel") -> str:
        """A constant that is float32 where it is used, and in the file of its own dtype."""
        label = self.constant(values, name=name)
        return label if values.dtype == FLOAT32 else self.add("Cast", label, to=TensorProto.FLOAT)

    def reshaped(self, x: str, sizes: Sequence[int]) -> str:
        """x in another shape; -1 is whatever is left."""
        return self.add("Reshape", x, self.sizes(sizes))

    def transposed(self, x: str, order: Sequence[int]) -> str:
        """x with its axes in another order."""
        return x if list(order) == sorted(order) else self.add("Transpose", x, perm=list(order))


def export(model: Any, filepath: str | PathLike[str], overwrite: bool) -> None:
    """Write a model as an ONNX file; see `Sequential.export`."""
    path = as_path(filepath, "filepath")
    if path.suffix.lower() != ".onnx":
        raise ValueError(f"filepath must end in .onnx, got {str(path)!r}")
    if not model.built:
        raise ValueError(
            f"model {model.name!r} must be built before it is exported: give its first layer an input_shape, or call it"
        )
    proto = model_proto(model)
    write_whole(path, lambda file: file.write(proto.SerializeToString()), overwrite)


def model_proto(model: Any) -> Any:
    """The onnx.ModelProto of a built model, checked by the onnx package."""
    graph, shape, name = Graph(), model.input_shape, f"{model.layers[0].name if model.layers else model.name}_input"
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, _sizes(shape))]
    graph.begin(model)
    # A model without layers would have its input as its output, which ONNX has no word for.
    output = graph.add("Identity", _write(graph, model, name, shape))
    stored = sum(len(constant.raw_data) for constant in graph.constants)
    if stored > LARGEST_WEIGHTS:
        raise ValueError(f"weights must be at most {LARGEST_WEIGHTS} bytes for an ONNX file, got {stored}")
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, _sizes(model.compute_output_shape(shape)))]
    opsets = [helper.make_opsetid("", OPSET)]
    made = helper.make_model(
        helper.make_graph(graph.nodes, model.name, inputs, outputs, graph.constants),
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="localconv",
        producer_version=__version__,
    )
    onnx.checker.check_model(made, full_check=True)
    return made


def _sizes(shape: Shape) -> list[int | str]:
    """A shape with names for what is not known."""
    return [size if size is not None else f"size_{axis}" if axis else "batch" for axis, size in enumerate(shape)]


def _write(graph: Graph, layer: Layer, x: str, shape: Shape) -> str:
    """The nodes of a layer, or of a model's layers; return the output."""
    if layer.dtype != FLOAT32:
        raise ValueError(
            f"layers must be of float32 for an ONNX file, layer {layer.name!r} is of {layer.dtype}: make the model of "
            "its config with that dtype, and set_weights"
        )
    if hasattr(layer, "layers"):
        for inner in layer.layers:
            x, shape = _write(graph, inner, x, shape), inner.compute_output_shape(shape)
        return x
    writer = WRITERS.get(type(layer))
    if writer is None:
        raise ValueError(
            f"layers must be those of localconv.layers for an ONNX file, layer {layer.name!r} is of class "
            f"{type(layer).__name__}"
        )
    graph.begin(layer)
    return writer(graph, layer, x, shape)


# -------------------------------------------------------------------------------------------------- layers of one input


def _dense(graph: Graph, layer: Dense, x: str, shape: Shape) -> str:
    product = graph.add("MatMul", x, graph.float32(layer.kernel.value))
    return _activated(graph, layer, _plus(graph, product, None if layer.bias is None else layer.bias.value))


def _flatten(graph: Graph, layer: Flatten, x: str, shape: Shape) -> str:
    axes = [*range(len(shape))]
    moved = graph.transposed(x, [0, *axes[2:], 1]) if layer.data_format == CHANNELS_FIRST and len(shape) > 2 else x
    return graph.add("Flatten", moved, axis=1)


def _activation(graph: Graph, layer: Activation, x: str, shape: Shape) -> str:
    return _activated(graph, layer, x)


def _dropout(graph: Graph, layer: Dropout, x: str, shape: Shape) -> str:
    return x


def _pool(graph: Graph, layer: Any, x: str, shape: Shape) -> str:
    first, rank = layer.data_format == CHANNELS_FIRST, layer.rank
    window = {"kernel_shape": layer.pool_size, "strides": layer.strides}
    window |= _padding(layer, _spatial(shape, rank, first), layer.pool_size, (1,) * rank)
    pooled = graph.add("MaxPool", x if first else graph.transposed(x, _to_first(rank)), **window)
    return pooled if first else graph.transposed(pooled, _to_last(rank))


def _conv(graph: Graph, layer: Any, x: str, shape: Shape) -> str:
    first, rank = layer.data_format == CHANNELS_FIRST, layer.rank
    lead = shape[: -rank - 1]
    if len(lead) > 1:
        x = graph.reshaped(x, [-1, *_known(layer, shape[-rank - 1 :])])
    window = {"strides": layer.strides, "dilations": layer.dilation_rate, "group": layer.groups}
    window |= _padding(layer, _spatial(shape, rank, first), layer.kernel_size, layer.dilation_rate)
    inputs = [x if first else graph.transposed(x, _to_first(rank)), _kernel_of_conv(graph, layer)]
    if layer.bias is not None:
        inputs.append(graph.constant(layer.bias.value, name="bias"))
    y = graph.add("Conv", *inputs, kernel_shape=layer.kernel_size, **window)
    y = y if first else graph.transposed(y, _to_last(rank))
    if len(lead) > 1:
        output = layer.compute_output_shape(shape)
        y = graph.reshaped(y, [-1, *_known(layer, output[1:])])
    return _activated(graph, layer, y)


def _kernel_of_conv(graph: Graph, layer: Any) -> str:
    """The kernel as (filters, channels of a group, window)."""
    kernel = graph.float32(np.moveaxis(layer.kernel.value, (-1, -2), (0, 1)))
    if layer.kernel_scale is None:
        return kernel
    scales = np.moveaxis(layer.kernel_scale.value, -1, 0)[:, None]
    return graph.add("Mul", kernel, graph.constant(scales, name="scales"))


def _padding(layer: Any, spatial: Shape, window: Ints, dilation: Ints) -> dict[str, Any]:
    """The attributes for a layer's padding."""
    if layer.padding == "valid":
        return {}
    if None in spatial and layer.padding == "same":
        return {"auto_pad": "SAME_UPPER"}
    pads = []
    for n, k, s, d in zip(spatial, window, layer.strides, dilation, strict=True):
        # Causal padding is what it is for any size.
        size = n or 1
        before, windows = axis_windows(CONV, size, k, s, d, layer.padding)
        pads.append((before, max(0, (windows - 1) * s + (k - 1) * d + 1 - before - size)))
    return {"pads": [before for before, _ in pads] + [after for _, after in pads]}


def _spatial(shape: Shape, rank: int, channels_first: bool) -> Shape:
    return shape[-rank:] if channels_first else shape[-rank - 1 : -1]


def _to_first(rank: int) -> list[int]:
    """The order of axes that puts channels behind the batch."""
    return [0, rank + 1, *range(1, rank + 1)]


def _to_last(rank: int) -> list[int]:
    """The order of axes that puts them last again."""
    return [0, *range(2, rank + 2), 1]


def _known(layer: Layer, shape: Shape) -> Ints:
    """A shape of which all sizes must be known."""
    known = tuple(n for n in shape if n is not None)
    if len(known) < len(shape):
        raise ValueError(
            f"sizes must be known for an ONNX file of layer {layer.name!r}, whose input has more than one batch axis, "
            f"got {shape}"
        )
    return known


def _plus(graph: Graph, x: str, bias: Array | None) -> str:
    return x if bias is None else graph.add("Add", x, graph.constant(bias, name="bias"))


# ----------------------------------------------------------------------------------------------- locally connected ones


def _local(graph: Graph, layer: Any, x: str, shape: Shape) -> str:
    """A product of matrices at each position, of what it sees of the images with its rows of the kernel."""
    c, kernel, scales = layer._connections, layer.kernel.value, layer.kernel_scale
    if layer.implementation != 1:
        kernel = c.rows(kernel, layer.implementation)
    piece = formulation.whole(c)
    rows = graph.float32(formulation.rows_of(np, piece, kernel))
    total = graph.add("MatMul", _windows(graph, piece, x), rows)
    if scales is not None:
        total = graph.add("Mul", total, graph.constant(scales.value[:, None], name="scales"))
    total = _plus(graph, total, None if layer.bias is None else _bias_of_positions(c, layer.bias.value))
    # (positions, images, filters) in the order of the data format.
    y = graph.transposed(total, (1, 2, 0) if c.channels_first else (1, 0, 2))
    return _activated(graph, layer, graph.reshaped(y, c.output_shape(-1)))


def _windows(graph: Graph, piece: Piece, x: str) -> str:
    """What the positions see of images, as (positions, images, depth), in the order of a kernel's rows: by one Gather,
    which ONNX Runtime does in half the time of slices.
    """
    c = piece.convolution
    sizes = [n + before + after for n, (before, after) in zip(c.spatial, piece.padding, strict=True)]
    if piece.has_padding:
        pads = [[0, 0, *side] if c.channels_first else [0, *side, 0] for side in zip(*piece.padding, strict=True)]
        x = graph.add("Pad", x, graph.sizes(pads[0] + pads[1]))
    pixels = np.arange(prod(sizes)).reshape(sizes)
    firsts, taps = pixels[piece.places[0]].reshape(-1, 1), [int(pixels[place].flat[0]) for place in piece.places]
    # Runtimes add constants when they open a file; the sums could be as large as the kernel.
    seen, depth = graph.add("Add", graph.sizes(firsts), graph.sizes(taps)), c.taps * c.channels
    if c.channels_first:
        flat = graph.reshaped(x, [-1, c.channels, prod(sizes)])
        windows = graph.add("Gather", flat, seen, axis=2)
        return graph.reshaped(graph.transposed(windows, (2, 0, 1, 3)), [c.positions, -1, depth])
    windows = graph.add("Gather", graph.reshaped(x, [-1, prod(sizes), c.channels]), seen, axis=1)
    return graph.transposed(graph.reshaped(windows, [-1, c.positions, depth]), (1, 0, 2))


def _bias_of_positions(convolution: Convolution, bias: Array) -> Array:
    """A stored bias as (positions, 1, filters); Keras reshapes it to (filters, positions) with channels_first."""
    if convolution.channels_first:
        return bias.reshape(convolution.filters, convolution.positions).T[:, None]
    return bias.reshape(convolution.positions, 1, convolution.filters)


def _low_rank(graph: Graph, layer: Any, x: str, shape: Shape) -> str:
    """A convolution to the filters of all banks, whose results are weighted and added at every position."""
    c, (bank, _), rank = layer._convolution, layer._computed_kernel(), layer.spatial_axes
    befores, afters = zip(*c.padding, strict=True)
    rows = (c.channels, *c.kernel_size) if c.channels_first else (*c.kernel_size, c.channels)
    by_bank = np.moveaxis(bank.filters.reshape(layer.rank, *rows, c.filters), -1, 1)
    kernel = by_bank if c.channels_first else np.moveaxis(by_bank, -1, 2)
    maps = graph.add(
        "Conv",
        x if c.channels_first else graph.transposed(x, _to_first(rank)),
        graph.float32(kernel.reshape(-1, c.channels, *c.kernel_size)),
        kernel_shape=c.kernel_size,
        strides=layer.strides,
        pads=[*befores, *afters],
    )
    maps = graph.reshaped(maps, [-1, layer.rank, c.filters, c.positions])
    weighted = graph.add("Mul", maps, graph.constant(bank.weights.T[:, None], name="weights"))
    total = graph.add("ReduceSum", weighted, graph.sizes([1]), keepdims=0)
    if layer.bias is not None:
        total = _plus(graph, total, np.moveaxis(_bias_of_positions(c, layer.bias.value)[:, 0], 0, 1))
    y = graph.reshaped(total, [-1, c.filters, *c.output])
    return _activated(graph, layer, y if c.channels_first else graph.transposed(y, _to_last(rank)))


# ---------------------------------------------------------------------------------------------------------- activations


def _activated(graph: Graph, layer: Any, x: str) -> str:
    """The activation of a layer."""
    activation = layer.activation
    made_here = isinstance(activation, activations.ActivationFunction)
    writer = ACTIVATIONS.get(activation.function) if made_here else None
    if writer is None:
        raise ValueError(
            f"activations must be those of localconv.layers.activations for an ONNX file, layer {layer.name!r} has "
            f"{activations.function_label(activation)}"
        )
    return writer(graph, x, **activation.parameters)


def _of_operator(operator: str, **attributes: Any) -> Callable[..., str]:
    """The writer of an activation that ONNX has an operator for; its parameters go by the same names."""
    return lambda graph, x, **parameters: graph.add(operator, x, **attributes, **parameters)


def _relu(graph: Graph, x: str, alpha: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> str:
    if threshold == 0:
        y = graph.add("Relu", x)
    else:
        below = graph.add("LessOrEqual", x, graph.number(threshold))
        y = graph.add("Where", below, graph.number(0), x)
    if max_value is not None:
        y = graph.add("Clip", y, graph.number(0), graph.number(max_value))
    if alpha:
        below = graph.add("Relu", graph.add("Sub", graph.number(threshold), x))
        y = graph.add("Sub", y, graph.add("Mul", below, graph.number(alpha)))
    return y


def _relu6(graph: Graph, x: str) -> str:
    return graph.add("Clip", x, graph.number(0), graph.number(6))


def _gelu(graph: Graph, x: str, approximate: bool = False) -> str:
    if approximate:
        cube = graph.add("Mul", graph.add("Mul", x, x), x)
        inner = graph.add("Add", x, graph.add("Mul", cube, graph.number(activations.GELU_CUBE)))
        grown = graph.add("Tanh", graph.add("Mul", inner, graph.number(activations.ROOT_2_OVER_PI)))
    else:
        grown = graph.add("Erf", graph.add("Mul", x, graph.number(sqrt(0.5))))
    half = graph.add("Mul", x, graph.number(0.5))
    return graph.add("Mul", half, graph.add("Add", grown, graph.number(1)))


def _swish(graph: Graph, x: str) -> str:
    return graph.add("Mul", x, graph.add("Sigmoid", x))


def _mish(graph: Graph, x: str) -> str:
    return graph.add("Mul", x, graph.add("Tanh", graph.add("Softplus", x)))


ACTIVATIONS: dict[Callable[..., Any], Callable[..., str]] = {
    activations.elu.function: _of_operator("Elu"),
    activations.exponential.function: _of_operator("Exp"),
    activations.gelu.function: _gelu,
    activations.hard_sigmoid.function: _of_operator("HardSigmoid", alpha=0.2, beta=0.5),
    activations.leaky_relu.function: lambda graph, x, alpha=0.2: graph.add("LeakyRelu", x, alpha=alpha),
    activations.linear.function: lambda graph, x: x,
    activations.mish.function: _mish,
    activations.relu.function: _relu,
    activations.relu6.function: _relu6,
    activations.selu.function: _of_operator("Selu", alpha=activations.SELU_ALPHA, gamma=activations.SELU_SCALE),
    activations.sigmoid.function: _of_operator("Sigmoid"),
    activations.softmax.function: _of_operator("Softmax"),
    activations.softplus.function: _of_operator("Softplus"),
    activations.softsign.function: _of_operator("Softsign"),
    activations.swish.function: _swish,
    activations.tanh.function: _of_operator("Tanh"),
}

WRITERS: dict[type[Layer], Callable[[Graph, Any, str, Shape], str]] = {
    Activation: _activation,
    Conv1D: _conv,
    Conv2D: _conv,
    Conv3D: _conv,
    Dense: _dense,
    Dropout: _dropout,
    Flatten: _flatten,
    LocallyConnected1D: _local,
    LocallyConnected2D: _local,
    LocallyConnected3D: _local,
    LowRankLocallyConnected1D: _low_rank,
    LowRankLocallyConnected2D: _low_rank,
    MaxPooling1D: _pool,
    MaxPooling2D: _pool,
    MaxPooling3D: _pool,
}
