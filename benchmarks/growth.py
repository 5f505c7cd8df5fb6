"""Measure how localconv's time grows with every size of a convolution and with the threads, and what happens where
lines of the arrays are whole pages.

    python benchmarks/growth.py                  # everything
    python benchmarks/growth.py --only channels  # one series, or "multiples": the whole pages
    python benchmarks/growth.py --quick

A series changes one quantity. Its points take turns in blocks, up in one round and down in the next, so that a machine
that slows down does not bend a line. A kink is a point whose time per unit of work is more than KINK times what a
straight line between its neighbours, on logarithmic axes, has there. There are two units, the multiply-adds and the
time that the machine's limits allow, and the smaller excess counts: time that is a sum of parts, of which some grow, is
never above the line per multiply-add; and where arrays leave a cache, the limit grows as the time does. A line with
what looks like a kink is measured for as many rounds again.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from compare import Progress, available_cpus, instruction_set, limit_threads, open_probe, processor
from shapes import STEP, Case

KINK = 1.25  # times the line between the neighbours
PAGES = 1.15  # the same of a size whose lines are whole pages
MULTIPLES = "multiples"


class Sizes(NamedTuple):
    """Output positions and taps of every axis, images, channels, filters."""

    out: tuple[int, ...]
    taps: int
    batch: int
    channels: int
    filters: int

    def case(self, family: str, padding: str = "valid", channels_first: bool = False) -> Case:
        """The case with so many output positions."""
        rank, reach = len(self.out), self.taps - 1 if padding == "valid" else 0
        spatial, ones = tuple(n + reach for n in self.out), (1,) * rank
        geometry = (self.batch, spatial, self.channels, (self.taps,) * rank, ones, ones, self.filters)
        return Case(family, "", *geometry, padding=padding, channels_first=channels_first)


class Series(NamedTuple):
    """One quantity: what it is called, the sizes of each family that stay, its values, and what a value changes."""

    label: str
    base: dict[str, Sizes]
    values: list[int]
    change: Callable[[int], dict[str, Any]]


def grid(low: int, high: int) -> list[int]:
    """Powers of two, and between them their halves more."""
    values = {2**k for k in range(13)} | {3 * 2**k for k in range(11)}
    return sorted(n for n in values if low <= n <= high)


PLANE = {"unshared": Sizes((16, 16), 3, 8, 16, 16), "shared": Sizes((28, 28), 3, 4, 32, 32)}
LINE = {"unshared": Sizes((256,), 3, 8, 16, 16), "shared": Sizes((1024,), 3, 4, 32, 32)}
TAPS = [*range(1, 10), 11, 13, 16, 17, 20, 24, 28, 32]

SERIES = {
    "batch": Series("images", PLANE, grid(1, 128), lambda n: {"batch": n}),
    "length": Series("positions of a line", LINE, grid(16, 4096), lambda n: {"out": (n,)}),
    "side": Series(
        "positions of a square", PLANE, [n * n for n in grid(4, 64)], lambda n: {"out": (math.isqrt(n),) * 2}
    ),
    "channels": Series("channels", PLANE, grid(2, 256), lambda n: {"channels": n}),
    "filters": Series("filters", PLANE, grid(1, 128), lambda n: {"filters": n}),
    "kernel": Series("taps of a line", LINE, TAPS, lambda n: {"taps": n}),
    "threads": Series("threads", PLANE, grid(1, 4096), lambda n: {"batch": 64}),
}

# Lines of whole pages, 4096 bytes or several times that in float32: a pixel's channels or filters, a row of pixels, a
# plane of channels_first. Each stands between neighbours with so much less and more of the named size. With padding
# 'same' the output's lines are whole pages where the input's are and there are as many filters as channels.
PAGED = {
    "1024 channels": ("channels", 16, Sizes((8, 8), 3, 4, 1024, 16)),
    "2048 channels": ("channels", 16, Sizes((8, 8), 3, 4, 2048, 8)),
    "1024 channels, 1 tap": ("channels", 16, Sizes((16, 16), 1, 4, 1024, 32)),
    "1024 channels of a line": ("channels", 16, Sizes((64,), 3, 8, 1024, 32)),
    "1024 filters": ("filters", 16, Sizes((8, 8), 3, 4, 16, 1024)),
    "rows of 32 x 32": ("width", 1, Sizes((16, 32), 3, 8, 32, 32)),
    "rows of 64 x 64": ("width", 1, Sizes((8, 64), 3, 8, 64, 64)),
    "rows of 256 x 4": ("width", 1, Sizes((32, 256), 3, 8, 4, 4)),
    "planes of 32 x 32": ("width", 1, Sizes((32, 32), 3, 4, 16, 16)),
    "planes of 64 x 64": ("width", 1, Sizes((64, 64), 3, 4, 8, 8)),
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    add = parser.add_argument
    add("--only", choices=(*SERIES, MULTIPLES), metavar="SERIES", help="one of %(choices)s")
    add("--threads", type=int, default=available_cpus(), help="(default: %(default)s)")
    add("--quick", action="store_true", help="fewer and shorter rounds: a first look, not figures to quote")
    add("--json", action="store_true", help="print growth.json in place of growth.md")
    where = "where growth.md, growth.json and growth.png go (default: results, beside this file)"
    add("--out", type=Path, default=Path(__file__).parent / "results", metavar="DIR", help=where)
    parser.set_defaults(isa=None)
    options = parser.parse_args(arguments)
    if not 1 <= options.threads <= available_cpus():
        parser.error(f"--threads must be from 1 to {available_cpus()}, got {options.threads}")
    if options.threads == 1 and options.only == "threads":
        parser.error("--only threads needs --threads of at least 2")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out: {error}")
    options.series = [
        name for name in SERIES if options.only in (None, name) and (name, options.threads) != ("threads", 1)
    ]
    return options


def in_series(name: str, family: str, threads: int) -> list[tuple[int, Case, int]]:
    """The values of a series, each with its case and its threads."""
    series = SERIES[name]
    cases = [(n, series.base[family]._replace(**series.change(n)).case(family)) for n in series.values]
    return (
        [(n, case, threads) for n, case in cases]
        if name != "threads"
        else [(n, c, n) for n, c in cases if n <= threads]
    )


def beside_pages(name: str, family: str, threads: int) -> list[tuple[int, Case, int]]:
    """A size whose lines are whole pages, between its neighbours."""
    quantity, step, sizes = PAGED[name]
    middle = sizes.out[-1] if quantity == "width" else getattr(sizes, quantity)
    found = []
    for n in (middle - step, middle, middle + step):
        changed = sizes._replace(**({"out": (*sizes.out[:-1], n)} if quantity == "width" else {quantity: n}))
        found.append((n, changed.case(family, "same", name.startswith("planes")), threads))
    return found


def ready(ours: Any, family: str, cases: list[tuple[int, Case, int]], bound: float) -> list:
    """The lines of a series: every call made, and run."""
    from growth_report import NAMES, Line, Point
    from peers import random_arrays
    from timing import Contender, timed

    lines = {operation: Line(family, operation, bound) for operation in NAMES}
    for value, case, threads in cases:
        rates: list[tuple[float, float]] = []
        ours.module.set_num_threads(threads)
        for operation, call in ours.operations(case, *random_arrays(replace(case, work=STEP))).items():
            contender = Contender(ours.name, operation, call)
            contender.estimate = max(min(timed(call, 1) for _ in range(3)), 1e-7)
            lines[operation].points.append(Point(value, case, operation, threads, contender, rates))
    return list(lines.values())


def measure(ours: Any, lines: list, probe: Any, pace: Any) -> tuple[int, int]:
    """Measure the points in turns; the lines in which something looks like a kink for as many rounds again.

    How many blocks ended on one thread because the processors were busy, and how many blocks there were.
    """
    from timing import block

    from localconv import _core

    alone = blocks = 0
    for number in range(2 * pace.rounds):
        taking_part = lines if number < pace.rounds else [line for line in lines if line.kinks()]
        turn = -1 if number % 2 else 1
        for line in taking_part[::turn]:
            for point in line.points[::turn]:
                ours.module.set_num_threads(point.threads)
                block(point.contender, pace)
                ran = _core.last_run()
                alone, blocks = alone + (ran["team"] < ran["threads"]), blocks + 1
        if probe and taking_part:
            add_rates(taking_part[0].points, probe)
    for line in lines:
        for point in line.points:
            del point.contender.call  # it holds the arrays
    return alone, blocks


def add_rates(points: list, probe: Any) -> None:
    """Measure what the machine has for the points' cases just now; all operations on a case share it."""
    peaks: dict[int, float] = {}
    for point in points:
        probe.threads = point.threads
        if point.threads not in peaks:
            peaks[point.threads] = probe.peak()
        point.rates.append((probe.bandwidth_of(point.case.resident), peaks[point.threads]))


