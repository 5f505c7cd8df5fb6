"""Fixtures and settings that the test files share."""

import contextlib
import dataclasses
import os
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
import quick
import ways
from oracle import Gradient, gradients

import localconv
from localconv import _core
from localconv.core import settings

# The same examples every time, so that nobody's change fails for another's fault; `make fuzz` looks for new ones.
hypothesis.settings.register_profile("repeat", deadline=None, max_examples=60, derandomize=True, database=None)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=300)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("repeat"), max_examples=quick.EXAMPLES)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="a selection that finds what most changes break (quick.py)")


def pytest_configure(config):
    if config.getoption("quick"):
        hypothesis.settings.load_profile("quick")


def pytest_ignore_collect(collection_path, config):
    return True if config.getoption("quick") and quick.is_slow(collection_path) else None


def pytest_collection_modifyitems(config, items):
    if config.getoption("quick"):
        items[:], left_out = quick.select(items)
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(autouse=True)
def settings_restored():
    """No test leaves the package's process-wide settings changed,
    or runs on fewer threads because another one had to wait.
    """
    _core.forget_stalls()
    isa, data_format, floatx = settings.get_isa(), localconv.image_data_format(), localconv.floatx()
    yield
    settings.set_isa(isa)
    localconv.set_image_data_format(data_format)
    localconv.set_floatx(floatx)
    localconv.set_winograd(False)
    localconv.set_num_threads(None)


@pytest.fixture(params=_core.available_isas())
def isa(request):
    """Every instruction set that runs here, each in force for one run of the test."""
    settings.set_isa(request.param)
    return request.param


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


def each_way(choices):
    """A fixture that forces each way in turn, and gives it to the test."""

    @pytest.fixture(params=choices, ids=ways.name)
    def way(request):
        with settings.forced(*request.param):
            yield request.param

    return way


local_way, conv_way = each_way(ways.FORWARD["local"]), each_way(ways.FORWARD["conv"])
local_gradient_way, conv_gradient_way = each_way(ways.GRADIENTS["local"]), each_way(ways.GRADIENTS["conv"])


@pytest.fixture
def solve(isa):
    """Runs a case with localconv and checks the values, and by the kernel's own record that this isa computed them."""

    def run(case, arrays=None):
        result = case.run(localconv, case.arrays() if arrays is None else arrays)
        case.check(result, arrays)
        ran = _core.last_run()
        assert (ran["isa"], ran["dtype"]) == (isa, result.dtype.name)
        return result

    return run


@pytest.fixture
def solve_gradient(isa):
    """As `solve`, for one gradient."""

    def run(gradient, arrays=None):
        result = gradient.run(localconv.grad, gradient.arrays() if arrays is None else arrays)
        assert result.shape == gradient.shape
        gradient.check(result, arrays)
        ran = _core.last_run()
        assert ran["operation"] in (gradient.operation, gradient.by_columns)
        assert (ran["isa"], ran["dtype"]) == (isa, result.dtype.name)
        return result

    return run


@pytest.fixture
def solve_gradients(solve_gradient):
    """Both gradients of a case."""

    def run(case):
        for gradient in gradients(case):
            solve_gradient(gradient)

    return run


@pytest.fixture
def python(tmp_path):
    """Runs Python code in a fresh process, with variables added to the environment, and returns what it printed.

    The process sees no keras.json but the one that a test puts into tmp_path / 'keras', and no LOCALCONV_* or
    OMP_NUM_THREADS from outside. It must succeed within the time, and leave nothing running.
    """

    def run(code, *arguments, timeout=120, **variables):
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("LOCALCONV_", "OMP_NUM", "COVERAGE"))}
        environment = plain | {"KERAS_HOME": str(tmp_path / "keras")} | variables
        command = [sys.executable, "-c", code, *map(str, arguments)]
        files = {"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        done = subprocess.run(command, env=environment, text=True, timeout=timeout, check=False, **files)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def no_change():
    """A context in which these arrays must keep every byte."""

    @contextlib.contextmanager
    def watch(*arrays):
        before = [np.asarray(array).tobytes() for array in arrays]
        yield
        assert [np.asarray(array).tobytes() for array in arrays] == before

    return watch


@pytest.fixture
def central_differences():
    """Compares both gradients of a case with differences of the forward convolution, in float64.

    The convolution is linear in each of its arrays: the step may be 1, and what is left is rounding.
    """

    def run(case, data_format):
        case = dataclasses.replace(case, data_format=data_format, dtype="float64", exact=False)
        arrays = list(case.arrays()[:2])
        grad_output = Gradient(case, "input").arrays()[1]
        for number, gradient in enumerate(gradients(case)):
            differences = np.empty(gradient.shape)
            for place in np.ndindex(gradient.shape):
                sums = []
                for step in (1, -1):
                    moved = [array.copy() for array in arrays]
                    moved[number][place] += step
                    sums.append(np.vdot(case.run(localconv, (*moved, None)), grad_output))
                differences[place] = (sums[0] - sums[1]) / 2
            result = gradient.run(localconv.grad, gradient.arrays())
            np.testing.assert_allclose(result, differences, rtol=1e-12, atol=1e-12)

    return run
