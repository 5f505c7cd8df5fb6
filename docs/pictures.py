"""Draws the pictures of the explanation page and the charts of the benchmark's; conf.py calls it at every build."""

import re
from pathlib import Path

INK, PALE, SHADES = "#2b2f33", "#d9dde1", ("#2f6f9f", "#d9822b", "#4f8f5b", "#8a5a9e")


def draw_all(folder: Path) -> None:
    """Write every picture into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for draw in (shared_and_unshared, register_tile, zones, small_kernels):
        draw(folder / f"{draw.__name__}.png")
    figures = (folder.parent / "benchmark.md").read_text(encoding="utf-8")
    forward, step = figures.split("### A training step")
    for name, text in (("forward", forward), ("step", step)):
        speeds(text, folder / f"speed_{name}.png")


def _figure(width: float, height: float):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_aspect("equal")
    return figure, axes


def _box(axes, x: float, y: float, colour: str, text: str = "", width: float = 0.86, height: float = 0.86) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor=INK, linewidth=0.8))
    axes.text(
        x + width / 2,
        y + height / 2,
        text,
        ha="center",
        va="center",
        fontsize=9,
        color=INK if colour == PALE else "white",
    )


def shared_and_unshared(path: Path) -> None:
    """One filter for all positions beside a filter of its own for each."""
    figure, axes = _figure(9, 2.9)
    for left, title, colours in (
        (0, "shared: one kernel", SHADES[:1] * 4),
        (9, "unshared: a kernel at every position", SHADES),
    ):
        axes.text(left, 4.6, title, fontsize=11, color=INK)
        for i in range(6):
            _box(axes, left + i, 0, PALE, f"x{i}")
        for p, colour in enumerate(colours):
            _box(axes, left + p + 1, 3, colour, f"y{p}")
            for tap in range(3):
                axes.plot([left + p + tap + 0.43, left + p + 1.43], [0.9, 3], color=colour, linewidth=1.4)
    axes.set_xlim(-0.2, 15.2)
    axes.set_ylim(-0.3, 5.4)
    figure.savefig(path, dpi=130)


def register_tile(path: Path) -> None:
    """Rows that are broadcast, vectors in the lanes, accumulators where they meet."""
    figure, axes = _figure(8, 4)
    axes.text(2, 5.6, "two vectors of lanes, loaded", fontsize=10, color=INK)
    axes.text(0.4, -0.75, "rows, each value broadcast to the lanes", fontsize=10, color=INK)
    for v in range(2):
        for lane in range(4):
            _box(axes, 2 + 4 * v + 0.9 * lane, 4.5, SHADES[v], width=0.8, height=0.8)
    for r in range(4):
        _box(axes, 0.4, 3.2 - r, SHADES[2], f"r{r}", width=0.8, height=0.8)
        for v in range(2):
            _box(axes, 2 + 4 * v, 3.2 - r, PALE, f"sum[r{r}][{v}] += r{r} * vector {v}", width=3.5, height=0.8)
    axes.set_xlim(-1.3, 10.4)
    axes.set_ylim(-1.1, 6.1)
    figure.savefig(path, dpi=130)


def zones(path: Path) -> None:
    """The rectangles of positions that padding clips alike."""
    figure, axes = _figure(4.6, 4.6)
    names = {(0, 0): "corner", (0, 3): "edge", (3, 3): "inside"}
    for i in range(8):
        for j in range(8):
            edges = (i in (0, 7)) + (j in (0, 7))
            _box(axes, j, 7 - i, SHADES[edges], names.get((i, j), ""))
    axes.set_xlim(-0.2, 8)
    axes.set_ylim(-0.2, 8)
    figure.savefig(path, dpi=130)


def small_kernels(path: Path) -> None:
    """How far the results of small kernels lie from float32's."""
    import numpy as np
    from matplotlib.figure import Figure

    import localconv

    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 25, 25, 16), dtype=np.float32)
    kernel = rng.standard_normal((21 * 21, 5 * 5 * 16, 16), dtype=np.float32)
    # bfloat16 without ml_dtypes: the upper half of the bits, rounded to nearest.
    bits = kernel.view(np.uint32)
    upper = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)
    kinds = {"float16": kernel.astype(np.float16), "bfloat16": upper, "int8": localconv.quantize(kernel)}
    exact = localconv.local_conv2d(x, kernel, 5, data_format="channels_last")
    figure = Figure(figsize=(9, 2.8), layout="constrained", facecolor="white")
    axes = figure.subplots()
    edges = np.logspace(-7, -1, 121)
    for colour, (name, fewer) in zip(SHADES, kinds.items(), strict=False):
        y = localconv.local_conv2d(x, fewer, 5, data_format="channels_last")
        shares = abs(y - exact).ravel() / abs(exact).max()
        axes.hist(shares, edges, color=colour, alpha=0.75, label=f"{name}: largest {shares.max():.1e}")
    axes.set_xscale("log")
    axes.set_xlabel("difference from float32, by the largest result")
    axes.set_yticks([])
    axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path, dpi=130)


# --------------------------------------------------------------------------------------------------------------- charts


def measured(text: str) -> dict[str, list[tuple[str, float, str]]]:
    """The benchmark page's tables: for each title the shapes, localconv's speed over the best peer, and that peer."""
    tables: dict[str, list[tuple[str, float, str]]] = {}
    for title, body in re.findall(r"^\*\*(.+?)\*\*\n\n((?:\|.*\n)+)", text, re.MULTILINE):
        header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines())
        peer, speed = header.index("best peer"), header.index("speed")
        tables[title] = [(row[0], float(row[speed].rstrip("x")), row[peer].split(":")[0]) for row in rows]
    return tables


def speeds(text: str, path: Path) -> None:
    """A bar for each shape: how many times as fast as the fastest peer, on a logarithmic axis."""
    from matplotlib.figure import Figure

    tables = measured(text)
    if not tables:
        raise ValueError("the benchmark page has no table of speeds where the charts look for them")
    figure = Figure(figsize=(9, 0.34 * sum(map(len, tables.values())) + 1.4), layout="constrained", facecolor="white")
    panels = figure.subplots(len(tables), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, rows) in zip(panels, tables.items(), strict=True):
        names, ratios, peers = zip(*rows, strict=True)
        axes.set_xscale("log", base=2)
        axes.barh(
            names, [ratio - 1 for ratio in ratios], left=1, height=0.7, color=[SHADES[ratio < 1] for ratio in ratios]
        )
        for place, (ratio, peer) in enumerate(zip(ratios, peers, strict=True)):
            at = {"xytext": (5, 0), "textcoords": "offset points"}
            axes.annotate(f"{ratio:.2f}x  {peer}", (max(1, ratio), place), va="center", fontsize=8, **at)
        axes.axvline(1, color=INK, linewidth=1)
        axes.invert_yaxis()
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlim(0.7, 14)
        axes.set_xticks([1, 2, 4, 8], ["1x", "2x", "4x", "8x"])
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set_visible(False)
    figure.savefig(path, dpi=130)
