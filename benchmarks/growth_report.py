"""What a run of growth.py found: slopes, kinks, workspaces; tables, JSON and a chart."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from peers import spec_of
from report import FASTER, GRID, INK, SLOWER, table
from shapes import Case
from timing import Contender

from localconv import _core
from localconv.core import arrays, engine, settings

NAMES = {"forward": engine.FORWARD, "input gradient": engine.GRAD_INPUT, "kernel gradient": engine.GRAD_KERNEL}
MARKERS = {"forward": "o", "input gradient": "s", "kernel gradient": "^"}

NOTES = (
    "Times are median milliseconds a call. In brackets the share of the limit that is reached: bytes / bandwidth or "
    "operations / peak, whichever takes longer. A factor behind them marks a kink: so many times the time per unit of "
    "work of the line between the neighbours, by multiply-adds and by the limit. Bytes are the arrays', each "
    "once; the kernel gradient reads the kernel's once more. Slopes are those of the logarithm of time against the "
    "logarithm of multiply-adds (of each thread) and of the limit's time: 1 where time grows as the work.",
    "Whole pages: time per multiply-add, and bytes, as factors of the line between the neighbours on both sides. "
    "Workspace is what a call allocates beside its result; memory is that and the arrays.",
)


@dataclass
class Point:
    """One operation on one case, and what was measured of it."""

    value: int
    case: Case
    operation: str
    threads: int
    contender: Contender
    rates: list[tuple[float, float]]  # bytes and operations a second in every round; the case's, whatever the operation

    @property
    def nbytes(self) -> int:
        """As `Case.nbytes` counts: a kernel gradient's lines are read before they are written."""
        return self.case.nbytes + (self.case.sizes[1] if self.operation == "kernel gradient" else 0)

    @property
    def multiply_adds(self) -> int:
        return self.case.flops // 2

    @property
    def works(self) -> list[float]:
        """By every unit: multiply-adds of a thread; and the limit's seconds, where they were measured."""
        if not self.rates:
            return [self.multiply_adds / self.threads]
        bandwidth, peak = (median(column) for column in zip(*self.rates, strict=True))
        return [self.multiply_adds / self.threads, max(self.nbytes / bandwidth, self.case.flops / peak)]

    def workspace(self) -> int | None:
        """Bytes that a call allocates beside its result; None for what NumPy allocates in "columns"."""
        case, shape, made = self.case, self.case.input_shape, spec_of(self.case)
        if case.channels_first:
            shape = (case.batch, case.channels, *case.spatial)
        element = arrays.element_type(None, np.empty(0, case.dtype))
        under = (settings.current(), self.threads)
        operation = NAMES[self.operation][made.family]
        job = engine.prepare(operation, made, shape, case.kernel_shape, element, under).job
        return job.shared_bytes + job.threads * job.thread_bytes if type(job) is _core.Job else None


@dataclass
class Line:
    """The points of one operation in a series."""

    family: str
    operation: str
    bound: float
    points: list[Point] = field(default_factory=list)

    def excess(self, i: int) -> float:
        """The point's time per unit of work over that of the line between its neighbours; 1 at the ends.

        The median over the rounds, or that of the fastest blocks: others' work, which must not look like a kink, lasts
        for some rounds or meets some blocks.
        """
        if not 0 < i < len(self.points) - 1:
            return 1.0
        near = self.points[i - 1 : i + 2]
        rounds = list(zip(*(point.contender.seconds for point in near), strict=True))
        factors = [self._above(i, times) for times in rounds]
        time = min(median(factors), self._above(i, [point.contender.fastest for point in near]))
        return min(time / self._above(i, works) for works in zip(*(point.works for point in near), strict=True))

    def _above(self, i: int, costs: Sequence[float]) -> float:
        """The middle one of three points' costs over the geometric mean of its neighbours', which weighs the one more
        whose value is nearer.
        """
        first, value, last = (math.log(point.value) for point in self.points[i - 1 : i + 2])
        share = (value - first) / (last - first)
        return costs[1] / (costs[0] ** (1 - share) * costs[2] ** share)

    def kinks(self) -> dict[int, float]:
        """Places of the points above the bound, with their excesses."""
        every = ((i, self.excess(i)) for i in range(len(self.points)))
        return {i: excess for i, excess in every if excess > self.bound}

    def slopes(self) -> list[float]:
        """Of log time against log work, by every unit of work; nan for a single point."""
        times = np.log([point.contender.time for point in self.points])
        works = np.log(list(zip(*(point.works for point in self.points), strict=True)))
        spread = works - works.mean(1, keepdims=True)
        with np.errstate(invalid="ignore"):
            return ((spread * (times - times.mean())).sum(1) / (spread**2).sum(1)).tolist()

    def memory(self) -> list[float]:
        """Factors of the workspace and of all memory of the middle one of three points; nan: NumPy's."""
        workspaces = [point.workspace() for point in self.points]
        if None in workspaces:
            return [math.nan, math.nan]
        totals = [sum(p.case.sizes) + extra for p, extra in zip(self.points, workspaces, strict=True)]
        # A byte more: there are workspaces of none.
        return [self._above(1, [extra + 1 for extra in workspaces]), self._above(1, totals)]


