"""Locally connected layers as modules, in the manner of torch.nn.Conv2d."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.fx import Proxy, Tracer
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter

from ..core.arguments import PADDING_MODES, ZEROS, ints
from ..core.borders import wanted_padding
from ..core.windows import depth_of
from ..docstrings import docstring_from_2d
from ..quantization import BLOCK
from ..quantization import quantize as quantize_array
from .arguments import check_tensor
from .functional import (
    convolve,
    convolve_int8,
    output_padding_for,
    reject_named_padding,
    transpose,
    transpose_int8,
    window_for,
)
from .window import LARGEST_SIZE, IntOrInts, Padding, Window

__all__ = [
    "LazyLocalConv1d",
    "LazyLocalConv2d",
    "LazyLocalConv3d",
    "LocalConv1d",
    "LocalConv2d",
    "LocalConv3d",
    "LocalConvTranspose1d",
    "LocalConvTranspose2d",
    "LocalConvTranspose3d",
]


# Attributes by which windows lie.
_OF_THE_WINDOW = frozenset(("kernel_size", "stride", "padding", "dilation", "groups"))


class _LocalConvNd(nn.Module):
    """What the modules of all ranks share, transposed or not."""

    _rank: int
    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrInts,
        stride: IntOrInts,
        padding: Padding,
        dilation: IntOrInts,
        groups: int,
        bias: bool | str,
        padding_mode: str,
    ) -> None:
        super().__init__()
        if not isinstance(bias, bool) and bias != "shared":
            raise ValueError(f"bias must be True, False or 'shared', got {bias!r}")
        self._window = window = window_for(self._rank, kernel_size, stride, padding, dilation, groups)
        (self.in_channels,), (self.out_channels,) = (
            ints(in_channels, 1, "in_channels", 0),
            ints(out_channels, 1, "out_channels"),
        )
        self.kernel_size, self.stride, self.dilation = window.kernel_size, window.stride, window.dilation
        pairs = tuple(zip(window.padding[::2], window.padding[1::2], strict=True))
        symmetric = all(before == after for before, after in pairs)
        self.padding = padding if isinstance(padding, str) else window.padding[::2] if symmetric else pairs
        self.groups, self._bias, self.padding_mode = window.groups, bias, padding_mode
        if self.in_channels % groups:
            raise ValueError(f"in_channels must be divisible by groups, got {in_channels} and {groups}")
        if self.out_channels % groups:
            raise ValueError(f"out_channels must be divisible by groups, got {out_channels} and {groups}")

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to change how windows lie: the weight is for the positions of these."""
        if name in _OF_THE_WINDOW and name in self.__dict__:
            raise AttributeError(
                f"{name} of a {type(self).__name__} cannot be changed from {getattr(self, name)} to {value}: its "
                "weight is for the windows that it was made with. Make a new module"
            )
        if name == "padding_mode":  # which may be changed, as that of torch.nn.Conv2d
            self._check_padding_mode(value)
        super().__setattr__(name, value)

    def _check_padding_mode(self, padding_mode: Any) -> None:
        """ValueError unless what is to be in padding is known."""
        if padding_mode not in PADDING_MODES:
            known = ", ".join(map(repr, PADDING_MODES))
            raise ValueError(f"padding_mode must be one of {{{known}}}, but got padding_mode={padding_mode!r}")

    def _shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Those of the weight and of the bias."""
        raise NotImplementedError

    def _make_parameters(self, device: Any, dtype: torch.dtype | None) -> None:
        weight, bias = self._shapes()
        self.weight = nn.Parameter(torch.empty(weight, device=device, dtype=dtype))
        if self._bias:
            self.bias = nn.Parameter(torch.empty(bias, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias uniformly within 1 / sqrt(fan) of 0, as `torch.nn.Conv2d` does.

        The fan is that of one position: prod(kernel_size) * channels / groups.
        """
        bound = 1 / math.sqrt(self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """Return the constructor's arguments that differ from their defaults."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        if self.input_size is not None:
            parts.append(f"input_size={self.input_size}")
        parts.append(f"stride={self.stride}")
        if self.padding not in ((0,) * self._rank, "valid"):
            parts.append(f"padding={self.padding!r}")
        if max(self.dilation) > 1:
            parts.append(f"dilation={self.dilation}")
        if self.groups > 1:
            parts.append(f"groups={self.groups}")
        if self._bias is not True:
            parts.append(f"bias={self._bias!r}")
        if self.padding_mode != ZEROS:
            parts.append(f"padding_mode={self.padding_mode}")
        parts += self._more_repr()
        if self._is_int8:
            parts.append("weight=int8")
        return ", ".join(parts)

    def _more_repr(self) -> list[str]:
        """What a subclass adds."""
        return []

    def _as_leaf(self, input: Any) -> Any:
        """What a call with something else than a tensor is for torch.fx: one call of this module, as of those of
        torch.nn. None: this module itself is what is traced. TypeError for what is no proxy.
        """
        if not isinstance(input, Proxy):
            check_tensor("input", input)
        tracer = input.tracer
        path = tracer.path_of_module(self) if isinstance(tracer, Tracer) else ""
        if not path and self._is_int8:
            raise TypeError(
                f"input must be a Tensor, got {type(input).__name__}: torch.fx can trace a module that has this "
                f"{type(self).__name__}, which is int8, but not the {type(self).__name__} alone"
            )
        return tracer.create_proxy("call_module", path, (input,), {}) if path else None

    def __prepare_scriptable__(self) -> Any:
        """`torch.jit.script` asks this first."""
        raise RuntimeError(
            f"torch.jit.script cannot compile {type(self).__name__}: trace it with torch.jit.trace in the context of "
            "localconv.torch.portable(), and put the traced module in its place before the model is scripted"
        )

    def _check_image(self, input: Tensor) -> None:
        """RuntimeError for images of another size, or with other channels, than the module was made for.

        Another size can have as many positions, to which a weight would belong that was learned for other ones.
        """
        if torch.jit.is_tracing() or not isinstance(input, Tensor):
            return  # sizes are tensors then, or proxies, and to compare them is what a trace cannot keep
        channels, size = input.shape[-self._rank - 1 : -self._rank], input.shape[-self._rank :]
        if channels == (self.in_channels,) and size == self.input_size:
            return
        if input.dim() not in (self._rank + 1, self._rank + 2) or self.input_size is None:
            return  # the functions refuse the one; the other is a lazy module whose weights were loaded
        if channels == (self.in_channels,) and self._takes(tuple(size)):
            return
        made_for = [self.in_channels, *self.input_size]
        remedy = f"the images must have in_channels={self.in_channels} channels, in the axis behind the batch"
        if channels == (self.in_channels,):
            remedy = (
                "a module has weights for the positions of one size alone. Resize or crop the images, or make a module "
                "for theirs"
            )
        raise RuntimeError(
            f"Expected images of size {made_for}, [in_channels, *input_size], for which this {type(self).__name__} was "
            f"made with input_size={self.input_size}, but got input of size {list(input.shape)}: {remedy}"
        )

    def _takes(self, size: tuple[int, ...]) -> bool:
        """Whether images of that size have the positions that the weight is for."""
        return size == self.input_size

    input_size: tuple[int, ...] | None
    output_size: tuple[int, ...] | None

    # A module that was pickled before there was such an argument has the class's.
    padding_mode = ZEROS
    # A module that was pickled before there was `quantize` has the class's.
    _is_int8 = False
    weight_values: Tensor
    weight_scales: Tensor

    def quantize(self, mode: str = "int8") -> Self:
        """Keep the weight in int8 from now on, for inference: about a quarter of its bytes, and of the time to read it.

        The parameter `weight` goes; in its place come the buffers `weight_values`, of its shape, and `weight_scales`,
        (positions, weight.shape[2]): `localconv.quantize`'s. Their product is what the module computes with, and is
        never made on the processor. The scales stay float32 whatever dtype the module is moved to.

        Parameters
        ----------
        mode : {'int8'}, optional
            For 16 bits take ``module.bfloat16()`` or ``module.half()``, whose weights are read as they are.

        Returns
        -------
        module
            This one.

        Raises
        ------
        ValueError
            Another mode; a weight that is not finite; a module that is int8 already, as Keras refuses to quantize a
            layer twice.
        RuntimeError
            A lazy module that has seen no input; a weight that is no parameter, as those of
            `torch.nn.utils.parametrize` are. At the call: float64 inputs.

        Notes
        -----
        Inputs and bias may be float32, bfloat16 or float16: sums are float32, and are rounded once, to the input's
        dtype. The input and the bias have derivatives, the weight has none. On other devices than the processor a
        float32 weight is made for the time of a call.

        A state of int8 is loaded into a module that is int8, and one of floats into one that is not, or it is an error,
        with ``strict=False`` too. A module on the device meta has never had a float weight::

            with torch.device("meta"):
                layer = LocalConv2d(3, 16, 3, 8).quantize()
            layer.load_state_dict(torch.load("int8.pt"), assign=True)

        Examples
        --------
        >>> import torch
        >>> from localconv.torch import LocalConv1d
        >>> layer = LocalConv1d(4, 8, kernel_size=3, input_size=10)
        >>> exact = layer(torch.ones(2, 4, 10))
        >>> layer.quantize()
        LocalConv1d(4, 8, kernel_size=(3,), input_size=(10,), stride=(1,), weight=int8)
        >>> torch.allclose(layer(torch.ones(2, 4, 10)), exact, atol=0.02), list(layer.state_dict())
        (True, ['bias', 'weight_values', 'weight_scales'])
        """
        if mode != "int8":
            raise ValueError(f"mode must be 'int8', got {mode!r}")
        if self._is_int8:
            raise ValueError(f"{type(self).__name__} is already quantized by 'int8', got mode={mode!r}")
        weight = self._parameters.get("weight")
        if weight is None:
            raise RuntimeError(
                f"Expected the weight of {type(self).__name__} to be a parameter: remove its parametrizations first"
            )
        if isinstance(weight, UninitializedParameter):
            raise RuntimeError(f"Expected {type(self).__name__} to have seen an input: it has no weight before")
        values, scales = _quantized(weight.detach())
        del self.weight
        self.register_buffer("weight_values", values)
        self.register_buffer("weight_scales", scales)
        if self.bias is not None and self.bias.dtype == torch.float64:
            self.bias.data = self.bias.data.float()
        self._is_int8 = True
        return self

    def __getattr__(self, name: str) -> Any:
        if name == "weight" and self._is_int8:
            raise AttributeError(
                f"'{type(self).__name__}' object has no attribute 'weight': it was quantized to int8, for inference, "
                "and has the buffers weight_values and weight_scales"
            )
        return super().__getattr__(name)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        """As other modules, and an error that says what to do where one of state and module is int8 alone.

        It is one without `strict` too, as of a parameter of another size: the weight is there, in a form that does not
        fit, and the module would go on with the values that it had.
        """
        super()._load_from_state_dict(state_dict, prefix, *others)
        in_int8, in_floats = prefix + "weight_values" in state_dict, prefix + "weight" in state_dict
        errors, name = others[-1], f"{type(self).__name__} {prefix.rstrip('.')!r}" if prefix else type(self).__name__
        if self._is_int8 and in_floats and not in_int8:
            errors.append(
                f"{name} is int8, and the state has a float weight for it: load it before quantize() is called, or "
                "into a module that is not quantized, and quantize that."
            )
        elif in_int8 and not in_floats and "weight" in self._parameters:
            errors.append(
                f"{name} has a float weight, and the state one of int8 for it: call quantize() first, and then load "
                "the state."
            )

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """As other modules, but the scales keep their dtype: in 16 bits they would lose digits."""
        scales = self._buffers.get("weight_scales")
        super()._apply(fn, recurse)
        if scales is not None and (moved := self.weight_scales).dtype != scales.dtype:
            self.weight_scales = scales.to(moved.device)
        return self


class _LocalConv(_LocalConvNd):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrInts,
        input_size: IntOrInts,
        stride: IntOrInts = 1,
        padding: Padding = 0,
        dilation: IntOrInts = 1,
        groups: int = 1,
        bias: bool | str = True,
        padding_mode: str = ZEROS,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode)
        self._begin(input_size, device, dtype)

    def _begin(self, input_size: IntOrInts, device: Any, dtype: torch.dtype | None) -> None:
        """Make the parameters for inputs of a size."""
        if self.in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {self.in_channels}")
        self._set_input_size(ints(input_size, self._rank, "input_size"))
        self._make_parameters(device, dtype)

    def _set_input_size(self, size: tuple[int, ...]) -> None:
        output = self._window.output_size(size)
        if min(output) < 1:
            raise ValueError(
                f"input_size must be at least as large as the dilated kernel, got input_size={size} for "
                f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding!r}"
            )
        _check_borders(size, self._window.padding, self.padding_mode)
        self.input_size, self.output_size = size, output

    def _check_padding_mode(self, padding_mode: Any) -> None:
        super()._check_padding_mode(padding_mode)
        size = self.__dict__.get("input_size")
        if size is not None:
            _check_borders(size, self._window.padding, padding_mode)

    def _shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        assert self.output_size is not None
        depth = depth_of(self.kernel_size, self.in_channels, self.groups)
        bias = (self.out_channels,) if self._bias == "shared" else (self.out_channels, *self.output_size)
        return (math.prod(self.output_size), depth, self.out_channels), bias

    def _takes(self, size: tuple[int, ...]) -> bool:
        """As above; pixels at the end that no window reaches may be more or less."""
        return size == self.input_size or self._window.output_size(size) == self.output_size

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of (N, in_channels, *input_size) or (in_channels, *input_size)."""
        if not isinstance(input, Tensor) and (leaf := self._as_leaf(input)) is not None:
            return leaf  # type: ignore[no-any-return]
        name, window = type(self).__name__, self._window
        self._check_image(input)
        if self.padding_mode != ZEROS:
            input, window = self._padded(input)
        if self._is_int8:
            return convolve_int8(name, input, self.weight_values, self.weight_scales, self.bias, window)
        return convolve(name, input, self.weight, self.bias, window)

    def _padded(self, input: Tensor) -> tuple[Tensor, Window]:
        """The input with pixels of its own as its padding, and the window that goes over that."""
        window = window_for(self._rank, self.kernel_size, self.stride, 0, self.dilation, self.groups)
        return nn.functional.pad(input, self._window.ends, mode=self.padding_mode), window


def _check_borders(size: tuple[int, ...], padding: tuple[int, ...], padding_mode: str) -> None:
    """ValueError where torch.nn.functional.pad would refuse images of that size."""
    wanted = wanted_padding(padding_mode, tuple(zip(padding[::2], padding[1::2], strict=True)), size)
    if wanted is not None:
        raise ValueError(
            f"padding must be {wanted} input_size along every axis with padding_mode={padding_mode!r}, got "
            f"padding={padding} for input_size={size}"
        )


def _quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values and float32 scales of a weight, on its device."""
    positions, depth, filters = weight.shape
    values = weight.new_empty(weight.shape, dtype=torch.int8)
    scales = weight.new_empty((positions, filters), dtype=torch.float32)
    if weight.is_meta:
        return values, scales
    wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
    # A few positions at a time: there is no copy of the whole.
    step = max(1, BLOCK // (depth * filters))
    for first in range(0, positions, step):
        part = slice(first, first + step)
        try:
            # A copy: `Tensor.numpy` alone would pin the storage.
            made = quantize_array(weight[part].to("cpu", wide, copy=True).numpy())
        except ValueError as error:
            raise ValueError("weight must be finite to be quantized, and in float32") from error
        values[part], scales[part] = torch.tensor(made.values), torch.tensor(made.scales)
    return values, scales


class LocalConv1d(_LocalConv):
    """1D convolution with a weight of its own at every output position.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or sequence of 1 int
    input_size : int or sequence of 1 int
        Length of the inputs, on which the number of weights depends.
    stride, padding, dilation, groups : optional
        As in `torch.nn.Conv1d`; padding may be 'same' or 'valid'.
    bias : bool or 'shared', optional
        True: one for each filter and position; 'shared': one for each filter.
    padding_mode : {'zeros', 'reflect', 'replicate', 'circular'}, optional
        As in `torch.nn.Conv1d`: what padding holds. All but 'zeros' make a padded copy of the input, by
        `torch.nn.functional.pad`. It may be set later, too.
    device, dtype : optional
        As in `torch.nn.Conv1d`.

    Attributes
    ----------
    weight : Parameter
        (positions, kernel_size * in_channels / groups, out_channels), row ``i * in_channels / groups + c`` for tap i
        and channel c: a kernel of Keras's LocallyConnected1D as it is.
    bias : Parameter or None
        ``(out_channels, *output_size)``, or (out_channels,).
    output_size : tuple of int

    Raises
    ------
    ValueError, TypeError
        For arguments that do not fit; the message names one.

    See Also
    --------
    localconv.torch.local_conv1d : the function, which says more of dtypes, memory and errors.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch import LocalConv1d
    >>> layer = LocalConv1d(4, 8, kernel_size=3, input_size=10)
    >>> layer(torch.ones(2, 4, 10)).shape
    torch.Size([2, 8, 8])
    """

    _rank = 1


class LocalConv2d(_LocalConv):
    """2D convolution with a weight of its own at every output position.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or sequence of 2 ints
    input_size : int or sequence of 2 ints
        Rows and columns of the inputs, on which the number of weights depends.
    stride, padding, dilation, groups : optional
        As in `torch.nn.Conv2d`; padding may be 'same' or 'valid'.
    bias, padding_mode, device, dtype : optional
        As in `LocalConv1d`.

    Attributes
    ----------
    weight : Parameter
        (positions, kh * kw * in_channels / groups, out_channels), row ``(i * kw + j) * in_channels / groups + c`` for
        tap (i, j) and channel c.
    bias : Parameter or None
        ``(out_channels, *output_size)``, or (out_channels,).
    output_size : tuple of int

    Raises
    ------
    ValueError, TypeError
        For arguments that do not fit; the message names one.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch import LocalConv2d
    >>> layer = LocalConv2d(3, 16, kernel_size=3, input_size=(8, 8), padding='same')
    >>> layer(torch.ones(2, 3, 8, 8)).shape, layer.output_size, tuple(layer.weight.shape)
    (torch.Size([2, 16, 8, 8]), (8, 8), (64, 27, 16))
    """

    _rank = 2


@docstring_from_2d(
    LocalConv2d,
    """
    >>> import torch
    >>> from localconv.torch import LocalConv3d
    >>> layer = LocalConv3d(3, 16, kernel_size=3, input_size=(4, 8, 8), padding='same')
    >>> layer(torch.ones(2, 3, 4, 8, 8)).shape, layer.output_size, tuple(layer.weight.shape)
    (torch.Size([2, 16, 4, 8, 8]), (4, 8, 8), (256, 81, 16))
    """,
)
class LocalConv3d(_LocalConv):
    _rank = 3


class _LazyLocalConv(LazyModuleMixin, _LocalConv):  # type: ignore[misc]  # the mixin narrows what Module declares
    def __init__(
        self,
        out_channels: int,
        kernel_size: IntOrInts,
        stride: IntOrInts = 1,
        padding: Padding = 0,
        dilation: IntOrInts = 1,
        groups: int = 1,
        bias: bool | str = True,
        padding_mode: str = ZEROS,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        windows = (stride, padding, dilation, groups)
        super().__init__(0, out_channels, kernel_size, 0, *windows, bias, padding_mode, device=device, dtype=dtype)

    def _begin(self, input_size: IntOrInts, device: Any, dtype: torch.dtype | None) -> None:
        """Make parameters that wait for an input."""
        self.input_size = self.output_size = None
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        if self._bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)
        else:
            self.register_parameter("bias", None)

    def reset_parameters(self) -> None:
        """Draw the parameters once they are there."""
        if not self.has_uninitialized_params() and self.in_channels:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        """Make the parameters for inputs like this one."""
        if not self.has_uninitialized_params():
            return
        check_tensor("input", input)
        if input.dim() not in (self._rank + 1, self._rank + 2):
            raise RuntimeError(
                f"Expected {self._rank + 1}D (unbatched) or {self._rank + 2}D (batched) input to "
                f"{type(self).__name__}, but got input of size: {list(input.shape)}"
            )
        channels, *size = input.shape[-self._rank - 1 :]
        if channels % self.groups:
            raise ValueError(f"in_channels must be divisible by groups, got {channels} and {self.groups}")
        self.in_channels = channels
        self._set_input_size(tuple(size))
        weight, bias = self._shapes()
        with torch.no_grad():
            self.weight.materialize(weight)  # type: ignore[attr-defined]
            if self.bias is not None:
                self.bias.materialize(bias)  # type: ignore[attr-defined]
            self.reset_parameters()


class LazyLocalConv1d(_LazyLocalConv, LocalConv1d):
    """A `LocalConv1d` that takes in_channels and input_size from the first input.

    It becomes a `LocalConv1d` then. Wrap it in DistributedDataParallel only after a first call.

    Parameters
    ----------
    out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        As in `LocalConv1d`.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch import LazyLocalConv1d
    >>> layer = LazyLocalConv1d(8, kernel_size=3)
    >>> layer(torch.ones(2, 4, 10)).shape
    torch.Size([2, 8, 8])
    >>> layer
    LocalConv1d(4, 8, kernel_size=(3,), input_size=(10,), stride=(1,))
    """

    cls_to_become = LocalConv1d  # type: ignore[assignment]


class LazyLocalConv2d(_LazyLocalConv, LocalConv2d):
    """A `LocalConv2d` that takes in_channels and input_size from the first input, as `LazyLocalConv1d` does.

    Parameters
    ----------
    out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        As in `LocalConv2d`.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch import LazyLocalConv2d
    >>> LazyLocalConv2d(5, 3)(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 5, 6, 6])
    """

    cls_to_become = LocalConv2d  # type: ignore[assignment]


@docstring_from_2d(
    LazyLocalConv2d,
    """
    >>> import torch
    >>> from localconv.torch import LazyLocalConv3d
    >>> LazyLocalConv3d(5, 3)(torch.ones(2, 3, 4, 8, 8)).shape
    torch.Size([2, 5, 2, 6, 6])
    """,
)
class LazyLocalConv3d(_LazyLocalConv, LocalConv3d):
    cls_to_become = LocalConv3d  # type: ignore[assignment]


class _LocalConvTranspose(_LocalConvNd):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrInts,
        input_size: IntOrInts,
        stride: IntOrInts = 1,
        padding: IntOrInts = 0,
        output_padding: IntOrInts = 0,
        groups: int = 1,
        bias: bool | str = True,
        dilation: IntOrInts = 1,
        padding_mode: str = ZEROS,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        pads = reject_named_padding(padding)
        super().__init__(in_channels, out_channels, kernel_size, stride, pads, dilation, groups, bias, padding_mode)
        if self.in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {in_channels}")
        self.output_padding = output_padding_for(self._window, output_padding)
        self.input_size = ints(input_size, self._rank, "input_size")
        self.output_size = self._window.transposed_size(self.input_size, self.output_padding)
        if min(self.output_size) < 1:
            raise ValueError(f"padding={padding!r} leaves nothing of the output of size {self.output_size}")
        if max(self.output_size) > LARGEST_SIZE:
            raise ValueError(
                f"stride={stride!r} and dilation={dilation!r} must leave an output of at most {LARGEST_SIZE} pixels "
                f"along every axis, got one of size {self.output_size}"
            )
        self._make_parameters(device, dtype)

    def _shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        assert self.input_size is not None
        assert self.output_size is not None
        depth = depth_of(self.kernel_size, self.out_channels, self.groups)
        bias = (self.out_channels,) if self._bias == "shared" else (self.out_channels, *self.output_size)
        return (math.prod(self.input_size), depth, self.in_channels), bias

    def _check_padding_mode(self, padding_mode: Any) -> None:
        if padding_mode != ZEROS:
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')

    def _more_repr(self) -> list[str]:
        return [f"output_padding={self.output_padding}"] if any(self.output_padding) else []

    def forward(self, input: Tensor) -> Tensor:
        """Return the transposed convolution of (N, in_channels, *input_size) or (in_channels, *input_size)."""
        if not isinstance(input, Tensor) and (leaf := self._as_leaf(input)) is not None:
            return leaf  # type: ignore[no-any-return]
        self._check_image(input)
        name, arguments = type(self).__name__, (self.bias, self._window, self.output_padding)
        if self._is_int8:
            return transpose_int8(name, input, self.weight_values, self.weight_scales, *arguments)
        return transpose(name, input, self.weight, *arguments)


class LocalConvTranspose1d(_LocalConvTranspose):
    """1D transposed convolution with a weight of its own at every *input* position.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or sequence of 1 int
    input_size : int or sequence of 1 int
        Length of the inputs.
    stride, padding, output_padding, groups, dilation : optional
        As in `torch.nn.ConvTranspose1d`; `output_padding` must be smaller than `stride`.
    padding_mode : {'zeros'}, optional
        As there, nothing else.
    bias, device, dtype : optional
        As in `LocalConv1d`.

    Attributes
    ----------
    weight : Parameter
        (prod(input_size), prod(kernel_size) * out_channels / groups, in_channels): that of the `LocalConv1d` from
        out_channels to in_channels whose transpose this is.
    bias : Parameter or None
        ``(out_channels, *output_size)``, or (out_channels,).
    output_size : tuple of int

    Raises
    ------
    ValueError, TypeError
        For arguments that do not fit; the message names one.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch import LocalConvTranspose1d
    >>> LocalConvTranspose1d(8, 4, kernel_size=3, input_size=8)(torch.ones(2, 8, 8)).shape
    torch.Size([2, 4, 10])
    """

    _rank = 1


class LocalConvTranspose2d(_LocalConvTranspose):
    """2D transposed convolution with a weight of its own at every *input* position.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, input_size, stride, padding, output_padding, groups, bias, dilation,
    padding_mode, device, dtype
        As in `LocalConvTranspose1d`, with an int or a sequence of 2 ints.

    Attributes
    ----------
    weight, bias, output_size
        As in `LocalConvTranspose1d`.

    Raises
    ------
    ValueError, TypeError
        For arguments that do not fit; the message names one.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch import LocalConvTranspose2d
    >>> LocalConvTranspose2d(8, 3, kernel_size=2, input_size=(4, 4), stride=2)(torch.ones(2, 8, 4, 4)).shape
    torch.Size([2, 3, 8, 8])
    """

    _rank = 2


@docstring_from_2d(
    LocalConvTranspose2d,
    """
    >>> import torch
    >>> from localconv.torch import LocalConvTranspose3d
    >>> layer = LocalConvTranspose3d(8, 3, kernel_size=2, input_size=(2, 4, 4), stride=2)
    >>> layer(torch.ones(2, 8, 2, 4, 4)).shape
    torch.Size([2, 3, 4, 8, 8])
    """,
)
class LocalConvTranspose3d(_LocalConvTranspose):
    _rank = 3
