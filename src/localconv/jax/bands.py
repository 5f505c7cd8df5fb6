"""Locally connected convolution by jnp, for platforms that have no handler.

Windows are gathered and multiplied in one batch of matrices. Where that takes more memory than `formulation.MEMORY`, a
loop goes over bands of positions: a program has its body once, and XLA runs one turn after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import dynamic_slice_in_dim, dynamic_update_slice, dynamic_update_slice_in_dim

from ..core import formulation
from ..core.arguments import Ints
from ..core.families import makes
from ..core.formulation import Piece, whole
from ..core.spec import with_padding
from ..core.windows import Convolution
from .primitives import result_dtype, shapes_of, type_of, vary, varying_axes
from .window import Window, convolution_of

Load = Callable[[jax.Array], jax.Array]


def rows_by_jnp(
    operation: str, examples: Ints, a: jax.Array, b: jax.Array, *, window: Window, **params: Any
) -> jax.Array:
    """One of the operations; examples: how many of them `jax.vmap` has at once, if any."""
    x, kernel, gradient = shapes_of(operation, a, b, window, **params)
    convolution, dtype, made = convolution_of(window, x, kernel[-1]), result_dtype(a, b), makes(operation)
    # Products of 16 bits are summed in 32.
    wide = jnp.promote_types(dtype, jnp.float32) if made == "input" else dtype
    memory = formulation.MEMORY // prod(n for n in examples if isinstance(n, int))
    box = formulation.box_within(convolution, x[0], max(4, dtype.itemsize), memory, made != "kernel")

    def load(part: jax.Array) -> jax.Array:
        return part.astype(dtype)

    def sums(products: jax.Array) -> jax.Array:
        return products.astype(wide)

    if box == convolution.output:
        return _compute(made, whole(convolution), a, b, load, sums).astype(dtype)
    bands, size = Bands(convolution, box), {"output": gradient, "input": x, "kernel": kernel}[made]

    def turn(number: jax.Array, result: jax.Array) -> jax.Array:
        return bands.with_band(number, result, made, a, b, load, sums)

    # It varies over the mesh axes that its parts do: inside `jax.shard_map` a loop asks for that.
    start = vary(jnp.zeros(size, wide), varying_axes(type_of(a)))
    return jax.lax.fori_loop(0, bands.count, turn, start).astype(dtype)


def _compute(made: str, piece: Piece, a: jax.Array, b: jax.Array, load: Load, sums: Load) -> jax.Array:
    """The operation that makes one of the three arrays, of a convolution in one piece."""
    if made == "output":
        return formulation.forward(jnp, [piece], load(a), b, load)
    if made == "input":
        return formulation.grad_input_by_axes(jnp, piece, load(a), load(b), sums)
    return formulation.grad_kernel(jnp, piece, load(a), load(b), jnp.where)


def _summed_over_images(x: jax.Array) -> jax.Array:
    """Images as they are, but in memory image by image in the innermost axis, over which a product will sum.

    Its operand is then copied in long rows. Behind the barrier XLA would transpose every window instead of every pixel.
    """
    return jnp.moveaxis(jax.lax.optimization_barrier(jnp.moveaxis(x, 0, -1)), -1, 0)


class Bands:
    """A convolution in bands of one size. Where they do not fit the output, the last has positions of the one before.

    A band is a convolution of its own over the pixels that it sees, which have their padding along the axes that are
    cut; it is all there is along the others.
    """

    def __init__(self, convolution: Convolution, box: Ints) -> None:
        self.convolution, self.box = convolution, box
        self.counts = tuple(-(-n // size) for n, size in zip(convolution.output, box, strict=True))
        self.count = prod(self.counts)
        # The axes that are cut, which come first.
        self.cut = 1 + max(number for number, count in enumerate(self.counts) if count > 1)
        self.first = 2 if convolution.channels_first else 1

    @cached_property
    def piece(self) -> Piece:
        """A band."""
        c, cut = self.convolution, self.cut
        padding = (((0, 0),) * cut) + c.padding[cut:]
        seen = [(n - 1) * axis.stride + axis.reach for n, axis in zip(self.box, c.axes[:cut], strict=False)]
        return whole(Convolution(with_padding(c.spec, padding), (*seen, *c.spatial[cut:]), c.channels, c.filters))

    def with_band(
        self, number: jax.Array, result: jax.Array, made: str, a: jax.Array, b: jax.Array, load: Load, sums: Load
    ) -> jax.Array:
        """The array that an operation makes, with what one band adds to it."""
        turns = jnp.unravel_index(number, self.counts)
        begun = [turn * size for turn, size in zip(turns, self.box, strict=True)]
        axes = zip(begun, self.convolution.output, self.box, strict=True)
        starts = [jnp.minimum(start, n - size) for start, n, size in axes]
        pixels, row = self.pixels(starts), self.row(starts)
        if made == "output":
            rows = self.inside(starts, load(self.rows(b, row)))
            part = _compute(made, self.piece, self.seen(a, pixels), rows, load, sums)
            zero = jnp.zeros_like(starts[0])
            return dynamic_update_slice(result, part, self.places(starts, zero))
        here = self.outputs(b, starts)
        if made == "kernel":
            seen = _summed_over_images(self.seen(a, pixels))
            rows = _compute(made, self.piece, seen, here, load, sums)
            return dynamic_update_slice_in_dim(result, self.inside(starts, rows), row, 0)

        def once(products: jax.Array) -> jax.Array:
            return self.new(sums(products), begun, starts)

        part = _compute(made, self.piece, self.rows(a, row), here, load, once)
        return result.at[self.at(pixels)].add(part, mode="drop")

    def places(self, starts: list[jax.Array], zero: jax.Array) -> list[jax.Array]:
        """Where some positions are in an array of outputs."""
        return [zero] * self.first + starts + [zero] * (2 - self.first)

    def outputs(self, gradient: jax.Array, starts: list[jax.Array]) -> jax.Array:
        """The gradient for a band's outputs."""
        for axis, (start, size) in enumerate(zip(starts[: self.cut], self.box, strict=False)):
            gradient = dynamic_slice_in_dim(gradient, start, size, self.first + axis)
        return gradient

    def row(self, starts: list[jax.Array]) -> jax.Array:
        """The first position of a band in a kernel."""
        row = starts[0]
        for start, n in zip(starts[1:], self.convolution.output[1:], strict=True):
            row = row * n + start
        return row

    def rows(self, kernel: jax.Array, row: jax.Array) -> jax.Array:
        """A band's rows of a kernel."""
        return dynamic_slice_in_dim(kernel, row, prod(self.box), 0)

    def inside(self, starts: list[jax.Array], rows: jax.Array) -> jax.Array:
        """Rows of a band without those that meet padding along the axes that are cut."""
        c = self.convolution
        if not any(map(any, c.padding[: self.cut])):
            return rows
        positions = [start + jnp.arange(size) for start, size in zip(starts, self.box, strict=True)]
        taps = [jnp.arange(size) for size in c.kernel_size]
        return formulation.rows_inside(jnp, c, positions, taps, rows, jnp.where)

    def pixels(self, starts: list[jax.Array]) -> list[jax.Array]:
        """The pixels of a band along the axes that are cut; n, of which there is none, for those in padding."""
        found = []
        for start, axis, n in zip(
            starts[: self.cut], self.convolution.axes, self.piece.convolution.spatial, strict=False
        ):
            numbers = start * axis.stride - axis.before + jnp.arange(n)
            found.append(jnp.where(numbers < 0, axis.n, numbers))
        return found

    def at(self, pixels: list[jax.Array]) -> tuple[Any, ...]:
        """The index of some pixels in an array of images."""
        return (*[slice(None)] * self.first, *jnp.ix_(*pixels))

    def seen(self, x: jax.Array, pixels: list[jax.Array]) -> jax.Array:
        """What a band sees of an image."""
        if not any(map(any, self.convolution.padding[: self.cut])):
            for axis, numbers in enumerate(pixels):
                x = dynamic_slice_in_dim(x, numbers[0], numbers.shape[0], self.first + axis)
            return x
        return x.at[self.at(pixels)].get(mode="fill", fill_value=0)

    def new(self, products: jax.Array, begun: list[jax.Array], starts: list[jax.Array]) -> jax.Array:
        """Products (batch, positions, ...) of a band, those of positions that an earlier one had 0."""
        last = self.cut - 1
        if self.convolution.output[last] % self.box[last] == 0:
            return products
        along = starts[last] + jnp.arange(prod(self.box)) // prod(self.box[self.cut :])
        return jnp.where((along >= begun[last]).reshape(-1, *[1] * (products.ndim - 2)), products, 0)
