"""The three primitives: a locally connected convolution and its gradients for the input and for the kernel.

Each is linear in both of its operands, and the transpose in either operand is another of the three:

=============  ====================  =======================  =======================
primitive      operands              transposed in the first  transposed in the second
=============  ====================  =======================  =======================
forward        input, kernel         grad_input               grad_kernel
grad_input     kernel, gradient      grad_kernel              forward
grad_kernel    input, gradient       grad_input               forward
=============  ====================  =======================  =======================

So derivatives of every order and mode exist, made of nothing else.

An operand may have one axis in front, of *examples*, which `vmap` makes: the convolution is then done for each of them;
an operand without it is shared by all. Where only images are mapped they go into the batch instead: then the kernel is
read once, and its gradient is one sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching
from jax.interpreters.xla import apply_primitive
from jax.sharding import NamedSharding, PartitionSpec

from ..core.arguments import Ints
from .window import Window, convolution_of

KERNEL_AXES = 3

forward_p = Primitive("localconv_forward")
grad_input_p = Primitive("localconv_grad_input")
grad_kernel_p = Primitive("localconv_grad_kernel")
PRIMITIVES = {"local_forward": forward_p, "local_grad_input": grad_input_p, "local_grad_kernel": grad_kernel_p}


def forward(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """The convolution of x with kernel."""
    return _run(forward_p, x, kernel, window=window)


def grad_input(kernel: jax.Array, gradient: jax.Array, window: Window, spatial: Ints) -> jax.Array:
    """The gradient for the input, whose spatial sizes are given, by that for the output."""
    return _run(grad_input_p, kernel, gradient, window=window, spatial=spatial)


def grad_kernel(x: jax.Array, gradient: jax.Array, window: Window) -> jax.Array:
    """The gradient for the kernel by that for the output."""
    return _run(grad_kernel_p, x, gradient, window=window)


def _run(primitive: Primitive, a: jax.Array, b: jax.Array, **params: Any) -> jax.Array:
    result = primitive.bind(*_varying(whole(a), whole(b)), **params)
    # Said once more of the result: XLA does not know the custom call, and would guess by what is done with it next.
    return _gathered(result)


def _varying(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both operands as varying over the mesh axes of either: inside `jax.shard_map` JAX keeps account of that, and the
    transpose of making an operand vary is the sum over those axes which its gradient needs.
    """
    of_a, of_b = (varying_axes(type_of(operand)) for operand in (a, b))
    return (a, b) if of_a == of_b else (vary(a, of_b - of_a), vary(b, of_a - of_b))


def type_of(array: jax.Array) -> Any:
    """An array's type; older versions of JAX have no word for it."""
    return jax.typeof(array) if hasattr(jax, "typeof") else None


def varying_axes(aval: Any) -> frozenset[Any]:
    """The mesh axes that an array varies over; versions of JAX have two names for them."""
    manual = getattr(aval, "manual_axis_type", None)
    return frozenset(getattr(aval, "vma", ()) if manual is None else manual.varying)


def vary(operand: jax.Array, axes: frozenset[Any]) -> jax.Array:
    """`operand` as varying over these mesh axes."""
    names = tuple(sorted(axes, key=str))
    if not names:
        return operand
    return jax.lax.pcast(operand, names, to="varying") if hasattr(jax.lax, "pcast") else jax.lax.pvary(operand, names)


# ------------------------------------------------------------------------------------------------- explicit mesh axes


def whole(operand: jax.Array) -> jax.Array:
    """`operand`, all of it on every device of its mesh.

    An axis of a mesh may be *explicit*: then types say how an array is cut along it, and each operation has to say how
    its result is. A primitive runs on whole arrays and makes one; cutting the gradient is the transpose of this.
    """
    sharding = getattr(type_of(operand), "sharding", None)
    if sharding is None or sharding.spec == _uncut(len(sharding.spec)):  # no more equal if sums are still to be made
        return operand
    return _gathered(operand)


def _gathered(array: jax.Array) -> jax.Array:
    """The same, as an operation of its own even if the type says so already."""
    sharding, kinds = getattr(type_of(array), "sharding", None), getattr(jax.sharding, "AxisType", None)
    if sharding is None or kinds is None or kinds.Explicit not in (sharding.mesh.axis_types or ()):
        return array
    return _reshard(array, NamedSharding(sharding.mesh, _uncut(array.ndim)))


