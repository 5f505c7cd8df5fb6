"""localconv.grad, the transposed convolutions and their NumPy twins against gradients by TensorFlow 2.15, torch, JAX.

golden/make_golden_gradients.py makes the vectors anew. Their values have few bits: every sum is exact.
"""

import json
import math
import pathlib

import numpy as np
import oracle
import pytest
import ways

import localconv
from localconv import grad
from localconv.core import settings


def golden_cases():
    for path in sorted(pathlib.Path(__file__).parent.glob("golden/gradients/*.npz")):
        with np.load(path) as file:
            flat = {name: file[name] for name in file.files}
        for number, case in enumerate(json.loads(str(flat["cases"]))):
            arrays = {name: array_at(flat, *place) for name, place in case["arrays"].items()}
            expected = array_at(flat, *case["output"])
            yield pytest.param(case["function"], arrays, case["arguments"], expected, id=f"{path.stem}-{number}")


def array_at(flat, dtype, start, shape):
    return flat[dtype][start:][: math.prod(shape)].reshape(shape)


@pytest.mark.parametrize(("function", "arrays", "arguments", "expected"), list(golden_cases()))
def test_agrees(function, arrays, arguments, expected):
    twin = getattr(oracle, function)(**arrays, **arguments)
    np.testing.assert_array_equal(twin.astype(expected.dtype), expected, strict=True)
    compiled = getattr(grad if hasattr(grad, function) else localconv, function)
    for way in (*ways.GRADIENTS["conv"], *ways.GRADIENTS["local"]):
        with settings.forced(*way):
            np.testing.assert_array_equal(compiled(**arrays, **arguments), expected, strict=True)


def test_there_are_vectors_of_every_function():
    functions = {case.values[0] for case in golden_cases()}
    both = {f"{local}conv{rank}d_{of}" for local in ("", "local_") for rank in (1, 2, 3) for of in ("input", "kernel")}
    assert functions == both | {f"conv{rank}d_transpose" for rank in (1, 2, 3)} | {"local_conv3d"}
