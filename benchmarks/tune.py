"""Measure the constants of localconv's policy: what other values of each would gain or cost on this machine.

    python benchmarks/tune.py                          # everything; results/tune.md
    python benchmarks/tune.py --only BOX_TARGET        # one constant
    python benchmarks/tune.py --record benchmarks/TUNING.md
    python benchmarks/tune.py --quick

For every constant there are a few shapes whose plans depend on it. A shape is planned for each value; then the plans
take turns in blocks of calls, and what counts is the median over the rounds of a value's time by the present one's
within a round: below 1 it is faster. "=" is a value that makes the same plan. "again" is the present plan timed against
itself: so far from 1 goes chance alone.

A job stays what it is when the constant is restored. Before they are timed, all results are compared with the present
plan's; whether they are the same to the last bit tells which constants may follow the machine.
"""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
from compare import available_cpus, instruction_set, processor
from peers import random_arrays, spec_of, terms
from report import table
from shapes import SETS, STEP, Case, cases
from timing import timed

import localconv
from localconv import _core
from localconv.core import engine, packing, policy
from localconv.core.arrays import element_type
from localconv.core.machine import caches

FORWARD, INPUT, KERNEL = OPERATIONS = ("forward", "grad_input", "grad_kernel")

# Of every constant the operations and shapes that depend on it, by how names begin in shapes.py
# or LARGE; all of them are channels_last.
ROWS = (
    ("CHUNK_TARGET", FORWARD, "2d b4096 9x9", "2d b4096 8x8"),
    ("CHUNK_TARGET", KERNEL, "2d b4096 9x9", "2d b4096 8x8"),
    ("BOX_TARGET", FORWARD, "1d b128", "deepface-L5 b32", "2d b256"),
    ("BOX_TARGET", KERNEL, "1d b128", "deepface-L5 b32", "2d b256"),
    ("GRADIENT_BOX_TARGET", FORWARD, "conv1d b16 1000x64 k5 f17"),
    ("GRADIENT_BOX_TARGET", INPUT, "1d b128", "deepface-L5 b32", "2d b256", "conv2d b8 112x112x3"),
    ("PANELS_TARGET", FORWARD, "conv1d b64", "conv2d b8 14x14", "conv2d b8 56x56"),
    ("PANELS_TARGET", INPUT, "conv2d b8 14x14", "conv2d b8 56x56"),
    ("SEGMENT_TARGET", INPUT, "1d b16", "2d b8 28x28x64", "cifar b64", "genomics b32"),
    ("SEGMENT_TARGET", KERNEL, "1d b16", "2d b8 28x28x64", "genomics b32"),
    ("TASKS_PER_THREAD", FORWARD, "1d b16", "2d b8 28x28x64", "cifar b64", "conv2d b1 56x56"),
    ("TASKS_PER_THREAD", INPUT, "2d b8 28x28x64", "cifar b64"),
    ("TASKS_PER_THREAD", KERNEL, "2d b8 28x28x64", "deepface-L5 b32"),
    ("FEWER_TASKS", INPUT, "deepface-L4 b1", "3d b1 16x16", "cifar b64", "2d b8 28x28x64", "1d b16 1000x64 k5 f64"),
    ("PRODUCTS_PER_TASK", FORWARD, "seed-1d b32", "3d b1 16x16", "genomics b8"),
    ("PRODUCTS_PER_TASK", INPUT, "seed-1d b32", "genomics b8"),
    ("PRODUCTS_PER_TASK", KERNEL, "3d b1 16x16", "seed conv1d b4", "conv1d b16 1000x64 k5 f1"),
    ("PRODUCTS_PER_THREAD", FORWARD, "seed-1d b32", "genomics b8", "seed conv1d b4", "depthwise 2d b1 56x56"),
    ("PRODUCTS_PER_THREAD", INPUT, "seed-1d b32", "seed conv1d b4", "depthwise 2d b1 56x56"),
    ("PRODUCTS_PER_THREAD", KERNEL, "genomics b8", "seed conv1d b4"),
    ("IN_PLACE_UP_TO", FORWARD, "1d b16", "2d b8 28x28x64", "seed-1d b32", "cifar b64"),
    ("IN_PLACE_UP_TO", KERNEL, "1d b16", "2d b8 28x28x64", "deepface-L5 b32"),
    ("READ_ONCE_UP_TO", FORWARD, "1d b32 2000x8", "2d b32 64x64x16", "1d b128 1000x64 k5s5"),
    ("READ_ONCE_UP_TO", KERNEL, "1d b32 2000x8", "2d b32 64x64x16", "1d b128 1000x64 k5s5"),
    ("PARTIAL_LINES_BATCH_LIMIT", FORWARD, "genomics b8", "genomics b32"),
    ("PARTIAL_LINES_BATCH_LIMIT", KERNEL, "genomics b8", "genomics b32"),
    ("PIECE", FORWARD, "1d b16 1000x64 k5 f64", "2d b8 28x28x64"),
    ("WRITTEN_AHEAD", KERNEL, "1d b16 1000x64 k5 f64", "2d b8 28x28x64", "3d b1 24x24x24x4", "deepface-L4 b32"),
    ("WRITTEN_AHEAD_UP_TO", KERNEL, "1d b16 1000x64 k5 f64", "deepface-L4 b32", "cifar b64", "1d b128"),
    ("IMAGES_WINDOW", FORWARD, "seed-1d b32", "1d b128", "cifar b64", "2d b256", "2d b64"),
    ("LINES_FILLED", FORWARD, "conv1d b16 1000x64 k5 f10 same", "conv1d b16 1000x64 k5 f17", "conv1d b32"),
    ("LINES_FILLED", FORWARD, "conv2d b4 56x56x32 k3 f17", "conv2d b4 56x56x32 k3 f100", "conv2d b4 160x160x1"),
    ("TILE_BLOCK", FORWARD, "conv1d b64", "conv2d b8 14x14", "conv2d b8 56x56"),
    ("TILE_BLOCK", INPUT, "conv2d b8 14x14", "conv2d b8 56x56"),
    ("BATCH_SUM", KERNEL, "2d b4096 9x9", "2d b4096 8x8", "1d b2048"),
    ("REDUCTION_TASKS", KERNEL, "conv2d b8 56x56", "conv2d b1 56x56", "conv2d b8 14x14", "conv2d b4 56x56x32 k3 f3"),
    ("REDUCTION_POSITIONS", KERNEL, "conv2d b1 56x56", "conv2d b8 14x14", "conv2d b8 28x28x256", "conv1d b1 16000x1"),
    ("SLICE_TARGET", KERNEL, "conv1d b64", "conv2d b8 14x14", "conv2d b8 56x56", "conv2d b2 227x227"),
    ("KEPT_BELOW", FORWARD, "conv2d b8 14x14", "conv1d b1 16000x1", "conv2d b8 28x28x256"),
)
CONSTANTS = tuple(dict.fromkeys(row[0] for row in ROWS))
# Unshared shapes in batches that fill workspace and boxes, or whose windows have no pixel in common; entries as those
# of SHARED in shapes.py.
LARGE = {
    "2d b4096 9x9x32 k7 f32": (4096, (9, 9), 32, (7, 7), (1, 1), (1, 1), 32),
    "2d b4096 8x8x64 k5 f16": (4096, (8, 8), 64, (5, 5), (1, 1), (1, 1), 16),
    "1d b2048 100x32 k5 f64": (2048, (100,), 32, (5,), (1,), (1,), 64),
    "2d b256 24x24x32 k3 f32": (256, (24, 24), 32, (3, 3), (1, 1), (1, 1), 32),
    "1d b32 2000x8 k5s5 f16": (32, (2000,), 8, (5,), (5,), (1,), 16),
    "1d b128 1000x64 k5s5 f64": (128, (1000,), 64, (5,), (5,), (1,), 64),
    "2d b32 64x64x16 k4s4 f16": (32, (64, 64), 16, (4, 4), (4, 4), (1, 1), 16),
    "2d b64 16x16x64 k3 f64": (64, (16, 16), 64, (3, 3), (1, 1), (1, 1), 64),
}
# These say where sums are cut: where they followed the machine, so would the last bits of results.
SUMS = ("CHUNK_TARGET", "PRODUCTS_PER_TASK", "BATCH_SUM", "REDUCTION_TASKS", "REDUCTION_POSITIONS", "SLICE_TARGET")
# A gain below this is none, nor is one that chance could be: the shapes are few.
NOTICED = 1.02


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--threads", type=int, default=available_cpus(), help="(default: %(default)s)")
    add("--only", choices=CONSTANTS, metavar="CONSTANT", help=f"one of {', '.join(CONSTANTS)}")
    add("--quick", action="store_true", help="fewer and shorter rounds: a first look, not figures to quote")
    add("--record", type=Path, metavar="FILE", help="write a line a constant there, as Markdown that can be committed")
    options = parser.parse_args(arguments)
    if options.record and (options.only or options.quick):
        parser.error("--record takes a whole run: leave --only and --quick out")
    if options.record and not options.record.parent.is_dir():
        parser.error(f"--record: there is no directory {options.record.parent}")
    if not 1 <= options.threads <= available_cpus():
        parser.error(f"--threads must be from 1 to {available_cpus()}, got {options.threads}")
    return options


