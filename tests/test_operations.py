"""What every operation of the table in operations.py does, on every instruction set and with more threads than one."""

import os
import random
import sys

import numpy as np
import oracle
import pytest
import test_arguments
import test_arguments_grad
from fuzz_functions import sprinkled
from fuzz_values import bits
from operations import OPERATIONS

import localconv
from localconv import backend, filters, grad
from localconv.core import engine, policy

DRAWS = 12


def draws(name):
    """Arguments of an operation, the same at every run."""
    for number in range(DRAWS):
        yield OPERATIONS[name].draw(random.Random(f"{name} {number}"))


def call(name, arguments, **more):
    return getattr(OPERATIONS[name].module, name)(**arguments, **more)


def test_the_table_is_whole():
    """Every function has a row, but for the gradients of the bias, which has no job, and of banks, made of the
    others; and every row, whatever its kind, is among those whose wrong arguments are tried.
    """
    banks = {f"local_conv{rank}d_bank" for rank in (1, 2, 3)}
    assert set(OPERATIONS) == {*backend.__all__, *filters.__all__, *grad.__all__} - {"bias"} - banks
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


@pytest.mark.parametrize("name", OPERATIONS)
def test_specials_reach_what_holds_them(isa, name):
    """NaN and inf in any array come out just where the twin has them: what is not in a sum is not multiplied."""
    for number, arguments in enumerate(draws(name)):
        rng = random.Random(number)
        wild = {key: sprinkled(rng, value) for key, value in arguments.items()}
        with np.errstate(invalid="ignore"):
            expected = getattr(oracle, name)(**wild)
        result = call(name, wild)
        np.testing.assert_array_equal(result, expected.astype(result.dtype), strict=True)


AT_THE_EDGE = """
import ctypes, faulthandler, mmap, random, sys
import numpy as np
from localconv import _core
from localconv.core import settings
from operations import OPERATIONS

faulthandler.enable()
protect, page = ctypes.CDLL(None, use_errno=True).mprotect, mmap.PAGESIZE
protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

# A copy of an array between two pages that nobody may touch, flush with that behind it or in front of it.
def alone(array, behind):
    room = max(1, -(-array.nbytes // page)) * page
    memory = mmap.mmap(-1, room + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for address in (start, start + page + room):
        assert protect(address, page, 0) == 0, ctypes.get_errno()
    offset = page + (room - array.nbytes if behind else 0)
    copy = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
    copy[...] = array
    return copy

for name, operation in OPERATIONS.items():
    for number in range(int(sys.argv[1])):
        rng = random.Random(f"{name} {number}")
        arguments = operation.draw(rng)
        if number % 3 == 0:
            small = rng.choice([key for key, value in arguments.items() if isinstance(value, np.ndarray)])
            arguments[small] = arguments[small].astype(np.float16)
        function = getattr(operation.module, name)
        for isa in _core.available_isas():
            settings.set_isa(isa)
            print(name, number, isa, file=sys.stderr, flush=True)
            expected = function(**arguments)
            for behind in (True, False):
                given = {k: alone(v, behind) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
                out = alone(np.full_like(expected, np.nan), behind)
                function(**given, out=out)
                assert out.tobytes() == expected.tobytes()
print("right")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no mprotect")
def test_no_byte_beyond_an_array(python):
    """Neither read nor written, in front of it or behind it, where the machine would notice."""
    assert python(AT_THE_EDGE, 8, timeout=600, PYTHONPATH=os.path.dirname(oracle.__file__)) == "right\n"


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