def _uncut(axes: int) -> PartitionSpec:
    return PartitionSpec(*[None] * axes)


def _reshard(array: jax.Array, sharding: NamedSharding) -> jax.Array:
    if hasattr(jax.sharding, "reshard"):
        return jax.sharding.reshard(array, sharding)
    from jax.experimental.shard import reshard  # where older versions of JAX have it

    return reshard(array, sharding)


# ---------------------------------------------------------------------------------------------------- shapes of results


def operand_axes(operation: str, window: Window) -> tuple[int, int, int]:
    """How many axes both operands and the result have, but for that of examples."""
    images = window.rank + 2
    return {
        "local_forward": (images, KERNEL_AXES, images),
        "local_grad_input": (KERNEL_AXES, images, images),
        "local_grad_kernel": (images, images, KERNEL_AXES),
    }[operation]


def lead_of(aval: Any, axes: int) -> Ints:
    """The axis of examples of an operand that has `axes` others: its length, or nothing."""
    return tuple(aval.shape[:-axes])


def shapes_of(operation: str, a: Any, b: Any, window: Window, spatial: Ints | None) -> tuple[Ints, Ints, Ints]:
    """The shapes of the input, the kernel and the output's gradient of an operation, without examples."""
    axes = window.rank + 2
    if operation == "local_forward":
        x, kernel = a.shape[-axes:], b.shape[-KERNEL_AXES:]
        return x, kernel, convolution_of(window, x, kernel[-1]).output_shape(x[0])
    if operation == "local_grad_kernel":
        x, gradient = a.shape[-axes:], b.shape[-axes:]
        return x, convolution_of(window, x, window.channels(gradient)).kernel_shape, gradient
    kernel, gradient = a.shape[-KERNEL_AXES:], b.shape[-axes:]
    assert spatial is not None
    channels = kernel[1] * window.groups // prod(window.size)
    return window.layout((gradient[0],), spatial, channels), kernel, gradient


def result_shape(operation: str, a: Any, b: Any, window: Window, spatial: Ints | None = None) -> Ints:
    """The shape of an operation's result, with its examples."""
    axes = operand_axes(operation, window)[:2]
    lead = lead_of(a, axes[0]) or lead_of(b, axes[1])
    x, kernel, gradient = shapes_of(operation, a, b, window, spatial)
    return (*lead, *{"local_forward": gradient, "local_grad_input": x, "local_grad_kernel": kernel}[operation])


def result_dtype(a: Any, b: Any) -> Any:
    """The dtype of an operation's result: the wider one, as a kernel may have 16 bits. That is no promotion of JAX's,
    which users may forbid (`jax.numpy_dtype_promotion`).
    """
    return max(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)


def _abstract(operation: str, a: Any, b: Any, *, window: Window, spatial: Ints | None = None) -> ShapedArray:
    shape = result_shape(operation, a, b, window, spatial)
    dtype = result_dtype(a, b)
    meshes = [aval.sharding.mesh for aval in (a, b) if hasattr(aval, "sharding") and not aval.sharding.mesh.empty]
    if not meshes:
        return ShapedArray(shape, dtype)
    name = "manual_axis_type" if hasattr(a, "manual_axis_type") else "vma"
    varying = {name: getattr(a, name)} if varying_axes(a) else {}
    return ShapedArray(shape, dtype, sharding=NamedSharding(meshes[0], _uncut(len(shape))), **varying)


# ----------------------------------------------------------------------------------------------------------- transposes


def _summed(gradient: jax.Array, operand: Any) -> jax.Array:
    """A gradient for an operand: summed over the examples that shared it, and of its dtype."""
    total = gradient.sum(0) if gradient.ndim > operand.aval.ndim else gradient
    return total.astype(operand.aval.dtype)


