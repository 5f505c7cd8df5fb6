"""Every Python block of the README and the documentation runs, page by page,
and the examples of all docstrings hold.
"""

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import localconv

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What a page needs beside the package and the tests' own tools.
NEEDS = {"tutorial": "sklearn", "coming-from-jax": "jax"}
SKIPPED = ("__main__", "_core", "_xla")
# Bridges whose docstrings tests/bridges runs.
ELSEWHERE = ("localconv.keras", "localconv.torch")
MODULES = [
    m.name
    for m in pkgutil.walk_packages(localconv.__path__, "localconv.")
    if not m.name.endswith(SKIPPED) and not m.name.startswith(ELSEWHERE)
]
# Packages that only those have who use them with the library of that name.
BRIDGES = {"localconv.jax": "jax"}


def blocks(page):
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", [page for page in PAGES if page.exists() and blocks(page)], ids=lambda page: page.stem)
def test_blocks_run(page, tmp_path):
    """In a process and a folder of their own, one after the other in one namespace."""
    if page.stem in NEEDS:
        pytest.importorskip(NEEDS[page.stem], reason=f"the page needs {NEEDS[page.stem]}")
    environment = os.environ | {"KERAS_HOME": str(tmp_path)}
    code = "\n".join(blocks(page))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_make_targets_exist():
    makefile = ROOT / "Makefile"
    if not makefile.exists():
        pytest.skip("the pages speak of a checkout; this is not one")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile.read_text(), re.MULTILINE))
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]:
        named = re.findall(r"^    make ([a-z0-9-]+)|`make ([a-z0-9-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert {a or b for a, b in named} <= targets, page


def test_citation_names_the_version():
    citation = ROOT / "CITATION.cff"
    if not citation.exists():
        pytest.skip("a test of a checkout; this is not one")
    assert f"\nversion: {localconv.__version__}\n" in citation.read_text(encoding="utf-8")


PARTS = [
    localconv.layers.initializers,
    localconv.layers.regularizers,
    localconv.layers.constraints,
    localconv.layers.activations,
]


@pytest.mark.parametrize(
    ("page", "module"),
    [
        *(
            (page, module)
            for page in ("docs/api.md", "tests/typing/whole_api.py")
            for module in (localconv, localconv.grad, localconv.layers)
        ),
        *(("tests/typing/whole_api.py", module) for module in PARTS),
    ],
)
def test_everything_public_is_on(page, module):
    """The reference, and the file that a strict type checker reads, leave nothing out."""
    page = ROOT / page
    if not page.exists():
        pytest.skip("a test of a checkout; this is not one")
    words = set(re.findall(r"\w+", page.read_text(encoding="utf-8")))
    assert set(module.__all__) <= words


def test_the_whole_interface_runs(tmp_path):
    file = Path(__file__).parent / "typing" / "whole_api.py"
    done = subprocess.run([sys.executable, file], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    for bridge, library in BRIDGES.items():
        if name.startswith(bridge):
            pytest.importorskip(library, reason=f"{bridge} needs {library}")
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0
