"""Layers of Keras 2, and of snippets that PyTorch's users pass on, as modules; and modules as theirs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..convert import LAYOUTS, convert, convert_bias
from ..core.arguments import ZEROS, Ints, ints, is_channels_first
from ..core.arrays import Array
from ..core.geometry import Mismatch, Names, geometry_of
from ..core.spec import local_spec
from ..core.windows import Convolution
from .modules import LocalConv1d, LocalConv2d, LocalConv3d

__all__ = ["from_keras", "from_snippet", "to_keras", "to_snippet"]

LocalConv = LocalConv1d | LocalConv2d | LocalConv3d
# What errors call the shapes of a layer's input and of its kernel.
NAMES = Names("input_shape", "kernel")
MODULES = {1: LocalConv1d, 2: LocalConv2d, 3: LocalConv3d}
# The layouts whose shapes tell what a module must be, and what its users call their axes.
SNIPPETS = {
    "torch_snippet": "(1, out_channels, in_channels, *output_size, prod(kernel_size))",
    "torch_conv2d_local": "(*output_size, out_channels, in_channels, *kernel_size)",
    "chainer": "(out_channels, *output_size, in_channels, *kernel_size)",
    "lasagne": "(out_channels, in_channels, *kernel_size, *output_size)",
    "lasagne_correlation": "(out_channels, in_channels, *kernel_size, *output_size)",
    "megengine": "(groups, *output_size, in_channels / groups, *kernel_size, out_channels / groups)",
}


def from_keras(
    layer: Any,
    implementation: int | None = None,
    *,
    input_shape: Sequence[int | None] | None = None,
    kernel_size: int | Sequence[int] | None = None,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str | None = None,
    ignore_activation: bool = False,
) -> LocalConv:
    """A module that computes what a LocallyConnected1D, LocallyConnected2D or LocallyConnected3D does.

    Parameters
    ----------
    layer : layer, or sequence of arrays
        A built layer of `localconv.layers`, of `localconv.keras`, of Keras 2 or of tf.keras; or its weights, kernel and
        perhaps bias, as ``get_weights`` returns them.
    implementation : {1, 2, 3}, optional
        How the kernel is stored. Default: what the layer says, 1 for arrays.
    input_shape : sequence of int or None, optional
        The layer's input shape with the batch axis, in its data format; needed for arrays, and for layers that do not
        know it.
    kernel_size, strides, padding, data_format : optional
        The layer's, for arrays.
    ignore_activation : bool, optional
        Leave out an activation, which the module has none of, instead of refusing it.

    Returns
    -------
    LocalConv1d, LocalConv2d or LocalConv3d
        Of the weights' dtype. Its inputs are (N, C, ...), whatever the layer's data format.

    Raises
    ------
    ValueError, TypeError
        For what is no such layer, for shapes that do not fit, and for an activation that is not linear.

    Notes
    -----
    Keras's 'same' is kept exactly, where it differs from PyTorch's too: as pairs of padding before and after.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from localconv.layers import LocallyConnected1D
    >>> from localconv.torch import from_keras
    >>> layer = LocallyConnected1D(5, 3, input_shape=(10, 4))
    >>> layer.build((None, 10, 4))
    >>> from_keras(layer)
    LocalConv1d(4, 5, kernel_size=(3,), input_size=(10,), stride=(1,))
    """
    options = {"kernel_size": kernel_size, "strides": strides, "padding": padding, "data_format": data_format}
    options |= {"dilation_rate": 1, "groups": 1}
    if hasattr(layer, "get_weights"):
        weights = layer.get_weights()
        config: Mapping[str, Any] = layer.get_config()
        if "kernel_size" not in config or "implementation" not in config:
            raise TypeError(f"layer must be locally connected, got {type(layer).__name__}")
        if getattr(layer, "quantization_mode", None) is not None:
            raise ValueError(f"layer must have a float kernel, got one quantized to {layer.quantization_mode!r}")
        if config.get("activation") not in (None, "linear") and not ignore_activation:
            raise ValueError(
                f"layer must have no activation, got {config['activation']!r}: a module has none. With "
                "ignore_activation=True it is left out; put the module of torch.nn behind"
            )
        # Layers of Keras 2 have neither dilation nor groups.
        options = options | {name: config[name] for name in options if name in config}
        implementation = config["implementation"] if implementation is None else implementation
        input_shape = input_shape or getattr(layer, "input_shape", None)
    else:
        weights = list(layer)
    if len(weights) not in (1, 2):
        raise ValueError(f"layer must have a kernel and perhaps a bias, got {len(weights)} arrays")
    if input_shape is None or options["kernel_size"] is None:
        missing = "input_shape" if input_shape is None else "kernel_size"
        raise ValueError(f"{missing} must be given where the layer does not know it")
    return _from_keras(weights, implementation or 1, input_shape, options)


def _from_keras(
    weights: Sequence[ArrayLike], implementation: int, input_shape: Sequence[int | None], options: Mapping[str, Any]
) -> LocalConv:
    rank = len(input_shape) - 2
    if rank not in MODULES:
        raise ValueError(f"input_shape must have 3 to 5 axes with the batch, got {input_shape!r}")
    spec = local_spec(rank, **options)
    assert spec.kernel_size is not None
    known = [n for n in input_shape[1:] if n is not None]
    sizes = ints(known, rank + 1, "input_shape", scalar=False)
    channels, spatial = (sizes[0], sizes[1:]) if spec.channels_first else (sizes[-1], sizes[:-1])
    name = _keras_name(implementation, spec.channels_first)
    window: dict[str, Any] = {}
    if implementation > 1:
        # What these store depends on which pixels a position meets.
        window = {"input_size": spatial, "channels": channels, "strides": spec.strides, "padding": spec.padding}
    rows = convert(weights[0], name, "torch", spec.kernel_size, **window)
    convolution = Convolution(spec, spatial, channels, rows.shape[-1])
    try:
        geometry_of(spec, convolution.input_shape(1), rows.shape)
    except Mismatch as error:
        raise error.named(NAMES) from None
    pairs, output = convolution.padding, convolution.output
    module = MODULES[rank](
        channels,
        rows.shape[2],
        spec.kernel_size,
        spatial,
        spec.strides,
        pairs if any(map(any, pairs)) else 0,
        spec.dilation,
        spec.groups,
        bias=len(weights) == 2 and (np.ndim(weights[1]) > 1 or "shared"),
        dtype=torch.from_numpy(np.empty(0, rows.dtype)).dtype,
    )
    _fill(module, rows, convert_bias(weights[1], name, "torch", output) if len(weights) == 2 else None)
    return module


def to_keras(module: LocalConv, implementation: int = 1, data_format: str = "channels_last") -> list[Array]:
    """The weights of a module as a LocallyConnected1D, LocallyConnected2D or LocallyConnected3D stores them.

    Parameters
    ----------
    module : LocalConv1d, LocalConv2d or LocalConv3d
        Without dilation, groups and another padding_mode than 'zeros', which Keras's layers have not.
    implementation : {1, 2, 3}, optional
    data_format : {'channels_last', 'channels_first'}, optional

    Returns
    -------
    list of ndarray
        Kernel, and bias if there is one; of float32 where the module has 16 bits. Copies.

    Raises
    ------
    ValueError, TypeError
        For other modules and arguments.

    Examples
    --------
    >>> from localconv.torch import LocalConv1d, to_keras
    >>> [w.shape for w in to_keras(LocalConv1d(4, 5, 3, 10), implementation=2)]
    [(10, 4, 8, 5), (8, 5)]
    """
    _check_module(module)
    if max(module.dilation) > 1 or module.groups > 1:
        raise ValueError(f"module must have neither dilation nor groups, got {module}")
    if module.padding_mode != ZEROS:
        raise ValueError(
            f"module must have padding_mode={ZEROS!r}, which is all that Keras's layers have, got {module}"
        )
    assert module.input_size is not None
    assert module.output_size is not None
    name = _keras_name(implementation, is_channels_first(data_format))
    ends = module._window.padding
    kernel = convert(
        _array(module.weight),
        "torch",
        name,
        module.kernel_size,
        input_size=module.input_size,
        strides=module.stride,
        padding=list(zip(ends[::2], ends[1::2], strict=True)),
    )
    if module.bias is None:
        return [kernel]
    bias = _array(module.bias)
    if bias.ndim == 1:
        # Keras has one for each position.
        bias = np.broadcast_to(bias[(..., *[None] * len(module.output_size))], (*bias.shape, *module.output_size))
    return [kernel, convert_bias(bias, "torch", name, module.output_size)]


def from_snippet(
    weight: Tensor | ArrayLike,
    bias: Tensor | ArrayLike | None = None,
    *,
    layout: str = "torch_snippet",
    kernel_size: int | Sequence[int] | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | None = None,
    dilation: int | Sequence[int] = 1,
    padding_mode: str = ZEROS,
    input_size: int | Sequence[int] | None = None,
) -> LocalConv:
    """A module from the parameters of the locally connected layers that are passed on as snippets, or that other
    libraries had.

    The snippets unfold the input, multiply it by a weight of shape
    ``(1, out_channels, in_channels, *output_size, prod(kernel_size))`` and sum.

    Parameters
    ----------
    weight : Tensor or array_like
    bias : Tensor or array_like, optional
        ``(1, out_channels, *output_size)``, or (out_channels,). In other layouts without the first axis; MegEngine's
        layer has none.
    layout : str, optional
        How the weight's axes lie, by the names that `localconv.convert` has for them:

        - 'torch_snippet': as above
        - 'torch_conv2d_local': ``(*output_size, out_channels, in_channels, *kernel_size)``, the ``Conv2dLocal`` of
          pytorch issue 499, and Lua Torch's SpatialConvolutionLocal
        - 'chainer': ``(out_channels, *output_size, in_channels, *kernel_size)``, Chainer's LocalConvolution2D
        - 'lasagne': ``(out_channels, in_channels, *kernel_size, *output_size)`` with the taps in reverse order,
          Lasagne's LocallyConnected2DLayer; 'lasagne_correlation', where that has ``flip_filters=False``
        - 'megengine': ``(groups, *output_size, in_channels / groups, *kernel_size, out_channels / groups)``,
          MegEngine's LocalConv2d
    kernel_size : int or sequence of ints, optional
        Default: what the weight's shape says; a window that is as large along all axes where it has one axis for all.
    stride, padding, dilation : optional
        As the snippet's. Without `padding` none, or Lasagne's 'same', which is all that its layer has.
    padding_mode : {'zeros', 'reflect', 'replicate', 'circular'}, optional
        What padding holds, as in `LocalConv2d`: for those who pad with `torch.nn.functional.pad` or by MegEngine.
    input_size : int or sequence of ints, optional
        Default: the smallest that has such an output.

    Returns
    -------
    LocalConv1d, LocalConv2d or LocalConv3d
        Of the weight's dtype and device.

    Raises
    ------
    ValueError, TypeError
        For shapes and sizes that do not fit.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch import from_snippet
    >>> from_snippet(torch.zeros(1, 16, 3, 30, 30, 9), torch.zeros(1, 16, 30, 30))
    LocalConv2d(3, 16, kernel_size=(3, 3), input_size=(32, 32), stride=(1, 1))
    """
    given = weight if isinstance(weight, Tensor) else torch.from_numpy(np.array(weight))
    if not isinstance(layout, str) or layout not in SNIPPETS:
        raise ValueError(f"layout must be one of {', '.join(SNIPPETS)}, got {layout!r}")
    if bias is not None and LAYOUTS[layout].bias is None:
        raise ValueError(f"bias must be None for layout={layout!r}, which has none")
    lengths = _axes_of(tuple(given.shape), layout)
    rank, output = len(lengths["p"]), lengths["p"]
    size = _window_of(lengths, rank, kernel_size)
    steps, dilated = ints(stride, rank, "stride"), ints(dilation, rank, "dilation")
    if padding is None:
        same = layout.startswith("lasagne")
        pairs = [(k // 2, k - 1 - k // 2) if same else (0, 0) for k in size]
    else:
        pairs = [(p, p) for p in ints(padding, rank, "padding", minimum=0)]
    if input_size is None:
        axes = zip(output, steps, size, dilated, pairs, strict=True)
        input_size = [(n - 1) * s + (k - 1) * d + 1 - sum(pair) for n, s, k, d, pair in axes]
    groups = lengths.get("g", (1,))[0]
    module = MODULES[rank](
        lengths["c"][0] * groups,
        lengths["o"][0] * groups if "o" in lengths else lengths["f"][0],
        size,
        input_size,
        steps,
        pairs if any(before != after for before, after in pairs) else [before for before, _ in pairs],
        dilated,
        groups,
        bias=bias is not None and (np.ndim(bias) > 1 or "shared"),  # type: ignore[arg-type]  # of tensors too
        padding_mode=padding_mode,
        device=given.device,
        dtype=given.dtype,
    )
    if module.output_size != output:
        raise ValueError(f"input_size must give the output size {output}, got {input_size!r}")
    terms = None if bias is None else convert_bias(_array(bias), layout, "torch", output)
    _fill(module, convert(_array(given), layout, "torch", size), terms)
    return module


def _axes_of(shape: Ints, layout: str) -> dict[str, Ints]:
    """The lengths of a snippet's weight by the letters of its layout. ValueError if the shape is not of that."""
    words = LAYOUTS[layout].kernel.split()
    several = sum(word in "pk" for word in words)
    rank, more = divmod(len(shape) - len(words) + several, several)
    axes: dict[str, Ints] = {}
    start = 0
    for word in words:
        count = rank if word in "pk" else 1
        axes[word] = shape[start : start + count]
        start += count
    if rank not in MODULES or more or axes.get("1", (1,)) != (1,) or 0 in shape:
        known = "; ".join(f"{name!r}: {text}" for name, text in SNIPPETS.items())
        raise ValueError(
            f"weight must have shape {SNIPPETS[layout]} for layout={layout!r}, got {shape}. Layouts that are known are "
            f"{known}"
        )
    return axes


