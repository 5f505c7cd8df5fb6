"""Measure localconv against NumPy, PyTorch and JAX, whichever are installed, and against the machine's own limits.

Run it with ``python benchmarks/compare.py``; ``--help`` lists the options, README.md says how the figures come about.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median

from shapes import SETS, WORKS, cases, smallest_call

KNOWN_PEERS = ("numpy", "torch", "jax")

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "PJRT_NPROC",  # XLA's pool of threads
    "NPROC",
)

# What holds each library to AVX2.
AVX2_VARIABLES = {
    "LOCALCONV_ISA": "avx2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
}

ONLY = {work.split()[-1]: work for work in WORKS}  # "step" is the training step

OUT_HELP = "where compare.md, compare.json and compare.png go (default: results, beside this file)"

IMPORT_TIMER = """
import time, numpy
start = time.perf_counter()
import localconv
print(time.perf_counter() - start)
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--threads", type=int, default=available_cpus(), help="threads for everyone (default: %(default)s)")
    add("--quick", action="store_true", help="fewer and shorter rounds: a first look, not figures to quote")
    add("--filter", default="", metavar="SUBSTRING", help="only shapes whose name or family contains this")
    add("--set", choices=tuple(SETS), default="usual", help="which shapes (default: %(default)s)")
    add("--isa", choices=("avx2",), help="hold every library to it, and the limits")
    add("--winograd", action="store_true", help="localconv.set_winograd(True)")
    add("--only", choices=tuple(ONLY), help="only this of what is computed")
    add("--out", type=Path, default=Path(__file__).parent / "results", metavar="DIR", help=OUT_HELP)
    add("--peers", default=",".join(KNOWN_PEERS), metavar="NAMES", help="separated by commas (default: %(default)s)")
    options = parser.parse_args(arguments)
    options.peers = [name for name in options.peers.split(",") if name]
    if unknown := set(options.peers) - set(KNOWN_PEERS):
        parser.error(f"unknown peer {', '.join(sorted(unknown))}; known are {', '.join(KNOWN_PEERS)}")
    if options.threads < 1:
        parser.error(f"--threads must be at least 1, got {options.threads}")
    options.work = (ONLY[options.only],) if options.only else WORKS
    if not cases(options.filter, options.work, options.set):
        parser.error(f"no shape's name contains {options.filter!r}")
    return options


def available_cpus() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_isa(isa: str | None) -> None:
    """Tell every library to use nothing wider; they listen only while they are being loaded."""
    if isa == "avx2":
        os.environ.update(AVX2_VARIABLES)


def limit_threads(threads: int) -> None:
    """Tell every library how many threads it has.

    Most of them listen only while they are being loaded, which is why this module imports none of them at its top.
    """
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)


class Progress:
    """One line on stderr that is written over, or a line a shape where stderr is not a terminal."""

    def __init__(self, total: int):
        self._total = total
        self._done = 0
        self._name = ""
        self._live = sys.stderr.isatty()

    def start(self, name: str) -> None:
        """Begin the next shape."""
        self._done += 1
        self._name = name
        if not self._live:
            print(f"[{self._done}/{self._total}] {name}", file=sys.stderr, flush=True)

    def step(self, words: str) -> None:
        """Say what is being done for the shape."""
        if self._live:
            print(f"\r\x1b[K[{self._done}/{self._total}] {self._name}: {words}", end="", file=sys.stderr, flush=True)

    def finish(self) -> None:
        """Leave a clean line."""
        if self._live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def processor() -> str:
    """Return the processor's name where the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def import_seconds(repeats: int) -> float:
    """Return how long `import localconv` takes in a fresh interpreter that has imported numpy."""
    command = [sys.executable, "-c", IMPORT_TIMER]
    runs = (subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(repeats))
    return median(float(output) for output in runs)


def open_probe(options: argparse.Namespace, remarks: list[str]):
    """Return the probe of the machine's limits; where it cannot be had, say so and do without."""
    from limits import Probe, ProbeUnavailable

    try:
        return Probe(options.threads, 0.01 if options.quick else 0.03, options.isa)
    except ProbeUnavailable as error:
        remarks.append(f"no limits column: {error}")
        print(f"{Path(sys.argv[0]).name}: {remarks[-1]}", file=sys.stderr)
        return None


def instruction_set() -> str:
    """Return the instruction set that localconv's kernels use."""
    settings = sys.modules.get("localconv.core.settings")
    return str(settings.get_isa()) if settings else "unknown"


def run(options: argparse.Namespace):
    """Measure everything that was asked for; return the report."""
    import peers
    from report import Report
    from timing import Pace, ResultsDiffer, measure

    ours = peers.LocalConv(options.threads)
    rivals = [peers.LIBRARIES[name](options.threads) for name in peers.installed(options.peers)]
    setting = {
        "processor": processor(),
        "threads": str(options.threads),
        "localconv": f"{ours.version}, {instruction_set()}",
        **{rival.name: rival.version for rival in rivals if rival.name in KNOWN_PEERS},
        "python": platform.python_version(),
    }
    report = Report(setting, [rival.name for rival in rivals], [])
    pace = Pace(block=0.01, rounds=3) if options.quick else Pace(block=0.03, rounds=7)
    probe = open_probe(options, report.remarks)
    selected = cases(options.filter, options.work, options.set)
    progress = Progress(len(selected) + 1)
    for case in selected:
        progress.start(f"{case.family} {case.name}, {case.work}")
        try:
            row = measure(case, ours, rivals, probe, pace, progress.step)
            row.workspace = ours.workspace(case)
            report.rows.append(row)
        except ResultsDiffer as error:
            report.failures.append(str(error))
    progress.start("the smallest call")
    report.overhead = measure(smallest_call(), ours, rivals, None, pace, progress.step)
    if probe:
        report.limits = probe.spread()
        probe.close()
    report.import_seconds = import_seconds(3 if options.quick else 7)
    progress.finish()
    return report


def write(report, directory: Path) -> list[Path]:
    """Write the Markdown page, the JSON file and, where there is something to draw, the chart;
    return what was written.
    """
    from report import as_json, chart, markdown

    directory.mkdir(parents=True, exist_ok=True)
    page, data, picture = (directory / f"compare.{ending}" for ending in ("md", "json", "png"))
    data.write_text(as_json(report), encoding="utf-8")
    written = [page, data]
    if any(row.best for row in report.rows):
        try:
            chart(report, picture)
            written.append(picture)
        except ImportError:
            report.remarks.append("no chart: it needs matplotlib, which pip install '.[bench]' brings")
    page.write_text(markdown(report, picture.name if picture in written else None), encoding="utf-8")
    return written


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison; return the exit status."""
    options = parse(arguments)
    limit_threads(options.threads)
    limit_isa(options.isa)
    try:
        if options.winograd:
            import localconv

            localconv.set_winograd(True)
        report = run(options)
    except ImportError as error:
        print(f"compare.py: {error}; pip install '.[bench]' in the project's directory", file=sys.stderr)
        return 2
    from report import terminal

    written = write(report, options.out)
    print(terminal(report))
    print(f"\nwritten: {', '.join(map(str, written))}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
