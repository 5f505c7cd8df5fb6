"""localconv and its NumPy twins against vectors of real TensorFlow 2.15 (golden/make_golden.py makes them anew)."""

import json
import math
import pathlib

import numpy as np
import oracle
import pytest

import localconv


def golden_cases():
    for path in sorted(pathlib.Path(__file__).with_name("golden").glob("*.npz")):
        with np.load(path) as file:
            for number, case in enumerate(json.loads(str(file["cases"]))):
                places = case["arrays"].items()
                arrays = {k: file[t][start:][: math.prod(shape)].reshape(shape) for k, (t, start, shape) in places}
                yield pytest.param(case["function"], arrays, case["arguments"], id=f"{path.stem}-{number}")


@pytest.mark.parametrize(("function", "arrays", "arguments"), list(golden_cases()))
def test_agrees_with_tensorflow(function, arrays, arguments):
    arrays = dict(arrays)
    expected = arrays.pop("output")
    twin, bound = getattr(oracle, function)(**arrays, **arguments, bound=True)
    depth = math.prod(arrays["kernel"].shape[1 if "local" in function else 0 : -1])
    # TensorFlow sums in the data's own type; the tolerance has room for a reference that is no wider than the result.
    for result in (getattr(localconv, function)(**arrays, **arguments), twin.astype(expected.dtype)):
        oracle.assert_close(result, expected, bound, depth + ("bias" in arrays), expected.dtype)