def of_series(label: str, lines: list[Line]) -> list[str]:
    """The table of a series in one family: a row a value, a column an operation, slopes last."""
    rows = [[label, "10^6 multiply-adds", "MB", *(line.operation for line in lines)]]
    kinks = [line.kinks() for line in lines]
    for i, point in enumerate(lines[0].points):
        rows.append([str(point.value), f"{point.multiply_adds / 1e6:.3g}", f"{point.nbytes / 1e6:.3g}"])
        for line, found in zip(lines, kinks, strict=True):
            time, works = line.points[i].contender.time, line.points[i].works
            cell = f"{time * 1e3:.3g}" + (f" ({works[1] / time:.0%})" if len(works) > 1 else "")
            rows[-1].append(cell + (f" **{found[i]:.2f}x**" if i in found else ""))
    rows.append(["slopes", "", "", *(", ".join(f"{slope:.2f}" for slope in line.slopes()) for line in lines)])
    return table(rows)


def of_pages(pages: dict[str, list[Line]]) -> list[str]:
    """The table of sizes that are whole pages."""
    rows = [["shape", "family", "operation", "ms", "time", "workspace, KB", "workspace", "memory", "above"]]
    for name, lines in pages.items():
        for line in lines:
            factors = [line.excess(1), *line.memory()]
            above = [n for n, f in zip(("time", "workspace", "memory"), factors, strict=True) if f > line.bound]
            workspace, time = line.points[1].workspace(), line.points[1].contender.time * 1e3
            cells = [f"{time:.3g}", f"{factors[0]:.2f}x", "-" if workspace is None else f"{workspace / 1e3:.4g}"]
            cells += [f"{factor:.2f}x" for factor in factors[1:]]
            rows.append([name, line.family, line.operation, *cells, ", ".join(above)])
    return table(rows)


def markdown(setting: dict[str, str], series: dict, pages: dict, labels: dict[str, str], picture: str | None) -> str:
    """The page; `labels`: what the series' quantities are called."""
    text = ["# How localconv's time grows", "", *(f"- {name}: {value}" for name, value in setting.items())]
    text += [line for note in NOTES for line in ("", note)]
    text += ["", f"![time against each quantity]({picture})"] if picture else []
    for name, lines in series.items():
        for family in dict.fromkeys(line.family for line in lines):
            text += ["", f"## {name}, {family}", ""]
            text += of_series(labels[name], [line for line in lines if line.family == family])
    text += ["", "## Whole pages", "", *of_pages(pages)] if pages else []
    kinks = [
        f"- {name}, {line.family} {line.operation}, {line.points[i].value}: {excess:.2f}x (above {line.bound}x)"
        for name, lines in (series | pages).items()
        for line in lines
        for i, excess in line.kinks().items()
    ]
    return "\n".join([*text, "", "## Kinks", "", *(kinks or ["none"])]) + "\n"