def _transposed(rule: Callable[..., jax.Array], number: int) -> Callable[..., Any]:
    """The transpose in one operand as JAX calls it; `rule` computes it of the cotangent and the other operand."""

    def transpose(cotangent: Any, a: Any, b: Any, **params: Any) -> Any:
        operand, other = ((a, b), (b, a))[number]
        if type(cotangent) is ad.Zero:
            return ad.Zero(operand.aval)
        return _summed(rule(cotangent, other, operand.aval, **params), operand)

    return transpose


def _spatial(aval: Any, window: Window) -> Ints:
    return tuple(window.spatial(aval.shape))


TRANSPOSES: dict[Primitive, tuple[Callable[..., jax.Array], Callable[..., jax.Array]]] = {
    forward_p: (
        lambda ct, kernel, x, window: grad_input(kernel, ct, window, _spatial(x, window)),
        lambda ct, x, kernel, window: grad_kernel(x, ct, window),
    ),
    grad_input_p: (
        lambda ct, gradient, kernel, window, spatial: grad_kernel(ct, gradient, window),
        lambda ct, kernel, gradient, window, spatial: forward(ct, kernel, window),
    ),
    grad_kernel_p: (
        lambda ct, gradient, x, window: grad_input(ct, gradient, window, _spatial(x, window)),
        lambda ct, x, gradient, window: forward(x, ct, window),
    ),
}

# ------------------------------------------------------------------------------------------------------------- batching


# Which operand is the kernel.
KERNEL_NUMBER = {"local_forward": 1, "local_grad_input": 0}


def _batched(
    operation: str, args: Sequence[jax.Array], dims: Sequence[int | None], *, window: Window, **params: Any
) -> tuple[jax.Array, int]:
    """The rule of `vmap`: images that alone are mapped go into the batch, everything else makes examples."""
    bind = partial(_BINDS[operation], window=window, **params)
    axes = operand_axes(operation, window)[:2]
    args = [whole(arg) for arg in args]  # the mapped axis may be cut over a mesh
    fronts = [arg if dim is None else jnp.moveaxis(arg, dim, 0) for arg, dim in zip(args, dims, strict=True)]
    mapped = [dim is not None for dim in dims]
    count = fronts[mapped.index(True)].shape[0]
    examples = [front.ndim - axis - has for front, axis, has in zip(fronts, axes, mapped, strict=True)]
    kernel = KERNEL_NUMBER.get(operation)
    if kernel is not None and not any(examples) and not mapped[kernel]:
        images = fronts[1 - kernel]
        fronts[1 - kernel] = _merged(images)
        result = bind(*fronts)
        return result.reshape(count, images.shape[1], *result.shape[1:]), 0
    if not any(examples):
        return bind(*fronts), 0
    # Mapped once more: every example of every operand, which those that lack one of the two axes are repeated for.
    length = next(front.shape[-axis - 1] for front, axis, has in zip(fronts, axes, examples, strict=True) if has)
    pairs = zip(fronts, axes, mapped, examples, strict=True)
    result = bind(*[_example_pairs(*pair, count, length) for pair in pairs])
    return result.reshape(count, length, *result.shape[1:]), 0


def _merged(array: jax.Array) -> jax.Array:
    """The first two axes as one."""
    return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])


def _example_pairs(array: jax.Array, axes: int, mapped: bool, has: int, count: int, length: int) -> jax.Array:
    """An operand with an axis for `count` times `length` examples; one that has neither stays shared by all."""
    if not mapped and not has:
        return array
    tail = array.shape[-axes:]
    lead = (count if mapped else 1, length if has else 1)
    return _merged(jnp.broadcast_to(array.reshape(*lead, *tail), (count, length, *tail)))


_BINDS: dict[str, Callable[..., jax.Array]] = {
    "local_forward": forward,
    "local_grad_input": grad_input,
    "local_grad_kernel": grad_kernel,
}


for _operation, _primitive in PRIMITIVES.items():
    # As JAX runs its own: compiled under `jax.disable_jit` too, and named by `jax.debug_nans`.
    _primitive.def_impl(partial(apply_primitive, _primitive))
    _primitive.def_abstract_eval(partial(_abstract, _operation))
    ad.defbilinear(_primitive, *[_transposed(rule, number) for number, rule in enumerate(TRANSPOSES[_primitive])])
    batching.primitive_batchers[_primitive] = partial(_batched, _operation)
