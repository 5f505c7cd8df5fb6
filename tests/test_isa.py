"""Instruction sets: which can run, which one does, and how one is forced."""

import platform
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from oracle import Case, assert_same_bits

import localconv
from localconv import _core
from localconv.core import settings

KNOWN = ("avx512", "avx2", "neon", "wasm128", "scalar")
SHOW = """
import numpy as np
import localconv
from localconv import _core
from localconv.core import settings
localconv.conv1d(np.ones((1, 9, 2)), np.ones((3, 2, 5)))
print(settings.get_isa(), _core.last_run()["isa"])
"""


def test_available():
    isas = _core.available_isas()
    assert isinstance(isas, tuple)
    assert set(isas) <= set(KNOWN)
    assert isas[-1] == "scalar", "runs everywhere, and is the last choice"
    assert len(set(isas)) == len(isas)
    assert sorted(isas, key=KNOWN.index) == list(isas), "best first"


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="of x86-64 on Linux, /proc/cpuinfo tells the sets"
)
def test_all_that_the_processor_has():
    """As the system describes it, which leaves out what it does not save the registers of."""
    flags = set(re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[1].split())
    needed = {"avx512": {"avx512f", "avx2", "fma"}, "avx2": {"avx2", "fma"}, "scalar": set()}
    assert _core.available_isas() == tuple(name for name, these in needed.items() if these <= flags)


def test_nothing_ran_yet(python):
    assert python("import localconv\nfrom localconv import _core\nprint(_core.last_run())") == "None\n"


def test_best_is_the_default(python):
    assert python(SHOW) == f"{_core.available_isas()[0]} {_core.available_isas()[0]}\n"


def test_environment(python, isa):
    assert python(SHOW, LOCALCONV_ISA=isa) == f"{isa} {isa}\n"


@pytest.mark.parametrize("wrong", ["sse9", "AVX2", "avx2,scalar", "0"])
def test_unknown_in_the_environment(python, wrong):
    refused_at_import(python, wrong)


def test_unsupported(python):
    """At least one known set cannot run on any machine: NEON on x86-64, AVX elsewhere."""
    missing = [name for name in KNOWN if name not in _core.available_isas()]
    assert missing
    for name in missing:
        with pytest.raises(ValueError, match=name):
            settings.set_isa(name)
        refused_at_import(python, name)


def refused_at_import(python, name):
    """`import localconv` is a ValueError that tells the name and what there is."""
    code = "try:\n    import localconv\nexcept ValueError as error:\n    print(error)"
    message = python(code, LOCALCONV_ISA=name)
    for word in (name, *_core.available_isas()):
        assert word in message


def test_set_isa_holds_for_all_threads_and_calls(isa):
    assert settings.get_isa() == isa
    for function, spatial, size in (("local_conv1d", (9,), (3,)), ("conv2d", (9, 8), (3, 3))):
        case = Case(function, spatial, size)
        case.check(case.run(localconv, case.arrays()))
        assert _core.last_run()["isa"] == isa


def test_last_run(isa, dtype):
    """The record is of the newest call, and tells the operation, dtype, instruction set, algorithm and threads."""
    for function, spatial, operation in (("local_conv1d", (9,), "local_forward"), ("conv1d", (9,), "conv_forward")):
        case = Case(function, spatial, (3,), dtype=dtype)
        case.run(localconv, case.arrays())
        ran = _core.last_run()
        assert (ran["operation"], ran["isa"], ran["dtype"], ran["threads"]) == (operation, isa, dtype, 1)
        assert isinstance(ran["algorithm"], str)


def test_all_agree(dtype):
    """Sums of normal values differ by rounding only: all stay within the bound around the twin's."""
    for case in (
        Case("local_conv2d", (9, 8), (3, 3), 17, 5, 19, exact=False, dtype=dtype, padding="same"),
        Case("conv2d", (9, 28), (3, 3), 2, 16, 35, exact=False, dtype=dtype, padding="same"),
    ):
        results = []
        for isa in _core.available_isas():
            settings.set_isa(isa)
            results.append(case.run(localconv, case.arrays()))
            case.check(results[-1])
        single = np.ones_like(results[0])
        case.run(localconv, case.arrays(), out=single)
        assert_same_bits(single, results[-1])
