"""Makes the pictures of the documentation; conf.py calls it at every build.

Drawings of the explanation page and charts of the benchmark's are drawn here. Those of the gallery are what the Python
blocks of the pages and the examples save, made anew where one of these is newer than its picture.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

INK, PALE, SHADES = "#2b2f33", "#d9dde1", ("#2f6f9f", "#d9822b", "#4f8f5b", "#8a5a9e")


def draw_all(folder: Path) -> None:
    """Write every picture into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for draw in (shared_and_unshared, strategies, register_tile, runs, zones, small_kernels):
        draw(folder / f"{draw.__name__}.png")
    figures = (folder.parent / "benchmark.md").read_text(encoding="utf-8")
    forward, step = figures.split("### A training step")
    speeds(forward, "A forward call, over the fastest peer", folder / "speed_forward.png")
    step = step.partition("\n## ")[0]  # tables of other sections have other columns
    speeds(step, "A training step, over the fastest peer", folder / "speed_step.png")
    docs = folder.parent
    for page, saved in (("spatially-varying-filters", "bilateral.png"), ("gallery", "lights.png")):
        if is_newer(docs / f"{page}.md", folder / saved):
            run(plain_blocks(docs / f"{page}.md"), folder)
    for name in ("digits", "block_matching", "deconvolution"):
        example = docs.resolve().parent / "examples" / f"{name}.py"
        if is_newer(example, folder / f"{name}.png"):
            run(example.read_text(encoding="utf-8"), folder)


def is_newer(source: Path, made: Path) -> bool:
    """Whether a picture is to be made anew."""
    return not made.exists() or source.stat().st_mtime > made.stat().st_mtime


def plain_blocks(page: Path) -> str:
    """A page's Python, without the blocks for other libraries."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return "\n".join(
        block
        for block in blocks
        if not re.search(r"^(import|from) localconv\.(torch|jax|keras)", block, re.MULTILINE)
    )


def run(code: str, folder: Path) -> None:
    """Run a program in a folder, which gets the files that it saves."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def _figure(width: float, height: float):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_aspect("equal")
    return figure, axes


def _box(
    axes, x: float, y: float, colour: str, text: str = "", width: float = 0.86, height: float = 0.86
) -> None:
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
                axes.plot(
                    [left + p + tap + 0.43, left + p + 1.43], [0.9, 3], color=colour, linewidth=1.4
                )
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
            _box(
                axes,
                2 + 4 * v,
                3.2 - r,
                PALE,
                f"sum[r{r}][{v}] += r{r} * vector {v}",
                width=3.5,
                height=0.8,
            )
    axes.set_xlim(-1.3, 10.4)
    axes.set_ylim(-1.1, 6.1)
    figure.savefig(path, dpi=130)