def _window_of(lengths: Mapping[str, Ints], rank: int, kernel_size: int | Sequence[int] | None) -> Ints:
    """The window that a weight of these axes has. ValueError if its shape does not tell, or tells another."""
    if kernel_size is None and "k" in lengths:
        return lengths["k"]
    taps = math.prod(lengths["k" if "k" in lengths else "t"])
    if kernel_size is None:
        root = round(taps ** (1 / rank))
        if root**rank != taps:
            shape = "square" if rank == 2 else "cube"
            raise ValueError(f"kernel_size must be given for a weight of {taps} taps, which are no {shape}")
        kernel_size = root
    size = ints(kernel_size, rank, "kernel_size")
    if size != lengths.get("k", size):
        raise ValueError(f"kernel_size must be {lengths['k']}, as weight has it, got {kernel_size!r}")
    if math.prod(size) != taps:
        raise ValueError(f"kernel_size must have {taps} taps, as weight has, got {kernel_size!r}")
    return size


def to_snippet(module: LocalConv) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a module, as the snippets that `from_snippet` reads have them.

    Parameters
    ----------
    module : LocalConv1d, LocalConv2d or LocalConv3d
        Without groups.

    Returns
    -------
    weight : Tensor
        ``(1, out_channels, in_channels, *output_size, prod(kernel_size))``.
    bias : Tensor or None
        ``(1, out_channels, *output_size)``, or (out_channels,). Both are copies of the module's dtype and device.

    Raises
    ------
    ValueError, TypeError
        For other modules.

    Examples
    --------
    >>> from localconv.torch import LocalConv1d, to_snippet
    >>> [tuple(t.shape) for t in to_snippet(LocalConv1d(4, 5, 3, 10))]
    [(1, 5, 4, 8, 3), (1, 5, 8)]
    """
    _check_module(module)
    if module.groups > 1:
        raise ValueError(f"module must have no groups, got {module}")
    size = module.output_size
    weight = convert(_array(module.weight), "torch", "torch_snippet", module.kernel_size, output_size=size)
    like = module.weight
    made = torch.from_numpy(np.array(weight)).to(like.device, like.dtype)
    if module.bias is None:
        return made, None
    bias = convert_bias(_array(module.bias), "torch", "torch_snippet", size)
    return made, torch.from_numpy(np.array(bias)).to(like.device, like.dtype)


def _keras_name(implementation: int, channels_first: bool) -> str:
    name = f"keras_{implementation}" + "_channels_first" * channels_first
    if name not in LAYOUTS:
        raise ValueError(f"implementation must be 1, 2 or 3, got {implementation!r}")
    return name


def _check_module(module: Any) -> None:
    if not isinstance(module, LocalConv):
        raise TypeError(f"module must be a LocalConv1d, LocalConv2d or LocalConv3d, got {type(module).__name__}")
    if module.output_size is None:
        raise ValueError("module must have seen an input: a lazy one has no weights before")
    if module._is_int8:
        raise ValueError(f"module must have a float weight, got {module}")


def _array(value: Any) -> Array:
    """A tensor or array as an array, which has no 16 bits of PyTorch's."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype == torch.bfloat16 else value
        # A copy: `Tensor.numpy` alone would pin the storage.
        value = value.clone().numpy()
    return np.asarray(value)


def _fill(module: LocalConv, weight: Array, bias: Array | None) -> None:
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(np.array(weight)))
        if bias is not None:
            assert module.bias is not None
            module.bias.copy_(torch.from_numpy(np.array(bias)))
