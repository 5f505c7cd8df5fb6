"""The primitives of a family: the convolution and its gradients for the input and for the kernel.

There are two families, locally connected convolution and filters that come with the data, whose arrays `filters` are
called the kernel here. Each primitive is linear in both of its operands, and the transpose in either operand is another
of its family's three:

=============  ====================  =======================  =======================
primitive      operands              transposed in the first  transposed in the second
=============  ====================  =======================  =======================
forward        input, kernel         grad_input               grad_kernel
grad_input     kernel, gradient      grad_kernel              forward
grad_kernel    input, gradient       grad_input               forward
=============  ====================  =======================  =======================

So derivatives of every order and mode exist, made of nothing else.

An operand may have one axis in front, of *examples*, which `vmap` makes: the convolution is then done for each of them;
an operand without it is shared by all. Where what is mapped has a batch, and what has none is not mapped, it goes into
the batch instead: then a kernel is read once, and its gradient is one sum.
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

from .._core import OPERATIONS
from ..core.arguments import Ints
from ..core.families import FAMILIES, FILTER, LOCAL, makes
from ..core.windows import filters_shape
from .window import Window, convolution_of, spec_of

KERNEL_AXES = 3

# Those of locally connected convolution had their names before there were others.
PREFIXES = {LOCAL: "localconv", FILTER: "localconv_filter"}
NAMES = {"output": "forward", "input": "grad_input", "kernel": "grad_kernel"}
PRIMITIVES = {
    FAMILIES[family].operations[made]: Primitive(f"{prefix}_{name}")
    for family, prefix in PREFIXES.items()
    for made, name in NAMES.items()
}


def forward(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """The convolution of x with kernel."""
    return _run("output", x, kernel, window)


def grad_input(kernel: jax.Array, gradient: jax.Array, window: Window, spatial: Ints) -> jax.Array:
    """The gradient for the input, whose spatial sizes are given, by that for the output."""
    return _run("input", kernel, gradient, window, spatial=spatial)


def grad_kernel(x: jax.Array, gradient: jax.Array, window: Window, one: bool = False) -> jax.Array:
    """The gradient for the kernel by that for the output; one: for filters of one image, which all images share."""
    return _run("kernel", x, gradient, window, **({"one": one} if window.kernel_by_image else {}))


def _run(made: str, a: jax.Array, b: jax.Array, window: Window, **params: Any) -> jax.Array:
    primitive = PRIMITIVES[FAMILIES[window.family].operations[made]]
    result = primitive.bind(*_varying(whole(a), whole(b)), window=window, **params)
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
    _, (first, second), made = OPERATIONS[operation]
    images = window.rank + 2
    axes = {"input": images, "output": images, "kernel": images if window.kernel_by_image else KERNEL_AXES}
    return axes[first], axes[second], axes[made]


def lead_of(aval: Any, axes: int) -> Ints:
    """The axis of examples of an operand that has `axes` others: its length, or nothing."""
    return tuple(aval.shape[:-axes])


def shapes_of(
    operation: str, a: Any, b: Any, window: Window, spatial: Ints | None = None, one: bool = False
) -> tuple[Ints, Ints, Ints]:
    """The shapes of the input, the kernel and the output's gradient of an operation, without examples."""
    of_a, of_b, _ = operand_axes(operation, window)
    first, second = a.shape[-of_a:], b.shape[-of_b:]
    if makes(operation) == "output":
        filters = window.channels(first) if window.kernel_by_image else second[-1]
        return first, second, convolution_of(window, first, filters).output_shape(first[0])
    if makes(operation) == "kernel":
        convolution = convolution_of(window, first, window.channels(second))
        if window.kernel_by_image:
            return first, filters_shape(spec_of(window), 1 if one else first[0], convolution.output), second
        return first, convolution.kernel_shape, second
    assert spatial is not None
    channels = window.channels(second) if window.kernel_by_image else first[1] * window.groups // prod(window.size)
    return window.layout((second[0],), spatial, channels), first, second


def result_shape(operation: str, a: Any, b: Any, window: Window, **params: Any) -> Ints:
    """The shape of an operation's result, with its examples."""
    axes = operand_axes(operation, window)[:2]
    lead = lead_of(a, axes[0]) or lead_of(b, axes[1])
    x, kernel, gradient = shapes_of(operation, a, b, window, **params)
    return (*lead, *{"output": gradient, "input": x, "kernel": kernel}[makes(operation)])


def result_dtype(a: Any, b: Any) -> Any:
    """The dtype of an operation's result: the wider one, as a kernel may have 16 bits. That is no promotion of JAX's,
    which users may forbid (`jax.numpy_dtype_promotion`).
    """
    return max(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)


