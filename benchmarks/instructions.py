"""Instructions that the kernels take, counted by valgrind: the same from run to run, on a busy machine too.

    python benchmarks/instructions.py                      # a table
    python benchmarks/instructions.py --write before.json  # and keep it
    python benchmarks/instructions.py --against before.json

With --against, the ratio to a table that another version wrote, by the same compiler; the exit status is 1 where a case
takes more than --more percent more. One thread, and AVX2, the best that valgrind knows. Counted is what the tasks of a
call do, in C; not what Python does before, nor what memory costs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

# Of the compiled module: what runs a call's tasks, and something that does nothing here, before which counts are
# written down and set to 0.
COUNTED, MARK = "*run_passes*", "*forget_stalls*"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE", help="keep the counts as JSON")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with counts that were kept")
    parser.add_argument("--more", type=float, default=3, metavar="PERCENT", help="(default: %(default)s)")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def calls() -> dict[str, Callable[[], object]]:
    """Small calls of every family, their gradients and stored types."""
    import localconv
    from localconv import grad

    rng = np.random.default_rng(0)

    def array(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    last = {"data_format": "channels_last"}
    line, rows, seen = array(1, 204, 16), array(200, 80, 16), array(1, 200, 16)
    images, maps = np.repeat(line, 16, 0), array(16, 200, 16)
    square, kernel, made = array(1, 24, 24, 16), array(400, 400, 16), array(1, 20, 20, 16)
    picture, small, depthwise = array(1, 28, 28, 32), array(3, 3, 32, 32), array(3, 3, 1, 32)
    filters, half, int8 = array(1, 24, 24, 25), kernel.astype(np.float16), localconv.quantize(kernel)
    return {
        "local 1d b1": lambda: localconv.local_conv1d(line, rows, 5, **last),
        "local 1d b16": lambda: localconv.local_conv1d(images, rows, 5, **last),
        "local 1d b16, input": lambda: grad.local_conv1d_input(images.shape, rows, maps, 5, **last),
        "local 1d b16, kernel": lambda: grad.local_conv1d_kernel(images, rows.shape, maps, 5, **last),
        "local 2d b1": lambda: localconv.local_conv2d(square, kernel, 5, **last),
        "local 2d b1, input": lambda: grad.local_conv2d_input(square.shape, kernel, made, 5, **last),
        "local 2d b1, kernel": lambda: grad.local_conv2d_kernel(square, kernel.shape, made, 5, **last),
        "local 2d b1, float16": lambda: localconv.local_conv2d(square, half, 5, **last),
        "local 2d b1, int8": lambda: localconv.local_conv2d(square, int8, 5, **last),
        "local 1d b1, one channel": lambda: localconv.local_conv1d(seen[..., :1], rows[:196, :5], 5, **last),
        "conv 2d": lambda: localconv.conv2d(picture, small, padding="same", **last),
        "conv 2d, stride 2": lambda: localconv.conv2d(picture, small, strides=2, padding="same", **last),
        "conv 2d, depthwise": lambda: localconv.conv2d(picture, depthwise, padding="same", groups=32, **last),
        "filter 2d": lambda: localconv.local_filter2d(square, filters, 5, padding="same", **last),
        "correlation 2d": lambda: localconv.local_correlation2d(square, square, 5, padding="same", **last),
    }


def run() -> None:
    """In valgrind: each call twice, of which the first one makes a plan and what is packed."""
    from localconv._core import forget_stalls

    for call in calls().values():
        call()
        forget_stalls()
        call()
        forget_stalls()


def counted() -> dict[str, int]:
    """Instructions of each case."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LOCALCONV_ISA": "avx2"}
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", "--collect-atstart=no"]
        command += [f"--toggle-collect={COUNTED}", f"--dump-before={MARK}"]
        done = subprocess.run(
            [*command, sys.executable, __file__, "--run"], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"valgrind: exit status {done.returncode}\n{done.stderr[-2000:]}")
        parts = sorted(Path(folder).glob("out.*"), key=lambda path: int(path.suffix[1:]))
        totals = [int(re.search(r"^(?:summary|totals): (\d+)", part.read_text(), re.MULTILINE)[1]) for part in parts]
    names = list(calls())
    # A dump before each mark: of the first call of a case, then of the second.
    counts = dict(zip(names, totals[1::2], strict=False))
    if len(totals) < 2 * len(names) or min(counts.values()) < 1000:
        raise SystemExit(f"{len(totals)} counts of {len(names)} cases, twice each: {totals}")
    return counts


def main() -> int:
    """Print the table; the exit status."""
    options = parsed()
    if options.run:
        run()
        return 0
    before = json.loads(options.against.read_text()) if options.against else {}
    worse = False
    for name, count in (counts := counted()).items():
        line = f"{name:28} {count:12,}"
        if name in before:
            ratio = count / before[name]
            worse |= ratio > 1 + options.more / 100
            line += f" {ratio:8.3f}x"
        print(line)
    if options.write:
        options.write.write_text(json.dumps(counts, indent=2) + "\n")
    return int(worse)


if __name__ == "__main__":
    sys.exit(main())
