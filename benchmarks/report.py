"""What a run found: a table for the terminal, a Markdown file and a chart."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from shapes import ATTENTION, CORRELATION, FORWARD, STEP
from timing import Row

NOTES = (
    "Times are milliseconds a call, medians over alternating blocks. 'speed' is the median over the rounds of the best "
    "peer's time divided by localconv's in the same round: above 1, localconv is faster. The best peer is the fastest "
    "formulation of the fastest other library. A training step is the forward result and both gradients.",
    "'limit' is what this machine could do in the same minutes: reading as many bytes as the arrays have, again and "
    "again, at full bandwidth, every array touched once in a pass and a kernel gradient's lines twice, or multiplying "
    "and adding at its peak, whichever takes longer; 'reached' is the share of it that localconv gets. Filters from "
    "the data have both shares: of the peak ('of multiply-adds') and of the bandwidth ('of bytes'); and the memory "
    "that a thread takes beside the arrays.",
)


TITLES = {
    ("unshared", FORWARD): "Unshared (locally connected)",
    ("shared", FORWARD): "Shared (convolution)",
    ("unshared", STEP): "Unshared, training step",
    ("shared", STEP): "Shared, training step",
    ("filter", FORWARD): "Filters from the data",
    ("filter", CORRELATION): "Filters from the data, correlation",
    ("filter", ATTENTION): "Filters from the data, attention",
    ("filter", STEP): "Filters from the data, training step",
}


@dataclass
class Report:
    """Everything that is shown of a run."""

    setting: dict[str, str]  # what ran where: name to value
    libraries: list[str]
    rows: list[Row]
    limits: list[str] = field(default_factory=list)  # what the probe saw over the whole run
    overhead: Row | None = None
    import_seconds: float | None = None
    remarks: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # shapes with different results; they are not timed

    def family(self, name: str, work: str = FORWARD) -> list[Row]:
        """Return the rows of one family and one kind of work."""
        return [row for row in self.rows if (row.case.family, row.case.work) == (name, work)]

    def tables(self) -> list[tuple[str, list[Row]]]:
        """Return the tables that have rows, with their titles."""
        tables = [(title, self.family(*key)) for key, title in TITLES.items()]
        return [(title, rows) for title, rows in tables if rows]


def geometric_mean(rows: Iterable[Row]) -> float | None:
    """Return the geometric mean of the rows' speeds over their best peers, None where there is none."""
    logs = [math.log(row.best.ratio) for row in rows if row.best]
    return math.exp(sum(logs) / len(logs)) if logs else None


def summary(report: Report) -> list[tuple[str, str]]:
    """Return the figures that sum a run up, as (name, value)."""
    shared = report.family("shared")
    groups = (
        ("unshared", report.family("unshared")),
        ("shared, over 0.1 ms", [row for row in shared if row.ours.time > 1e-4]),
        ("shared, conv2d only", [row for row in shared if row.case.rank == 2]),
        ("training step, unshared", report.family("unshared", STEP)),
        ("training step, shared", report.family("shared", STEP)),
        *_filter_groups(report),
    )
    lines = []
    for name, rows in groups:
        mean = geometric_mean(rows)
        if mean is not None:
            slowest = min(rows, key=lambda row: row.best.ratio)
            lines.append((f"geometric mean, {name}", f"{mean:.2f}x"))
            lines.append((f"lowest, {name}", f"{slowest.best.ratio:.2f}x  {slowest.case.name}"))
    lines += _over_unfold(report)
    steps = {name: report.family(name, STEP) for name in ("unshared", "shared")}
    for name, rows in steps.items():
        ratios = sorted((row.peers["torch"].ratio, row.case.name) for row in rows if "torch" in row.peers)
        if ratios:
            mean = math.exp(sum(math.log(ratio) for ratio, _ in ratios) / len(ratios))
            lines.append(
                (f"over torch's autograd alone, {name}", f"{mean:.2f}x; lowest {ratios[0][0]:.2f}x  {ratios[0][1]}")
            )
    lines += _reached(report)
    wins = sum(row.best.ratio >= 1 for row in report.rows if row.best)
    losses = sum(row.best.ratio < 1 for row in report.rows if row.best)
    if wins or losses:
        lines.append(("faster than every peer", f"{wins} of {wins + losses} shapes"))
        lines.append(("slower than a peer", f"{losses} of {wins + losses} shapes"))
    return lines + _costs(report) + [("limits during the run", words) for words in report.limits]