def _abstract(operation: str, a: Any, b: Any, *, window: Window, **params: Any) -> ShapedArray:
    shape = result_shape(operation, a, b, window, **params)
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


def _kernel_for(x: jax.Array, gradient: jax.Array, kernel: Any, window: Window) -> jax.Array:
    """The gradient for a kernel of this type."""
    return grad_kernel(x, gradient, window, window.kernel_by_image and is_shared(kernel, x, window))


def is_shared(kernel: Any, images: Any, window: Window) -> bool:
    """Whether filters are of one image for several."""
    batch = -window.rank - 2
    return bool(kernel.shape[batch] == 1 and images.shape[batch] != 1)


# By the array that a primitive makes.
TRANSPOSES: dict[str, tuple[Callable[..., jax.Array], Callable[..., jax.Array]]] = {
    "output": (
        lambda ct, kernel, x, window: grad_input(kernel, ct, window, _spatial(x, window)),
        lambda ct, x, kernel, window: _kernel_for(x, ct, kernel, window),
    ),
    "input": (
        lambda ct, gradient, kernel, window, spatial: _kernel_for(ct, gradient, kernel, window),
        lambda ct, kernel, gradient, window, spatial: forward(ct, kernel, window),
    ),
    "kernel": (
        lambda ct, gradient, x, window, one=False: grad_input(ct, gradient, window, _spatial(x, window)),
        lambda ct, x, gradient, window, one=False: forward(x, ct, window),
    ),
}

# ------------------------------------------------------------------------------------------------------------- batching


def _batched(
    operation: str, args: Sequence[jax.Array], dims: Sequence[int | None], *, window: Window, **params: Any
) -> tuple[jax.Array, int]:
    """The rule of `vmap`: what can goes into the batch, everything else makes examples."""
    bind = partial(BINDS[makes(operation)], window=window, **params)
    axes = operand_axes(operation, window)[:2]
    args = [whole(arg) for arg in args]  # the mapped axis may be cut over a mesh
    fronts = [arg if dim is None else jnp.moveaxis(arg, dim, 0) for arg, dim in zip(args, dims, strict=True)]
    mapped = [dim is not None for dim in dims]
    count = fronts[mapped.index(True)].shape[0]
    examples = [front.ndim - axis - has for front, axis, has in zip(fronts, axes, mapped, strict=True)]
    if not any(examples):
        batch = _common_batch(operation, fronts, mapped, window, **params)
        if batch is None:
            return bind(*fronts), 0
        result = bind(*[_merged(front) if has else front for front, has in zip(fronts, mapped, strict=True)])
        return result.reshape(count, batch, *result.shape[1:]), 0
    # Mapped once more: every example of every operand, which those that lack one of the two axes are repeated for.
    length = next(front.shape[-axis - 1] for front, axis, has in zip(fronts, axes, examples, strict=True) if has)
    pairs = zip(fronts, axes, mapped, examples, strict=True)
    result = bind(*[_example_pairs(*pair, count, length) for pair in pairs])
    return result.reshape(count, length, *result.shape[1:]), 0


def _common_batch(
    operation: str, fronts: Sequence[jax.Array], mapped: Sequence[bool], window: Window, **params: Any
) -> Any:
    """The batch that a mapped axis, in front, can go into; None if it cannot.

    It can where everything that is mapped, and the result, has a batch, and what is not mapped has none: a kernel of
    rows, or the filters of one image for all.
    """
    _, reads, made = OPERATIONS[operation]
    if made == "kernel" and params.get("one", True):
        return None
    images = int(reads[0] == "kernel")  # the number of an operand that is no kernel
    batch = fronts[images].shape[mapped[images]]

    def fits(number: int) -> bool:
        if reads[number] != "kernel":
            return mapped[number]
        if not window.kernel_by_image:
            return not mapped[number]
        return bool(fronts[number].shape[mapped[number]] == (batch if mapped[number] else 1))

    return batch if fits(0) and fits(1) else None


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


BINDS: dict[str, Callable[..., jax.Array]] = {"output": forward, "input": grad_input, "kernel": grad_kernel}


for _operation, _primitive in PRIMITIVES.items():
    # As JAX runs its own: compiled under `jax.disable_jit` too, and named by `jax.debug_nans`.
    _primitive.def_impl(partial(apply_primitive, _primitive))
    _primitive.def_abstract_eval(partial(_abstract, _operation))
    ad.defbilinear(
        _primitive, *[_transposed(rule, number) for number, rule in enumerate(TRANSPOSES[makes(_operation)])]
    )
    batching.primitive_batchers[_primitive] = partial(_batched, _operation)
