"""What setup.py says where the package cannot be compiled, and what it keeps of an editable build."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parent.parent / "setup.py"

pytestmark = [
    pytest.mark.skipif(not SETUP.exists(), reason="a test of a checkout; this is not one"),
    pytest.mark.skipif(sys.platform == "win32", reason="Microsoft's compiler is not found by the variable CC"),
]

# Compiles nothing, and refuses a probe that includes a header.
COMPILER = """#!/bin/sh
for word; do
    case "$word" in */probe.c) grep -q "include <HEADER>" "$word" && exit 1;; esac
done
exit 0
"""


@pytest.fixture
def built(tmp_path):
    """Builds empty extensions in place of the package's with some compiler, and returns how that ended."""

    def run(compiler, *command, **variables):
        (tmp_path / "setup.py").write_bytes(SETUP.read_bytes())
        package = tmp_path / "src" / "localconv"
        package.mkdir(parents=True)
        for name in ("_core", "_xla"):
            (package / f"{name}.pyx").touch()
        plain = {
            k: v for k, v in os.environ.items() if not k.startswith("LOCALCONV_") and k not in ("LDSHARED", "CFLAGS")
        }
        command = [sys.executable, "setup.py", *(command or ["build_ext"])]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=plain | {"CC": str(compiler)} | variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def refusing(tmp_path):
    """A compiler that has no such header."""

    def write(header):
        path = tmp_path / "compiler"
        path.write_text(COMPILER.replace("HEADER", header))
        path.chmod(0o755)
        return path

    return write


def message(done):
    """What stands between the lines of stars, which is nearly all that is said."""
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    before, text, after = done.stderr.split("*" * 80)
    assert len((done.stdout + before + after).splitlines()) < 12
    return text


@pytest.mark.parametrize(
    ("compiler", "state"), [("/nonexistent/cc", "is not on this system"), ("false", "does not work")]
)
def test_no_compiler(built, compiler, state):
    text = message(built(compiler))
    assert f"a C compiler is needed to build it, and '{compiler}', from the variable CC, {state}" in text
    assert "OpenMP" not in text


def test_no_standard_headers(built, refusing):
    """A compiler without the C library's headers, as some systems install it, is none."""
    assert "a C compiler is needed" in message(built(refusing("stdlib.h")))


def test_no_python_headers(built, refusing):
    text = message(built(refusing("Python.h")))
    assert "Python.h" in text
    assert "compiler" not in text


def test_no_openmp_where_it_is_required(built, refusing):
    assert "no working OpenMP" in message(built(refusing("omp.h"), LOCALCONV_OPENMP="require"))


def test_no_openmp(built, refusing):
    """A warning, and the build goes on."""
    done = built(refusing("omp.h"))
    assert "no working OpenMP" in done.stderr
    assert done.returncode == 0, done.stderr


def test_an_editable_build_keeps_its_objects(built, refusing, tmp_path):
    """Where every other build has them: what is compiled is not compiled again after each edit."""
    built(refusing("nothing.h"), "editable_wheel")
    assert {path.stem for path in tmp_path.glob("build/temp*/**/*.command")} >= {"_core", "_xla"}
