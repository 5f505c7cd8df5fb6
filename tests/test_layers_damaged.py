"""Thousands of damaged files of every form: loaded, or a ValueError that names the file; in bounded time and memory,
nothing half-loaded.

The files are loaded in a process of their own: HDF5 is a library in C, and what it makes of damage is its own affair.
(Of 50,000 such files none brought HDF5 2.0.0 down.)
"""

from pathlib import Path

import pytest

pytest.importorskip("h5py")

MANY = """
import faulthandler, random, sys, time, traceback, warnings
from collections import Counter
from pathlib import Path
form, first, count, tests = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
sys.path.insert(0, tests)
import damage

faulthandler.enable()
warnings.simplefilter("ignore")
counts = Counter()
path = Path(f"a.{form}")

def peak():
    try:
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
    except OSError:
        return 0

before = peak()
for seed in range(first, first + count):
    rng = random.Random(seed)
    way = damage.damage(rng, form, path)
    what = rng.choice(["weights", "model"]) if form in damage.MODELS else "weights"
    start = time.monotonic()
    try:
        made = damage.load(what, path, damage.model(form), by_name=rng.random() < 0.2)
        counts["loaded" if made else "refused"] += 1
        damage.look(path)
    except Exception as error:
        traceback.print_exc()
        print("seed", seed, way, what, repr(error))
    if time.monotonic() - start > 20:
        print("seed", seed, way, what, "took", time.monotonic() - start, "seconds")
if peak() - before > 200:
    print("grown by", peak() - before, "MiB")
print(counts["loaded"] > 0, counts["refused"] > 0, sum(counts.values()))
"""
COUNT = 700


@pytest.mark.memory
@pytest.mark.parametrize("form", ["npz", "h5", "model.h5", "weights.h5", "keras", "int8.npz", "int8.h5", "int8.keras"])
def test_damaged_files(form, python):
    assert python(MANY, form, 0, COUNT, Path(__file__).parent, timeout=300) == f"True True {COUNT}\n"