def module_of(constant: str) -> Any:
    """The module whose attribute the constant is."""
    return packing if hasattr(packing, constant) else policy


def values_of(constant: str) -> list[Any]:
    """The values to try, the present one in the middle."""
    present = getattr(module_of(constant), constant)
    if constant == "LINES_FILLED":  # at 1.1 all vectors hold positions, where a line has enough of them
        return [0.5, 0.7, present, 0.95, 1.1]
    if constant == "FEWER_TASKS":  # at 0 there are always many
        return [0.0, 0.7, present, 1.0, 1.2]
    return [max(1, int(present * factor)) for factor in (1 / 4, 1 / 2, 1, 2, 4)]


def written(constant: str, value: Any) -> str:
    """The value as a reader has it before him."""
    if not constant.endswith(("_LIMIT", "_TARGET", "_AHEAD")):
        return f"{value:,}"
    return f"{value / 2**20:.3g} MiB" if value >= 2**20 else f"{value / 2**10:.3g} KiB"


def case_of(start: str) -> Case:
    """The shape whose name begins so."""
    every = [case for which in SETS for case in cases(work=(STEP,), which=which)]
    every += [Case("unshared", name, *entry, work=STEP) for name, entry in LARGE.items()]
    return next(case for case in every if case.name.startswith(start))


