"""The examples of the docstrings of `localconv.torch`, and the program for several processes on its page.

tests/test_documents.py runs the page's other blocks.
"""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="localconv.torch needs PyTorch: make test-bridges installs it")

import localconv.torch  # noqa: E402

PAGE = Path(__file__).parents[3] / "docs" / "small-kernels.md"
# Triton's kernels have no examples, and cannot be imported where it is not.
MODULES = [
    m.name
    for m in pkgutil.iter_modules(localconv.torch.__path__, "localconv.torch.")
    if not m.name.endswith("triton_kernels")
]


@pytest.mark.parametrize("name", ["localconv.torch", *MODULES])
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")  # in run_decompositions
def test_docstrings(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


@pytest.mark.parametrize("name", [name for name in localconv.torch.__all__ if name.endswith("3d")])
def test_three_dimensions_are_not_described_as_two(name):
    """Their docstrings are made of those for two, by the words that depend on the rank."""
    text = getattr(localconv.torch, name).__doc__
    assert not re.search(r"2[dD]\b|\b2 ints|\(C, H|(?<!D )\* H|(?<!kd \* )kh \* kw", text)


def test_everything_public_has_an_example():
    for name in localconv.torch.__all__:
        assert ">>>" in getattr(localconv.torch, name).__doc__, name


@pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="this PyTorch has no gloo"
)
def test_the_program_for_several_processes(tmp_path):
    page = Path(__file__).parents[3] / "docs" / "coming-from-torch.md"
    if not page.exists():
        pytest.skip("a test of a checkout; this is not one")
    (program,) = re.findall(r"^```py\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "ddp.py").write_text(program, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "ddp.py"]
    done = subprocess.run(launch, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    # Lines of two processes may run into each other.
    sums = dict(re.findall(r"(\d): (-?\d+\.\d{4})", done.stdout))
    assert set(sums) == {"0", "1"}
    assert sums["0"] == sums["1"]


def test_page(python):
    if not PAGE.exists():
        pytest.skip("a test of a checkout; this is not one")
    blocks = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if "localconv.torch" in block]
    python(block)


def test_deploying(python):
    """The blocks about PyTorch, one after the other."""
    page = Path(__file__).parents[3] / "docs" / "deploying.md"
    if not page.exists():
        pytest.skip("a test of a checkout; this is not one")
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed, reason=f"{needed} is among the tests' tools: make test-bridges installs it")
    section = re.search(r"^## PyTorch\n(.*?)(?=^## |\Z)", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1]
    blocks = re.findall(r"^```py\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    python("\n".join(blocks), timeout=300)
