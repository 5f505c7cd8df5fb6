"""What `torch.utils.flop_counter` counts for the operators: as for PyTorch's convolutions, two for every product of the
sum, those with padding among them, and nothing for a bias.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from ..core.families import FILTER
from .operators import INPUT, OPERATORS, OUTPUT, WEIGHT, Operator

__all__: list[str] = []


def register(operator: Operator) -> None:
    """Tell the counter of one operator. It gives sizes for tensors."""

    def flops(*arguments: Any, out_shape: Any, **_: Any) -> int:
        x, weight, y, _, _, input_size, weight_size = operator.operands_of(arguments)
        if operator.family == FILTER:  # a product for each tap of each output value
            output = {OUTPUT: out_shape, INPUT: y, WEIGHT: y}[operator.target]
            return 2 * prod(output) * operator.window_of(arguments).taps
        images = (input_size if x is None else x)[0]  # each of which meets all of the weight
        return int(2 * images * prod(weight_size if weight is None else weight))

    register_flop_formula(getattr(torch.ops.localconv, operator.name))(flops)


for _operator in OPERATORS:
    register(_operator)