@dataclass(eq=False)
class Plan:
    """What some values of a constant make of a shape: its job's choices, a call, and seconds, a number a round."""

    choices: Any
    call: partial[None]
    seconds: list[float] = field(default_factory=list)

    def ratio(self, other: Plan) -> float:
        return median(mine / theirs for mine, theirs in zip(self.seconds, other.seconds, strict=True))


# Of one case after the other: input, kernel and output gradient.
arrays_of = lru_cache(maxsize=1)(random_arrays)


def planned(constant: str, value: Any, case: Case, operation: str, result: np.ndarray) -> Plan:
    """The plan that a value makes."""
    spec = spec_of(case)
    x, kernel, gradient = arrays_of(case)
    made: dict[Any, Any] = {}

    def noted(*arguments: Any) -> Any:
        job = engine.Job(*arguments)
        made[job] = arguments[4:]  # algorithm, choices, threads
        return job

    engine.plans.clear()
    with mock.patch.object(module_of(constant), constant, value), mock.patch.object(policy, "Job", noted):
        name = getattr(engine, operation.upper())[spec.family]
        job = engine.prepare(name, spec, case.input_shape, case.kernel_shape, element_type(kernel, x)).job
        kept = {}
        if constant == "KEPT_BELOW":
            keeper = packing.KeptPacking()
            packed = [keeper.find(constant, job, case.batch * case.positions, kernel) for _ in range(2)][1]
            kept = {} if packed is None else {"packed": packed}
    engine.plans.clear()
    inputs = {FORWARD: (x, kernel, None), INPUT: (None, kernel, gradient), KERNEL: (x, None, gradient)}[operation]
    return Plan((made.get(job), list(kept)), partial(job.run, result, *inputs, **kept))


