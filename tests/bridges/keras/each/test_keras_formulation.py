"""Filters that come with the data in keras.ops alone, on every backend."""

import random

import keras
import numpy as np
import pytest
from formulated import by_tap_of, formulated, wild_where_absent
from keras import ops
from keras_tools import BACKEND
from operations import draw_filter_case
from oracle import FILTER_ROLES, FilterCase

SUMS = ("local_filter", "local_filter_input", "local_filter_filters")


@pytest.mark.parametrize("kind", FILTER_ROLES)
@pytest.mark.parametrize("number", range(4))
def test_values(kind, number):
    """Also where filters that meet no pixel hold NaN."""
    rng = random.Random(f"{kind} {number}")
    case = draw_filter_case(rng, kind, rng.randint(1, 3))
    while case.dtype != "float32":
        case = draw_filter_case(rng, kind, rng.randint(1, 3))
    arrays = wild_where_absent(case, case.arrays(), np.nan)
    result = formulated(ops, case, {name: ops.convert_to_tensor(array) for name, array in arrays.items()})
    case.check(ops.convert_to_numpy(result))


@pytest.mark.parametrize("padding", ["same", "inside", ((3, 1), (0, 4))], ids=str)
@pytest.mark.parametrize("kind", SUMS)
def test_unknown_batches(kind, padding):
    """Shapes of models, and programs of TensorFlow."""
    strides = 1 if padding == "inside" else (2, 1)
    case = FilterCase(kind, (6, 7), (3, 2), 2, 4, strides=strides, padding=padding)
    by_tap, shapes, names = by_tap_of(case), case.shapes(), list(case.role.arrays)

    def call(*arrays):
        return formulated(ops, case, dict(zip(names, arrays, strict=True)), by_tap)

    unknown = [(None, *shapes[name][1:]) for name in case.role.arrays.values()]
    assert call(*map(keras.KerasTensor, unknown)).shape == (None, *shapes[case.role.makes][1:])
    if BACKEND == "tensorflow":
        import tensorflow as tf

        program = tf.function(call, input_signature=[tf.TensorSpec(shape) for shape in unknown])
        case.check(program(*case.arrays().values()).numpy())
