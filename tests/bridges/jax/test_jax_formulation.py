"""Filters that come with the data by `jax.numpy`, as other platforms than the processor compute them."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from formulated import formulated, wild_where_absent
from operations import draw_filter_case
from oracle import FILTER_ROLES, FilterCase


def drawn(kind, number):
    """Cases in float32, the same at every run."""
    rng = random.Random(f"{kind} {number}")
    while True:
        case = draw_filter_case(rng, kind, rng.randint(1, 3))
        if case.dtype == "float32":
            return case


@pytest.mark.parametrize("kind", FILTER_ROLES)
@pytest.mark.parametrize("number", range(3))
def test_values(kind, number):
    """In one program. Also where filters that meet no pixel hold NaN."""
    case = drawn(kind, number)
    arrays = wild_where_absent(case, case.arrays(), np.nan)
    case.check(np.asarray(jax.jit(lambda arrays: formulated(jnp, case, arrays))(arrays)))


@pytest.mark.parametrize("padding", ["same", "inside", ((3, 1), (0, 4))], ids=str)
@pytest.mark.parametrize("kind", ["local_filter", "local_filter_input", "local_filter_filters"])
def test_transforms(kind, padding):
    """One program for all values, a batch of examples, and the derivative, which is of this family too."""
    case = FilterCase(kind, (6, 5), (3, 2), 2, 6, groups=2, dilation_rate=2, padding=padding)
    first, second = (jnp.asarray(array) for array in case.arrays().values())
    names = list(case.arrays())

    @jax.jit
    def call(*arrays):
        return formulated(jnp, case, dict(zip(names, arrays, strict=True)))

    expected = call(first, second)
    case.check(np.asarray(expected))
    mapped = jax.vmap(call, (0, None))(jnp.stack([first, 2 * first]), second)
    np.testing.assert_array_equal(mapped[1], 2 * expected)
    _, moved = jax.jvp(call, (first, second), (first, second))  # a sum of two products, each linear in one array
    np.testing.assert_array_equal(moved, 2 * expected)
    _, back = jax.vjp(call, first, second)
    for array, gradient in zip((first, second), back(expected), strict=True):
        assert float(jnp.vdot(array, gradient)) == pytest.approx(float(jnp.vdot(expected, expected)), rel=1e-5)
