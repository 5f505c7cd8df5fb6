"""The families of operations, a row for each.

A family is one sum of products of two arrays, the input and the kernel, and its operations compute one array of three,
input, kernel and output, from the two others: the forward result, or the gradient for the input or for the kernel. Of
the family whose kernel comes with the data each of the three is a function of its own right too.
Which operation computes what is in the compiled list (`LC_OPERATIONS` in job.h); what else tells the families apart is
here, and Spec, geometry, engine, policy, layers and tests read it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .._core import OPERATIONS


class Family(NamedTuple):
    """How a family differs from the others.

    `operations`: by the array that they make ("output" is the forward result); `kernel_by_position`: the kernel is
    (positions, rows, filters), not kernel_size + (channels, filters), and so may a bias be; `kernel_by_image`: it comes
    with the data, as images of one number for each group and tap at every output position, and there is no bias;
    `centered`: 'same' is Keras 2's window around ``position * stride``, not TensorFlow's SAME; `batch_axes`: the input
    may have several; `paddings`: names of paddings that no other family takes.
    """

    name: str
    operations: dict[str, str]
    kernel_by_position: bool = False
    kernel_by_image: bool = False
    centered: bool = False
    batch_axes: bool = False
    paddings: tuple[str, ...] = ()


def _family(name: str, **differences: Any) -> Family:
    return Family(name, {made: op for op, (family, _, made) in OPERATIONS.items() if family == name}, **differences)


LOCAL, CONV, FILTER = "local", "conv", "filter"
FAMILIES = {
    LOCAL: _family(LOCAL, kernel_by_position=True, centered=True),
    CONV: _family(CONV, batch_axes=True),
    FILTER: _family(FILTER, kernel_by_image=True, paddings=("inside",)),
}


def is_of(operation: str, family: str) -> bool:
    """Whether an operation belongs to a family."""
    return OPERATIONS[operation][0] == family


def makes(operation: str) -> str:
    """The array that an operation makes."""
    return OPERATIONS[operation][2]
