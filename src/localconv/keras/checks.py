"""Shapes of filters that come with the data, where Keras may not know all of them yet: those are None."""

from __future__ import annotations

from typing import Any

from ..core import engine
from ..core.geometry import Mismatch, Names, geometry_of
from ..core.spec import Spec
from ..core.windows import layout_of, output_of

Sizes = tuple[int | None, ...]


def split(spec: Spec, shape: Sizes) -> tuple[Sizes, int | None]:
    """Spatial sizes and channels of an array of images."""
    return (shape[2:], shape[1]) if spec.channels_first else (shape[1:-1], shape[-1])


def known_output(spec: Spec, x_shape: Sizes) -> Sizes:
    """The output's sizes; of one that is not known yet there is none in the output either."""
    spatial, _ = split(spec, x_shape)
    found = output_of(spec, [0 if n is None else n for n in spatial])
    return tuple(None if n is None else count for n, count in zip(spatial, found, strict=True))


def result_shape(spec: Spec, x_shape: Sizes) -> Sizes:
    """The shape of a result of `local_filter`."""
    return layout_of(x_shape[:1], known_output(spec, x_shape), split(spec, x_shape)[1], spec.channels_first)  # type: ignore[arg-type]


def check_filters(spec: Spec, x_shape: Sizes, shape: Sizes, names: Names) -> None:
    """ValueError unless filters of this shape fit images of that one, as far as these are known."""
    first, second = _of_known_batches(x_shape, shape)
    if _are_known(spec, first) and None not in second:
        try:
            geometry_of(spec, first, second)  # type: ignore[arg-type]
        except Mismatch as error:
            raise error.named(names) from None


def check_queries(spec: Spec, x_shape: Sizes, shape: Sizes, names: Names) -> None:
    """ValueError unless queries of this shape fit images of that one, as far as these are known."""
    first, second = _of_known_batches(x_shape, shape)
    if _are_known(spec, first) and None not in second:
        expected, _ = engine.shapes_of_correlation(spec, first, names)  # type: ignore[arg-type]
        engine.check_gradient(second, expected, names)  # type: ignore[arg-type]


def _are_known(spec: Spec, shape: Sizes) -> bool:
    """Whether a shape has nothing unknown. Of another number of axes it has not: that is an error all the same."""
    return None not in shape or len(shape) != spec.rank + 2


def _of_known_batches(*shapes: Sizes) -> tuple[Any, ...]:
    """The shapes with a batch, if that of one is not known: the same for both. Symbols are not known: JAX's programs of
    any batch have them.
    """
    shapes = tuple(tuple(n if isinstance(n, int) else None for n in shape) for shape in shapes)
    batch = next((shape[0] for shape in shapes if shape and shape[0] is not None), 1)
    if all(shape and shape[0] is not None for shape in shapes):
        return shapes
    return tuple((batch, *shape[1:]) for shape in shapes)
