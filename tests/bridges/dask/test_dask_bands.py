"""Bands: every one is a convolution by itself, of no more input than its windows meet."""

import dataclasses
import math
import pickle
import random

import dask_cases
import numpy as np
import oracle
import pytest
from dask_cases import chunked
from hypothesis import given, settings
from oracle import Case

import localconv
from localconv.core import engine
from localconv.core.spec import column_spec, conv_spec, local_spec
from localconv.dask.bands import bands_of, even, ranges


def spec_of(case):
    options = case.options()
    names = ("kernel_size", "strides", "padding", "data_format", "dilation_rate", "groups")
    return local_spec(case.rank, *[options[name] for name in names])


@given(chunked())
@settings(max_examples=200)
def test_bands_together_are_the_whole(drawn):
    case = drawn.case
    x, kernel, _ = case.arrays()
    heights = dask_cases.cut(random.Random(case.seed), case.out[0])
    rows = 1 if case.data_format == "channels_last" else 2
    results = []
    for band in bands_of(spec_of(case), case.spatial, heights, case.groups):
        inside = (slice(None),) * rows + (slice(*band.reach),)
        results.append(engine.forward(band.spec, x[inside], kernel[slice(*band.positions)]))
        # From the first row that its windows meet to the last, and no others.
        windows = case.taps[0][slice(*band.rows)]
        low, high = np.clip((windows.min(), windows.max() + 1), 0, case.spatial[0])
        assert band.reach == (low, high)
    whole = case.run(localconv, (x, kernel, None))
    oracle.assert_same_bits(np.concatenate(results, rows), whole)


def test_bands_that_lie_in_padding():
    """In front, behind, and where nothing else is."""
    spec = local_spec(1, 2, 1, ((9, 8),), "channels_last", 1, 1)
    bands = bands_of(spec, (3,), (4, 4, 4, 4, 3), 1)
    assert [band.reach for band in bands] == [(0, 0), (0, 0), (0, 3), (3, 3), (3, 3)]
    case = Case("local_conv1d", (3,), (2,), padding=((9, 8),))
    x, kernel, _ = case.arrays()
    parts = [engine.forward(b.spec, x[:, slice(*b.reach)], kernel[slice(*b.positions)]) for b in bands]
    case.check(np.concatenate(parts, 1))


@pytest.mark.parametrize(("total", "most", "parts"), [(7, 3, (3, 3, 1)), (6, 3, (3, 3)), (2, 5, (2,)), (0, 5, ())])
def test_even_parts(total, most, parts):
    assert even(total, most) == parts
    assert sum(high - low for low, high in ranges(parts)) == total == math.fsum(parts)


@pytest.mark.parametrize(
    "spec",
    [
        local_spec(2, 3, 1, "same", "channels_last", (1, 2), 2, (4, 5)),
        local_spec(1, 3, 2, ((1, 0),), "channels_first", 1, 1),
        conv_spec(2, (2, 1), "valid", "channels_last", 1, 3),
        conv_spec(1, 1, "causal", "channels_first", 2, 1),
        column_spec(2, (3, 2), 2, "same", "channels_last", 3),
    ],
)
def test_a_pickled_spec_is_one_object(spec):
    """Plans are kept by it: every task of a process must find the same."""
    found = pickle.loads(pickle.dumps(spec))
    assert dataclasses.astuple(found) == dataclasses.astuple(spec)
    assert pickle.loads(pickle.dumps(spec)) is found is pickle.loads(pickle.dumps(found))