@dataclass
class Row:
    """One operation on one shape."""

    name: str
    ratios: list[float | None]  # by value the time over that of the present one; None: the plan is the same
    again: float | None  # of the present plan against itself
    exact: bool  # whether all results are the same to the last bit


def measure(constant: str, operation: str, case: Case, quick: bool) -> Row:
    """Plan a shape for every value, compare the results, and time the plans that differ in turns."""
    number = OPERATIONS.index(operation)
    result = np.empty(math.prod((case.output_shape, case.input_shape, case.kernel_shape)[number]), case.dtype)
    every = [planned(constant, value, case, operation, result) for value in values_of(constant)]
    present = every[len(every) // 2]
    every = [next(plan for plan in (present, *every) if plan.choices == other.choices) for other in every]
    again = replace(present, seconds=[])
    contenders = list(dict.fromkeys([present, again, *every]))
    name = f"{operation} {case.family} {case.name}"
    if len(contenders) == 2:
        return Row(name, [None] * len(every), None, True)
    exact = agree(contenders, result, terms(case)[number] * np.finfo(case.dtype).eps, name)
    take_turns(contenders, *((5, 0.01) if quick else (15, 0.02)))
    ratios = [None if plan is present else plan.ratio(present) for plan in every]
    return Row(name, ratios, again.ratio(present), exact)


def agree(plans: list[Plan], result: np.ndarray, rounding: float, name: str) -> bool:
    """Whether all results are the same to the last bit.

    SystemExit if two are further apart than `rounding` times the sum of the products' sizes (peers.py says why).
    """
    run, (_, *inputs) = plans[0].call.func, plans[0].call.args
    run(result, *(None if array is None else np.abs(array) for array in inputs))
    allowed = result * rounding
    plans[0].call()
    first, exact = result.copy(), True
    for plan in plans[1:]:
        result.fill(np.nan)
        plan.call()
        if not np.all(np.abs(result - first) <= allowed):  # written so that a NaN fails
            raise SystemExit(f"tune.py: {name}: the results of {plans[0].choices} and {plan.choices} differ")
        exact = exact and np.array_equal(result, first)
    return exact


def take_turns(plans: list[Plan], rounds: int, block: float) -> None:
    """Time a block of calls of each, one after the other, beginning with another one in every round."""
    estimate = min(timed(plans[0].call, 1) for _ in range(3))
    repeats = max(1, round(block / max(estimate, 1e-7)))
    for number in range(rounds):
        first = number % len(plans)
        for plan in plans[first:] + plans[:first]:
            _core.forget_stalls()  # one plan's wait for its threads is no reason for the next one to do without
            if repeats > 1:
                plan.call()
            plan.seconds.append(timed(plan.call, repeats))


# -------------------------------------------------------------------------------------------------------------- report


@dataclass
class Table:
    """One constant: its values, the present one in the middle, and a row for each shape."""

    constant: str
    values: list[Any]
    rows: list[Row]

    @property
    def heads(self) -> list[str]:
        return [written(self.constant, value) for value in self.values]

    @property
    def means(self) -> list[float]:
        return [mean(column) for column in zip(*(row.ratios for row in self.rows), strict=True)]

    @property
    def noise(self) -> float:
        """How far the present plan is from itself: the root mean square of the shapes, as a factor."""
        logarithms = [math.log(row.again or 1) for row in self.rows]
        return math.exp(math.sqrt(sum(number**2 for number in logarithms) / len(logarithms)))

    @property
    def verdict(self) -> str:
        """The best value and what it would gain, and whether the constant may be another one on another machine."""
        best = min(self.means)
        words = "stays"
        if best * max(NOTICED, self.noise) < 1:
            k = self.means.index(best)
            worst = max(row.ratios[k] or 1 for row in self.rows)
            words = f"{self.heads[k]} gains {1 / best - 1:.0%}, worst shape {worst:.2f}"
        if self.constant in SUMS:
            return f"{words}; cuts sums"
        return words if all(row.exact for row in self.rows) else f"{words}; CHANGES LAST BITS, and is not in SUMS"

    def full(self) -> str:
        """The table as Markdown, a line a shape."""
        lines = [["shape", *self.heads, "again"]]
        lines += [[row.name, *map(entry, row.ratios), entry(row.again)] for row in self.rows]
        lines.append(["geometric mean", *map(entry, self.means), f"±{self.noise - 1:.0%}"])
        present = self.heads[len(self.heads) // 2]
        text = "\n".join(table(lines))
        return f"## {self.constant}, present value {present}\n\n{text}\n\nVerdict: {self.verdict}.\n"

    def short(self) -> list[str]:
        """A line of the record."""
        entries = [f"{head}: {ratio:.2f}" for head, ratio in zip(self.heads, self.means, strict=True)]
        entries[len(entries) // 2] = f"**{self.heads[len(entries) // 2]}**"
        return [self.constant, *entries, f"{self.noise - 1:.0%}", self.verdict]


def mean(ratios: Iterable[float | None]) -> float:
    """The geometric mean; the same plan takes the same time."""
    logarithms = [math.log(ratio or 1) for ratio in ratios]
    return math.exp(sum(logarithms) / len(logarithms))


def entry(ratio: float | None) -> str:
    """A ratio in a table."""
    return "=" if ratio is None else f"{ratio:.2f}"


RECORD = """\
# The policy's constants on one machine

{machine}.

Written by `python benchmarks/tune.py --record`, which README.md describes. "value: ratio" is the time at that value
over the time at the present one (**bold**), the geometric mean over the shapes that depend on the constant: below 1 is
faster; "noise" is how far the present plan is from itself, and gains below that or {noticed:.0%} count for nothing.

Constants that cut sums must not follow the machine, whatever is fastest on one: they set the order in which products
are added, and results would differ from machine to machine in their last bits. They are
{sums}.

{table}
"""


def main(arguments: list[str] | None = None) -> int:
    """Measure the constants, print and write what came out; return the exit status."""
    options = parse(arguments)
    localconv.set_num_threads(options.threads)
    sizes = ", ".join(f"{size // 2**10:,} KiB" for size in caches)
    machine = f"{processor()}, {instruction_set()}, caches {sizes} (L1, L2, last level), {options.threads} threads"
    print(f"{machine}\n", flush=True)
    tables = []
    for constant in CONSTANTS if options.only is None else [options.only]:
        chosen = [(operation, start) for name, operation, *starts in ROWS if name == constant for start in starts]
        rows = [measure(constant, operation, case_of(start), options.quick) for operation, start in chosen]
        tables.append(Table(constant, values_of(constant), rows))
        print(tables[-1].full(), flush=True)
    page = Path(__file__).parent / "results" / "tune.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text("\n".join([f"{machine}.\n", *(found.full() for found in tables)]), encoding="utf-8")
    if options.record:
        head = ["constant", "", "", "present", "", "", "noise", "verdict"]
        lines, sums = table([head, *(found.short() for found in tables)]), textwrap.fill(", ".join(SUMS), 118)
        text = RECORD.format(machine=machine, noticed=NOTICED - 1, sums=sums, table="\n".join(lines))
        options.record.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