def run(options: argparse.Namespace) -> tuple[dict[str, str], dict[str, list], dict[str, list]]:
    """Measure what was asked for; return the setting, and the lines of the series and of the pages by their names."""
    import peers
    from timing import Pace

    ours, remarks = peers.LocalConv(options.threads), []
    pace = Pace(block=0.003, rounds=3, pause=0.002) if options.quick else Pace(block=0.02, rounds=5, pause=0.005)
    series: dict[str, list] = {name: [] for name in options.series}
    pages: dict[str, list] = {name: [] for name in PAGED if options.only in (None, MULTIPLES)}
    probe = open_probe(options, remarks) if series else None
    progress, counts = Progress(2 * len(series | pages)), []
    for name, found in (series | pages).items():
        for family in ("unshared", "shared"):
            progress.start(f"{name}, {family}")
            cases, bound = (in_series, KINK) if name in series else (beside_pages, PAGES)
            lines = ready(ours, family, cases(name, family, options.threads), bound)
            counts.append(measure(ours, lines, probe if name in series else None, pace))
            found += lines
    progress.finish()
    if probe:
        probe.close()
    alone, blocks = (sum(column) for column in zip(*counts, strict=True))
    setting = {"processor": processor(), "threads": str(options.threads)}
    setting["localconv"] = f"{ours.version}, {instruction_set()}"
    setting["remarks"] = "; ".join([*remarks, f"{alone} of {blocks} blocks kept to one thread beside busy processors"])
    return setting, series, pages


def main(arguments: list[str] | None = None) -> int:
    """Measure, write and print; return the exit status, which kinks do not change."""
    options = parse(arguments)
    limit_threads(options.threads)
    setting, series, pages = run(options)
    from growth_report import as_json, chart, markdown

    page, data, picture = (options.out / f"growth.{ending}" for ending in ("md", "json", "png"))
    labels = {name: series.label for name, series in SERIES.items()}
    drawn = bool(series)
    if drawn:
        try:
            chart(series, labels, picture)
        except ImportError:
            drawn = False
            print("growth.py: no chart: it needs matplotlib; pip install '.[bench]'", file=sys.stderr)
    page.write_text(markdown(setting, series, pages, labels, picture.name if drawn else None), encoding="utf-8")
    data.write_text(as_json(setting, series, pages), encoding="utf-8")
    print((data if options.json else page).read_text(encoding="utf-8"))
    print(f"written: {', '.join(map(str, [page, data, *([picture] if drawn else [])]))}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