def strategies(path: Path) -> None:
    """What is in the rows and in the lanes of a tile, for the three ways to go forward."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained", facecolor="white")
    panels = figure.subplots(1, 3)
    ways = (
        ("convolution", "positions", "filters", "one kernel,\nfor all positions"),
        ("unshared, many filters", "images", "filters", "a kernel for\nthis position"),
        ("unshared, few filters", "filters", "images", "the images' windows\nat this position"),
    )
    for axes, (title, rows, lanes, loaded) in zip(panels, ways, strict=True):
        axes.set_axis_off()
        axes.set_aspect("equal")
        axes.text(-1.6, 8.2, title, fontsize=12, color=INK)
        for i in range(4):
            for j in range(5):
                _box(axes, 2.2 + j, 3 - i, PALE)
            for depth in range(2):
                _box(axes, depth - 0.3, 3 - i, SHADES[2])
        for j in range(5):
            for depth in range(2):
                _box(axes, 2.2 + j, 4.7 + depth, SHADES[0])
        axes.text(0.65, -0.6, rows, ha="center", va="top", fontsize=11, color=SHADES[2])
        axes.text(
            4.6, -0.6, f"sums: {rows} x {lanes}", ha="center", va="top", fontsize=10, color=INK
        )
        axes.text(4.6, 6.9, f"lanes: {lanes}", ha="center", fontsize=11, color=SHADES[0])
        axes.text(1.9, 5.7, loaded, ha="right", va="center", fontsize=8.5, color=INK)
        axes.set_xlim(-1.6, 7.4)
        axes.set_ylim(-1.6, 8.9)
    figure.savefig(path, dpi=150)


def runs(path: Path) -> None:
    """The stretches of a window that are contiguous in the input: inside, and where padding clips it."""
    figure, axes = _figure(9, 4.1)
    width, height = 6, 4
    for left, title, rows, columns in (
        (0, "inside: three runs of three pixels", range(1, 4), range(2, 5)),
        (9, "in a corner: two runs of two pixels", range(2), range(2)),
    ):
        axes.text(left, 6.4, title, fontsize=12, color=INK)
        for y in range(height):
            for x in range(width):
                inside = y in rows and x in columns
                _box(
                    axes,
                    left + x,
                    5.2 - y,
                    SHADES[y - rows[0]] if inside else PALE,
                    f"{y * width + x}",
                )
        for pixel in range(width * height):
            y, x = divmod(pixel, width)
            inside = y in rows and x in columns
            at = left + pixel * 6 / 24
            _box(axes, at, 0.4, SHADES[y - rows[0]] if inside else PALE, width=0.25, height=0.8)
        axes.text(left, -0.2, "the same pixels as they lie in memory", fontsize=10.5, color=INK)
    axes.set_xlim(-0.2, 15.2)
    axes.set_ylim(-0.5, 7.1)
    figure.savefig(path, dpi=150)


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
    kinds = {
        "float16": kernel.astype(np.float16),
        "bfloat16": upper,
        "int8": localconv.quantize(kernel),
    }
    exact = localconv.local_conv2d(x, kernel, 5, data_format="channels_last")
    figure = Figure(figsize=(9, 2.8), layout="constrained", facecolor="white")
    axes = figure.subplots()
    edges = np.logspace(-7, -1, 121)
    for colour, (name, fewer) in zip(SHADES, kinds.items(), strict=False):
        y = localconv.local_conv2d(x, fewer, 5, data_format="channels_last")
        shares = abs(y - exact).ravel() / abs(exact).max()
        axes.hist(
            shares, edges, color=colour, alpha=0.75, label=f"{name}: largest {shares.max():.1e}"
        )
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
        header, _, *rows = (
            [cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()
        )
        peer, speed = header.index("best peer"), header.index("speed")
        tables[title] = [
            (row[0], float(row[speed].rstrip("x")), row[peer].split(":")[0]) for row in rows
        ]
    return tables


def speeds(text: str, title: str, path: Path) -> None:
    """A bar for each shape: how many times as fast as the fastest peer, on a logarithmic axis."""
    from matplotlib.figure import Figure

    tables = measured(text)
    if not tables:
        raise ValueError("the benchmark page has no table of speeds where the charts look for them")
    rows = sum(map(len, tables.values()))
    # As wide as a telephone shows without making letters smaller: each shape's name stands above its bar.
    figure = Figure(figsize=(4.5, 0.4 * rows + 1.4), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=12, color=INK, x=0.02, ha="left")
    heights = [len(rows) + 1 for rows in tables.values()]
    panels = figure.subplots(
        len(tables), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    for axes, (kind, rows) in zip(panels, tables.items(), strict=True):
        axes.set_xscale("log", base=2)
        for place, (name, ratio, peer) in enumerate(rows):
            axes.barh(place + 0.22, ratio - 1, left=1, height=0.36, color=SHADES[ratio < 1])
            axes.text(1.03, place - 0.22, name, va="center", fontsize=9, color=INK)
            at = {"xytext": (5, 0), "textcoords": "offset points"}
            beside = (max(1, ratio), place + 0.22)
            axes.annotate(f"{ratio:.2f}x  {peer}", beside, va="center", fontsize=9, **at)
        axes.axvline(1, color=INK, linewidth=1)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks([])
        axes.set_title(kind, loc="left", fontsize=10, fontweight="bold")
        axes.set_xlim(0.9 * min(1, *(ratio for _, ratio, _ in rows)), 40)
        axes.set_xticks([1, 2, 4, 8], ["1x", "2x", "4x", "8x"])
        axes.tick_params(length=0, labelsize=9)
        axes.spines[:].set_visible(False)
    figure.savefig(path, dpi=150)
