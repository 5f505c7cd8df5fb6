"""Measure one build of localconv against another, in one run: every shape of shapes.py, and the smallest call.

    pip install --no-deps --target build/before git+file://$PWD@BEFORE
    pip install --no-deps --target build/after .
    python benchmarks/builds.py build/before build/after

Each build runs in a process of its own, and the two take turns, a block of calls each with a pause before it, as
compare.py's contenders do. "speed" is the median over the rounds of the first one's time over the second one's: above 1
the second is faster. Shapes for which one build has no function are left out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from statistics import median

from compare import available_cpus, limit_threads
from shapes import FORWARD, SETS, WORKS, cases, smallest_call

PAUSE = 0.01


def every_case(options: argparse.Namespace) -> list:
    """The cases in the order in which both processes number them."""
    every = [*cases(options.filter, which=options.set), smallest_call()]
    return [case for case in every if options.filter in f"{case.family} {case.name}"]


class Build:
    """A process that imports one build and times blocks of calls when it is told to."""

    def __init__(self, path: str, options: argparse.Namespace):
        command = [
            sys.executable,
            __file__,
            "--worker",
            "--filter",
            options.filter,
            "--set",
            options.set,
            "--threads",
            str(options.threads),
            path,
            path,
        ]
        environment = os.environ | {"PYTHONPATH": path}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, *words: object) -> float:
        """Send a request and wait for its answer, a number."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(words), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit("builds.py: a process ended; its error is above")
        return float(answer)

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


def work(options: argparse.Namespace) -> None:
    """Answer requests: to make a case ready (one call's seconds; nan: this build has no such function), and to run a
    block of so many calls (their mean seconds).
    """
    from peers import LocalConv, random_arrays

    ours = LocalConv(options.threads)
    numbered, call = every_case(options), None
    for line in sys.stdin:
        request, number = json.loads(line)
        if request == "make":
            case = numbered[number]
            if not hasattr(ours.module, ours.function_of(case)):
                print("nan", flush=True)
                continue
            (build,) = ours.formulations(case).values()
            call, _ = build(case, *random_arrays(case))
            call()
            repeats = 3
        else:
            repeats = number
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        print((time.perf_counter() - start) / repeats, flush=True)


def measure(builds: list[Build], number: int, rounds: int, block: float) -> tuple[list[float], float]:
    """The median times of both builds, and the median ratio."""
    times: list[list[float]] = [[], []]
    estimates = [build.ask("make", number) for build in builds]
    if math.isnan(sum(estimates)):
        return estimates, math.nan
    repeats = max(1, round(block / min(estimates)))
    for turn in range(rounds):
        for k in (0, 1) if turn % 2 else (1, 0):
            time.sleep(PAUSE)
            builds[k].ask("run", max(1, repeats // 10))
            times[k].append(builds[k].ask("run", repeats))
    return [median(column) for column in times], median(a / b for a, b in zip(*times, strict=True))


def main() -> int:
    """Print a line for every case, and the geometric means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--threads", type=int, default=available_cpus())
    parser.add_argument("--filter", default="")
    parser.add_argument("--set", choices=tuple(SETS), default="usual", help="which shapes (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--block", type=float, default=0.03, help="seconds of a block of calls (default: %(default)s)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    limit_threads(options.threads)
    if options.worker:
        work(options)
        return 0
    builds = [Build(path, options) for path in (options.before, options.after)]
    ratios: dict[str, list[float]] = {work: [] for work in WORKS}
    print(f"{'shape':58} {'before':>10} {'after':>10}  speed   (milliseconds)")
    for number, case in enumerate(every_case(options)):
        times, ratio = measure(builds, number, options.rounds, options.block)
        if math.isnan(ratio):
            continue
        if case.name != smallest_call().name:
            ratios[case.work].append(ratio)
        name = f"{case.family} {case.name}{'' if case.work == FORWARD else f', {case.work.split()[-1]}'}"
        print(f"{name:58} {times[0] * 1e3:10.4f} {times[1] * 1e3:10.4f}  {ratio:.3f}x", flush=True)
    for build in builds:
        build.close()
    for kind, found in ratios.items():
        if found:
            mean = math.exp(sum(map(math.log, found)) / len(found))
            print(f"{kind}: geometric mean {mean:.3f}x, lowest {min(found):.3f}x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