WALL = 1.33  # times what reading and writing the bytes once takes: as near as that, no ratio is asked for


def _filter_groups(report: Report) -> list[tuple[str, list[Row]]]:
    """Filters from the data by what is to be reached for them, without the rows whose bytes are the wall."""
    kinds: dict[str, list[Row]] = {"16 channels a group and 25 taps": [], "1 to 4 channels": [], "other shapes": []}
    for row in report.family("filter"):
        case = row.case
        if case.channels // case.groups >= 16 and case.taps >= 25:
            kinds["16 channels a group and 25 taps"].append(row)
        else:
            kinds["1 to 4 channels" if case.channels <= 4 else "other shapes"].append(row)
    groups = [(f"filters, {name}", rows) for name, rows in kinds.items()]
    groups += [(f"filters, {work}", report.family("filter", work)) for work in (CORRELATION, ATTENTION, STEP)]
    return [(name, [row for row in rows if row.shares.get("memory", 0) * WALL < 1]) for name, rows in groups]


def _over_unfold(report: Report) -> list[tuple[str, str]]:
    """Return what windows laid out take, the fastest way at one look, as multiples of localconv's time."""
    lines = []
    for work in (FORWARD, CORRELATION, STEP):
        ratios = []
        for row in report.family("filter", work):
            looks = [seconds for label, seconds in row.looks.items() if "unfold" in label]
            ratios += [min(looks) / row.ours.time] if looks else []
        if ratios:
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            lines.append(
                (f"over the best unfold at one look, filters, {work}", f"{mean:.0f}x; lowest {min(ratios):.1f}x")
            )
    return lines


def _reached(report: Report) -> list[tuple[str, str]]:
    """Return the lowest shares of the limit, of the shapes that take over 0.1 ms."""
    lines = []
    for title, rows in report.tables():
        long = sorted((row.reached, row.case.name) for row in rows if row.limit and row.ours.time > 1e-4)
        if long:
            middle = median(share for share, _ in long)
            lowest = ", ".join(f"{share:.0%} {name}" for share, name in long[:3])
            lines.append((f"of the limit, {title[:1].lower()}{title[1:]}", f"median {middle:.0%}; lowest {lowest}"))
    return lines


def _costs(report: Report) -> list[tuple[str, str]]:
    """Return what is not about throughput: the smallest call and the import."""
    lines = []
    if report.overhead:
        row = report.overhead
        others = ", ".join(f"{name} {peer.time * 1e6:.1f}" for name, peer in row.peers.items())
        value = f"{row.ours.time * 1e6:.1f} microseconds" + (f"  ({others})" if others else "")
        lines.append((f"smallest call, {row.case.name}", value))
    if report.import_seconds is not None:
        lines.append(("import localconv after numpy", f"{report.import_seconds * 1e3:.1f} ms"))
    return lines


def _cells(report: Report, row: Row) -> list[str]:
    """Return a line of the table; the columns are those of `_header`."""
    times = [row.peers[name].time * 1e3 if name in row.peers else None for name in report.libraries]
    cells = [row.case.name, f"{row.ours.time * 1e3:.3f}"]
    cells += ["-" if time is None else f"{time:.3f}" for time in times]
    if report.libraries:
        best = row.best
        cells += [f"{best.library}: {best.label}", f"{best.ratio:.2f}x"] if best else ["-", "-"]
    if _has_workspaces(report):
        cells.append("-" if row.workspace is None else f"{row.workspace / 2**20:.2f}")
    if _has_shares(report):
        cells += [f"{row.shares[name]:.0%}" if row.shares else "-" for name in ("compute", "memory")]
    elif _has_limits(report):
        unit = "GB/s" if row.limit == "memory" else "GFLOP/s"
        cells += [f"{row.limit_rate / 1e9:.3g} {unit}", f"{row.reached:.0%}"] if row.limit else ["-", "-"]
    return cells


