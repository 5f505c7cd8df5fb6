"""Bias and relu in the pass that sums: every algorithm does both, on whole tiles and on what is left at edges.

A case for each instruction set and no more, so that `pytest --quick` runs all of them.
"""

import itertools

import numpy as np
from oracle import FORMATS, Case

import localconv
from localconv import _core
from localconv.core import engine, settings
from localconv.core.families import FAMILIES
from localconv.core.spec import conv_spec, local_spec

# (batch, channels, filters, groups): one filter, lanes with a rest, groups, and channel lanes.
SIZES = ((2, 4, 1, 1), (9, 3, 21, 1), (3, 4, 6, 2), (9, 21, 21, 21))
# What an algorithm takes, if not every case.
TAKES = {
    "local_dot": lambda case: case.filters == 1,
    "conv_winograd": lambda case: case.groups == 1 and case.data_format == "channels_last",
}
FORWARD = [
    (family, algorithm)
    for family in ("local", "conv")
    for algorithm in settings.ALGORITHMS[FAMILIES[family].operations["output"]]
]


def cases(family, algorithm, dtype):
    names, biases = ("local_conv{}d", ("filters", "full")) if family == "local" else ("conv{}d", ("filters",))
    for size, spatial, data_format, bias in itertools.product(SIZES, ((17,), (5, 6)), FORMATS, biases):
        batch, channels, filters, groups = size
        shared = {"padding": "same", "data_format": data_format, "bias": bias, "dtype": dtype, "groups": groups}
        rank = len(spatial)
        case = Case(names.format(rank), spatial, (3,) * rank, batch, channels, filters, **shared)
        if algorithm not in TAKES or TAKES[algorithm](case):
            yield case


def forward_with_relu(case):
    same = (1, "same", case.data_format, 1, case.groups)
    spec = local_spec(case.rank, case.kernel_size, *same) if case.local else conv_spec(case.rank, *same)
    return engine.forward(spec, *case.arrays(), relu=True)


def test_bias_and_relu(isa):
    for (family, algorithm), dtype in itertools.product(FORWARD, ("float32", "float64")):
        for case in cases(family, algorithm, dtype):
            with settings.forced(algorithm):
                y = case.run(localconv, case.arrays())
                rectified = forward_with_relu(case)
            case.check(y)
            assert (y < 0).any()
            np.testing.assert_array_equal(rectified, np.where(y < 0, 0, y), strict=True)
            assert algorithm in (_core.last_run()["algorithm"], settings.COLUMNS)
