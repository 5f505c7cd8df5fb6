"""What every operation of the table in operations.py does, on every instruction set and with more threads than one."""

import random

import numpy as np
import oracle
import pytest
import test_arguments
import test_arguments_grad
from fuzz_values import bits
from operations import OPERATIONS

import localconv
from localconv import backend, grad
from localconv.core import engine, policy

DRAWS = 12


def draws(name):
    """Arguments of an operation, the same at every run."""
    for number in range(DRAWS):
        yield OPERATIONS[name].draw(random.Random(f"{name} {number}"))


def call(name, arguments, **more):
    return getattr(OPERATIONS[name].module, name)(**arguments, **more)


def test_the_table_is_whole():
    """Every function has a row, but for the gradient of the bias, which has no job; and every row, whatever its kind,
    is among those whose wrong arguments are tried.
    """
    assert set(OPERATIONS) == {*backend.__all__, *grad.__all__} - {"bias"}
    assert set(OPERATIONS) == {*test_arguments.FUNCTIONS, *test_arguments_grad.FUNCTIONS}


@pytest.mark.parametrize("name", OPERATIONS)
def test_values(isa, name):
    for arguments in draws(name):
        before = bits(arguments)
        expected = getattr(oracle, name)(**arguments)
        result = call(name, arguments)
        np.testing.assert_array_equal(result, expected.astype(result.dtype), strict=True)
        out = np.full_like(result, np.nan)
        assert call(name, arguments, out=out) is out
        oracle.assert_same_bits(out, result)
        assert bits(arguments) == before


@pytest.fixture
def many_threads(monkeypatch):
    """Work of any size is cut for four threads."""
    monkeypatch.setattr(policy, "PRODUCTS_PER_THREAD", 1)
    monkeypatch.setattr(policy, "PRODUCTS_PER_TASK", 1)
    monkeypatch.setattr(engine.plans, "limit", 0)  # none is kept for others
    engine.plans.clear()
    localconv.set_num_threads(4)


@pytest.mark.parametrize("name", OPERATIONS)
def test_same_bits_with_many_threads(name, many_threads):
    for arguments in draws(name):
        whole = call(name, arguments)
        localconv.set_num_threads(1)
        oracle.assert_same_bits(call(name, arguments), whole)
        localconv.set_num_threads(4)