def _has_limits(report: Report) -> bool:
    return any(row.limit for row in report.rows)


def _has_workspaces(report: Report) -> bool:
    return any(row.workspace is not None for row in report.rows)


def _has_shares(report: Report) -> bool:
    """Filters from the data have goals for multiply-adds and for bytes: both shares are shown."""
    return any(row.shares and row.case.family == "filter" for row in report.rows)


def _header(report: Report) -> list[str]:
    header = ["shape", "localconv", *report.libraries]
    header += ["best peer", "speed"] if report.libraries else []
    header += ["MiB a thread"] if _has_workspaces(report) else []
    if _has_shares(report):
        return [*header, "of multiply-adds", "of bytes"]
    return header + (["limit", "reached"] if _has_limits(report) else [])


def terminal(report: Report) -> str:
    """Return the report as aligned plain text."""
    header = _header(report)
    left = {0, header.index("best peer")} if report.libraries else {0}
    lines = {title: [_cells(report, row) for row in rows] for title, rows in report.tables()}
    every = [header, *(cells for group in lines.values() for cells in group)]
    widths = [max(len(cells[i]) for cells in every) for i in range(len(header))]

    def aligned(cells: list[str]) -> str:
        padded = (c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
        return "  ".join(padded).rstrip()

    text = [f"{name}: {value}" for name, value in report.setting.items()]
    for title, table in lines.items():
        text += ["", title, aligned(header), "-" * (sum(widths) + 2 * len(widths) - 2)]
        text += [aligned(cells) for cells in table]
    figures = summary(report)
    width = max((len(name) for name, _ in figures), default=0)
    text += ["", *(f"{name.ljust(width)}  {value}" for name, value in figures)]
    return "\n".join(text + report.remarks + [f"FAILED: {failure}" for failure in report.failures])


def markdown(report: Report, picture: str | None) -> str:
    """Return the report as a Markdown page that shows the chart in the file `picture`, if there is one."""
    text = ["# localconv against its peers", ""]
    text += [f"- {name}: {value}" for name, value in report.setting.items()]
    text += [line for note in NOTES for line in ("", note)]
    text += ["", f"![speed relative to the best peer]({picture})"] if picture else []
    header = _header(report)
    left = {0, header.index("best peer")} if report.libraries else {0}
    for title, rows in report.tables():
        rule = ["---" if i in left else "---:" for i in range(len(header))]
        text += ["", f"## {title}", "", _table_line(header), _table_line(rule)]
        text += [_table_line(_cells(report, row)) for row in rows]
    text += ["", "## In short", ""]
    text += [f"- {name}: {' '.join(value.split())}" for name, value in summary(report)]
    text += [f"- {remark}" for remark in report.remarks] + [f"- FAILED: {failure}" for failure in report.failures]
    return "\n".join(text) + "\n"


def as_json(report: Report) -> str:
    """Return the report for machines, and for runs.py: times are seconds, rates a second."""
    rows = [_row_for_machines(row) for row in [*report.rows, *([report.overhead] if report.overhead else [])]]
    return json.dumps({"setting": report.setting, "limits": report.limits, "rows": rows}, indent=1)


def _row_for_machines(row: Row) -> dict[str, Any]:
    case = row.case
    found: dict[str, Any] = {"family": case.family, "name": case.name, "work": case.work, "seconds": row.ours.time}
    found["peers"] = {
        name: {"label": peer.label, "seconds": peer.time, "speed": peer.ratio} for name, peer in row.peers.items()
    }
    found |= {"looks": row.looks} | ({} if row.workspace is None else {"workspace": row.workspace})
    if row.best:
        found |= {"best": row.best.library, "speed": row.best.ratio}
    if row.limit:
        found |= {"limit": row.limit, "rate": row.limit_rate, "reached": row.reached, "shares": row.shares}
    return found


def table(rows: list[list[str]]) -> list[str]:
    """Rows, the header first, as Markdown that is aligned for the terminal too."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return [_table_line([c.ljust(w) for c, w in zip(row, widths, strict=True)]) for row in rows]


def _table_line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


# The chart. Faster and slower are told apart by the side of the line they are on and by colour, blue and orange, which
# stay apart for every kind of colour vision.
FASTER, SLOWER, INK, GRID = "#2f6f9f", "#d9822b", "#2b2f33", "#d9dde1"


def chart(report: Report, path: Path) -> None:
    """Write a chart of localconv's speed over the best peer's, a bar a shape, on a logarithmic axis.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    from matplotlib.figure import Figure  # here: everything else works without it

    groups = [(title, rows) for title, rows in _chart_groups(report) if rows]
    count = sum(len(rows) for _, rows in groups)
    figure = Figure(figsize=(10, 1.4 + 0.34 * count + 0.5 * len(groups)), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.1)
    panels = figure.subplots(
        len(groups), 1, sharex=True, squeeze=False, height_ratios=[len(rows) + 0.6 for _, rows in groups]
    )[:, 0]
    low, high = _chart_range([row.best.ratio for _, rows in groups for row in rows])
    for axes, (title, rows) in zip(panels, groups, strict=True):
        _draw_panel(axes, title, rows)
        axes.set_xlim(low, high)
        _label_axis(axes, low, high)
    panels[-1].set_xlabel("localconv's speed relative to the best peer (named; logarithmic)", color=INK, labelpad=8)
    figure.suptitle(
        f"localconv against {', '.join(report.libraries)}: float32, {report.setting['threads']} threads",
        x=0.02, ha="left", fontsize=14, fontweight="bold", color=INK,
    )  # fmt: skip
    figure.savefig(path, dpi=150)


def _chart_groups(report: Report) -> list[tuple[str, list[Row]]]:
    groups = []
    for title, rows in report.tables():
        drawn = [row for row in rows if row.best]
        mean = geometric_mean(drawn)
        groups.append((f"{title}, geometric mean of all {mean:.2f}x" if mean else title, drawn))
    return groups


def _chart_range(ratios: list[float]) -> tuple[float, float]:
    """Return limits that show every bar and the words at its end, and the line at 1."""
    low, high = min(ratios), max(ratios)
    room = (max(high, 1.2) / min(low, 0.9)) ** 0.2
    return min(low, 0.9) / room, max(high, 1.2) * room


def _draw_panel(axes, title: str, rows: list[Row]) -> None:
    """Draw one family: bars that start at 1, at their ends the ratio and the peer."""
    ratios = [row.best.ratio for row in rows]
    places = list(range(len(rows)))
    colours = [FASTER if ratio >= 1 else SLOWER for ratio in ratios]
    axes.set_xscale("log")
    axes.barh(places, [ratio - 1 for ratio in ratios], left=1, height=0.68, color=colours, zorder=2)
    axes.axvline(1, color=INK, linewidth=1.2, zorder=3)
    for place, row, ratio in zip(places, rows, ratios, strict=True):
        side = 1 if ratio >= 1 else -1
        axes.annotate(
            f"{ratio:.2f}x  {row.best.library}", (ratio, place), xytext=(6 * side, 0), textcoords="offset points",
            va="center", ha="left" if side > 0 else "right", fontsize=9, color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip
    axes.set_yticks(places, [row.case.name for row in rows], fontsize=9.5, color=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=8)
    axes.grid(axis="x", color=GRID, linewidth=0.8, zorder=0)
    axes.tick_params(length=0, colors=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _label_axis(axes, low: float, high: float) -> None:
    """Put plain ratios on the axis instead of powers of ten, few enough to be read."""
    decade = (1, 2, 5) if high / low > 15 else (1, 1.5, 2, 3, 5, 7)
    candidates = (round(digit * 10.0**power, 6) for power in range(-4, 5) for digit in decade)
    shown = [value for value in candidates if low <= value <= high]
    axes.set_xticks(shown, [f"{value:g}x" for value in shown], minor=False)
    axes.set_xticks([], minor=True)