def as_json(setting: dict[str, str], series: dict[str, list[Line]], pages: dict[str, list[Line]]) -> str:
    """The same for machines: seconds and bytes."""
    found = [_for_machines(name, line) for name, lines in (series | pages).items() for line in lines]
    return json.dumps({"setting": setting, "lines": found}, indent=1)


def _for_machines(name: str, line: Line) -> dict[str, Any]:
    points = [
        {
            "value": point.value,
            "threads": point.threads,
            "seconds": point.contender.time,
            "fastest": point.contender.fastest,
            "multiply_adds": point.multiply_adds,
            "bytes": point.nbytes,
            "limit": point.works[1] if point.rates else None,
            "workspace": point.workspace(),
            "excess": line.excess(i),
        }
        for i, point in enumerate(line.points)
    ]
    slopes = [None if math.isnan(slope) else slope for slope in line.slopes()]
    return {
        "series": name, "family": line.family, "operation": line.operation, "bound": line.bound, "slopes": slopes,
        "points": points,
    }  # fmt: skip


def chart(series: dict[str, list[Line]], labels: dict[str, str], path: Path) -> None:
    """Draw a panel a series, time against its quantity on logarithmic axes, kinks ringed.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    from matplotlib.figure import Figure  # here: everything else works without it

    columns = min(4, len(series) + 1)
    height = -(-(len(series) + 1) // columns)
    figure = Figure(figsize=(3.9 * columns, 3.6 * height), layout="constrained", facecolor="white")
    panels = figure.subplots(height, columns, squeeze=False).ravel()
    for axes, (name, lines) in zip(panels, series.items(), strict=False):
        _draw(axes, lines, labels[name], falling=name == "threads")
    for axes in panels[len(series) :]:
        axes.set_axis_off()
    handles, words = panels[0].get_legend_handles_labels()
    panels[len(series)].legend(handles, words, loc="center", frameon=False, fontsize=10, labelcolor=INK)
    figure.suptitle("Milliseconds a call", x=0.01, ha="left", fontsize=14, fontweight="bold", color=INK)
    figure.savefig(path, dpi=130)


def _draw(axes, lines: list[Line], label: str, falling: bool) -> None:
    """One panel; the dashed lines have slope one (of threads minus one) and start at the last point of a forward
    result.
    """
    axes.set_xscale("log")
    axes.set_yscale("log")
    for line in lines:
        values = [point.value for point in line.points]
        times = [point.contender.time * 1e3 for point in line.points]
        colour = FASTER if line.family == "unshared" else SLOWER
        style = {"color": colour, "marker": MARKERS[line.operation], "markersize": 4, "linewidth": 1.3}
        axes.plot(values, times, label=f"{line.family}, {line.operation}", zorder=3, **style)
        ringed = list(line.kinks())
        rings = {"s": 110, "facecolors": "none", "edgecolors": INK, "zorder": 4}
        axes.scatter([values[i] for i in ringed], [times[i] for i in ringed], **rings)
        if line.operation == "forward":
            ideal = [times[-1] * (value / values[-1]) ** (-1 if falling else 1) for value in values]
            axes.plot(values, ideal, "--", color=colour, linewidth=0.9, zorder=2, alpha=0.7)
    axes.plot([], [], "--", color=INK, linewidth=0.9, label="slope of one")
    axes.scatter([], [], s=110, facecolors="none", edgecolors=INK, label="kink")
    axes.set_title(label, loc="left", fontsize=11, color=INK)
    for axis in (axes.xaxis, axes.yaxis):
        _plain_ticks(axis)
    axes.grid(color=GRID, linewidth=0.8, zorder=0)
    axes.tick_params(length=0, colors=INK, labelsize=9, which="both")
    for side in axes.spines.values():
        side.set_visible(False)


def _plain_ticks(axis) -> None:
    """Plain numbers, as many as can be read, in place of powers of ten."""
    low, high = sorted(axis.get_view_interval())
    digits = (1, 2, 4) if high / low < 60 else (1, 3) if high / low < 400 else (1,)
    ticks = [digit * 10.0**power for power in range(-5, 7) for digit in digits]
    ticks = [tick for tick in ticks if low <= tick <= high]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)
