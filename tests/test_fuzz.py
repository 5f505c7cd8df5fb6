"""Short runs of the fuzzer, always the same; `make fuzz` runs it for minutes from a new seed."""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).with_name("fuzz.py")


@pytest.mark.memory
@pytest.mark.parametrize("seed", [20152, 40152])
def test_fuzz(seed, tmp_path):
    """In a process of its own, whose memory is limited."""
    done = subprocess.run(
        [sys.executable, FUZZ, "--seed", str(seed), "--rounds", "2500"],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    checked, refused = (int(part.split()[0]) for part in done.stdout.split(": ")[1].split(", ")[:2])
    assert min(checked, refused) > 800
