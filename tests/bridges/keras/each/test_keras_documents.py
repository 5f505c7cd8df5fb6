"""The examples in the docstrings hold, and what the documentation's pages say of Keras 3 runs."""

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from keras_tools import BACKEND

import localconv.keras

MODULES = [
    name
    for _, name, _ in pkgutil.iter_modules(localconv.keras.__path__, "localconv.keras.")
    # Another backend's.
    if BACKEND == "tensorflow" or not name.endswith("tensorflow_functions")
]
DOCS = Path(__file__).parents[4] / "docs"
# The pages, and a word of their blocks that are meant for Keras.
PAGES = {"coming-from-keras3.md": "", "small-kernels.md": "localconv.keras", "deploying.md": "localconv.keras"}
BLOCK = re.compile(r"^```py\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["localconv.keras", *MODULES])
def test_docstrings(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


@pytest.mark.parametrize("page", PAGES)
def test_page(page, tmp_path):
    if not DOCS.exists():
        pytest.skip("a test of a checkout; this is not one")
    blocks = [block for block in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")) if PAGES[page] in block]
    if BACKEND == "numpy":
        blocks = [block for block in blocks if ".fit(" not in block]
    assert blocks
    golden = str(Path(__file__).parents[3] / "golden")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env=os.environ | {"GOLDEN": golden},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
