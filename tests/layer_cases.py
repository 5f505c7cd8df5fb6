"""What the tests of layers share: Keras's golden cases, closeness, and central differences."""

import json
import math
import pathlib

import numpy as np

GOLDEN = pathlib.Path(__file__).parent / "golden" / "layers"


def golden(family):
    """The cases of one .npz file, their arrays in place."""
    with np.load(GOLDEN / f"{family}.npz") as file:
        flat = {name: file[name] for name in ("float32", "float64")}
        cases = json.loads(str(file["cases"]))

    def filled(value):
        if isinstance(value, list):
            return [filled(part) for part in value]
        if isinstance(value, dict) and set(value) == {"array"}:
            dtype, start, shape = value["array"]
            return flat[dtype][start : start + math.prod(shape)].reshape(shape)
        if isinstance(value, dict):
            return {key: filled(part) for key, part in value.items()}
        return value

    return [filled(case) for case in cases]


def assert_close(result, expected, roundings=64):
    """Of the same dtype and shape, and within so many roundings of the largest value."""
    result, expected = np.asarray(result), np.asarray(expected)
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1.0, finite.max(initial=0))
    np.testing.assert_allclose(
        result,
        expected,
        rtol=roundings * np.finfo(expected.dtype).eps,
        atol=roundings * np.finfo(expected.dtype).eps * scale,
    )


def central_differences(function, x, step=1e-5):
    """The derivative of a function of one float64 array with respect to each element."""
    slopes = np.empty_like(x)
    for place in np.ndindex(x.shape):
        low, high = x.copy(), x.copy()
        low[place] -= step
        high[place] += step
        slopes[place] = (float(function(high)) - float(function(low))) / (2 * step)
    return slopes


def away_from(x, *kinks, distance=1e-2):
    """x, moved where it is so near to a kink of a function that differences across it would mean nothing."""
    for kink in kinks:
        near = np.abs(x - kink) < distance
        x = np.where(near, kink + distance * np.where(x < kink, -1, 1), x)
    return x
