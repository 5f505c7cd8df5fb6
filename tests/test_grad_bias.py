"""The gradient for the bias, against what adding the bias does."""

import itertools

import numpy as np
import pytest
from oracle import FORMATS, Case, assert_same_bits

import localconv
from localconv import grad
from localconv.core import engine

FUNCTIONS = ("local_conv1d", "local_conv2d", "conv1d", "conv2d")


def case_of(function, data_format, batch=3, **changes):
    rank = int(function[-2])
    return Case(function, (5, 4)[:rank], (3, 2)[:rank], batch, 2, 4, data_format=data_format, **changes)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_adjoint_of_adding_the_bias(function, data_format, dtype):
    """<conv + bias, g> - <conv, g> = <bias, gradient>, in integers."""
    for kind in ("filters", *(["full"] if function.startswith("local") else [])):
        case = case_of(function, data_format, bias=kind, dtype=dtype)
        x, kernel, bias = case.arrays()
        added = case.run(localconv, (x, kernel, bias)) - case.run(localconv, (x, kernel, None))
        g = np.random.default_rng(1).integers(-8, 9, added.shape).astype(dtype)
        result = grad.bias(bias.shape, g, data_format)
        assert result.dtype == dtype
        assert np.vdot(result, bias) == np.vdot(added, g)
        out = np.full_like(result, np.nan)
        assert grad.bias(bias.shape, g, data_format, out=out) is out
        assert_same_bits(out, result)


@pytest.mark.parametrize("data_format", FORMATS)
def test_sums_stay_accurate(data_format):
    """A million float32 terms of size 1/3: a block of them is summed in float32, all blocks in float64."""
    shape = (2, 500_003, 3) if data_format == "channels_last" else (2, 3, 500_003)
    g = np.full(shape, 1 / 3, np.float32)
    expected = g.astype(float).sum((0, 1 if data_format == "channels_last" else 2))
    bound = engine.BIAS_BLOCK_ROWS * np.finfo(np.float32).eps
    np.testing.assert_allclose(grad.bias((3,), g, data_format), expected, rtol=bound)
    plain = np.add.accumulate(g.reshape(-1), dtype=np.float32)[-1]
    assert abs(plain - expected.sum()) > bound * expected.sum()  # which one float32 sum would not keep


@pytest.mark.parametrize("value", [1.1, 1.9])
@pytest.mark.parametrize("form", [*FORMATS, "by position"])
def test_four_million_equal_values(form, value):
    """Equal values round the same way in every addition: the documents say 32 eps."""
    shapes = {"channels_last": (1, 4_000_003, 1), "channels_first": (1, 1, 4_000_003), "by position": (2_000_001, 1, 2)}
    g = np.full(shapes[form], value, np.float32)
    bias_shape, data_format = ((1, 2), "channels_last") if form == "by position" else ((1,), form)
    expected = float(np.float32(value)) * (g.size // bias_shape[-1])
    result = grad.bias(bias_shape, g, data_format)
    assert np.abs(result - expected).max() <= 32 * np.finfo(np.float32).eps * expected


def test_any_array_and_batch():
    g = np.random.default_rng(0).standard_normal((4, 6, 5, 3)).astype(np.float32)
    expected = grad.bias((3,), g, "channels_last")
    assert_same_bits(grad.bias((3,), g.astype(">f4"), "channels_last"), expected)
    assert_same_bits(grad.bias((3,), np.asfortranarray(g), "channels_last"), expected)
    assert_same_bits(grad.bias((3,), g.reshape(2, 2, 6, 5, 3), "channels_last"), expected)
    assert_same_bits(grad.bias([3], g[:0], "channels_last"), np.zeros(3, np.float32))
    assert localconv.grad.bias((1,), [[[1.0], [2.0]]], "channels_last") == 3


def test_wrong_arguments():
    g = np.ones((2, 5, 3), np.float32)
    for shape, words in itertools.product([(2,), (5,), (4, 3), (5, 3, 1), ()], ["bias_shape"]):
        with pytest.raises(ValueError, match=words):
            grad.bias(shape, g, "channels_last")
    with pytest.raises(ValueError, match="grad_output"):
        grad.bias((3,), g[0], "channels_last")
    with pytest.raises(TypeError, match="grad_output"):
        grad.bias((3,), g.astype(int), "channels_last")
    with pytest.raises(ValueError, match="data_format"):
        grad.bias((3,), g, "last")
    with pytest.raises(TypeError, match="bias_shape"):
        grad.bias("3", g, "channels_last")
    with pytest.raises(ValueError, match="out"):
        grad.bias((3,), g, "channels_last", out=np.zeros(4, np.float32))
