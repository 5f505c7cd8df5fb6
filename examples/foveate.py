"""See a photograph as an eye does: sharp where it looks, more blurred the further away.

Every output position has a filter of its own, a Gaussian that widens with the distance from the point of gaze. That is
an unshared convolution with hundreds of thousands of positions, which is what ``localconv.local_conv2d`` computes. The
colours are three pictures of one channel, filtered by the same weights: a batch of three.

    python examples/foveate.py
    python examples/foveate.py --image holiday.jpg --gaze 1200 800 --output holiday-foveated.png
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from localconv import local_conv2d

SAMPLE = "china.jpg"
SAMPLE_GAZE = (214, 208)  # the pavilion's middle floor
SHARPEST = 0.25  # sigma in pixels at the point of gaze: the picture as it is, to within a thousandth
REACH = 2.0  # sigmas from the middle of the widest kernel to its edge
NEGLIGIBLE = 1e-10  # relative weight of a tap that is left out: products of such would be denormal, and slow
BAND_BYTES = 256 << 20  # weights held at a time; a larger picture is filtered in bands of rows
BLOCK_ROWS = 16  # rows whose kernels are built at a time

GAZE_HELP = "the pixel looked at, counted from the top left (default: the middle; in the sample, the pavilion)"


class InputError(Exception):
    """What the user gave cannot be used; the message is one line that says why."""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, metavar="FILE", help=f"a picture (default: scikit-learn's {SAMPLE})")
    parser.add_argument("--gaze", type=int, nargs=2, metavar=("X", "Y"), help=GAZE_HELP)
    parser.add_argument("--size", type=int, default=15, help="taps along a kernel's side, odd (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("foveated.png"), help="default: %(default)s")
    return parser.parse_args(arguments)


def load(path: Path | None) -> np.ndarray:
    """Return the picture in the file, or the sample, as (3, height, width, 1) float32 from 0 to 1."""
    try:
        from PIL import Image, ImageOps

        if path is None:
            from sklearn.datasets import load_sample_image

            pixels = load_sample_image(SAMPLE)
    except ImportError as error:
        raise InputError(f"{error.name} is missing; pip install '.[demo]' in the checkout brings it") from error
    if path is not None:
        try:
            with warnings.catch_warnings(), Image.open(path) as image:
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large pictures are welcome here
                pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except Exception as error:  # decoders meet a damaged file with nearly any exception
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
            raise InputError(f"cannot read {path}: {reason}") from error
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0)[..., None], dtype=np.float32) / np.float32(255)


def resolve_gaze(gaze: list[int] | None, picture: np.ndarray, is_sample: bool) -> tuple[int, int]:
    """Return the point of gaze, checked to lie in the picture."""
    height, width = picture.shape[1:3]
    if gaze is None:
        return SAMPLE_GAZE if is_sample else (width // 2, height // 2)
    x, y = gaze
    if not (0 <= x < width and 0 <= y < height):
        raise InputError(f"gaze {x} {y} is outside the picture, which is {width} x {height} pixels")
    return x, y


class Fovea:
    """The kernels: a Gaussian per position, its sigma growing in proportion to the distance from the gaze."""

    def __init__(self, height: int, width: int, gaze: tuple[int, int], size: int):
        self.height, self.width, self.gaze, self.size = height, width, gaze, size
        self.radius = size // 2
        x, y = gaze
        farthest = np.hypot(max(x, width - 1 - x), max(y, height - 1 - y))
        self._growth = (self.radius / REACH - SHARPEST) / max(farthest, 1.0)

    def fill(self, kernels: np.ndarray, top: int, progress) -> None:
        """Write the kernels of the rows from `top` on into `kernels`, (rows, width, size, size).

        A Gaussian is the product of two, one along each axis, and a window that is clipped by the picture's edge is
        clipped along each axis alone. So both factors are built and normalized apart, over the taps that lie inside,
        and one outer product is all that is done for every tap.
        """
        for start in range(0, len(kernels), BLOCK_ROWS):
            block = kernels[start : start + BLOCK_ROWS]
            rows = np.arange(top + start, top + start + len(block), dtype=np.float32)[:, None]
            columns = np.arange(self.width, dtype=np.float32)[None, :]
            distance = np.hypot(rows - self.gaze[1], columns - self.gaze[0])
            sigma = SHARPEST + np.float32(self._growth) * distance
            vertical = self._factor(sigma, rows, self.height)
            horizontal = self._factor(sigma, columns, self.width)
            np.multiply(vertical[..., :, None], horizontal[..., None, :], out=block)
            progress(top + start + len(block))

    def _factor(self, sigma: np.ndarray, centre: np.ndarray, length: int) -> np.ndarray:
        """Return normalized Gaussians along an axis of `length` pixels, (rows, width, size), 0 outside the picture."""
        taps = np.arange(-self.radius, self.radius + 1, dtype=np.float32)
        at = centre[..., None] + taps
        weights = np.exp(-0.5 * (taps / sigma[..., None]) ** 2)
        weights *= (at >= 0) & (at < length) & (weights > NEGLIGIBLE)
        weights /= weights.sum(axis=-1, keepdims=True)
        return weights


def with_localconv(picture: np.ndarray, kernels: np.ndarray, padding) -> np.ndarray:
    """Filter with an unshared convolution; (3, rows, width)."""
    rows, width, size, _ = kernels.shape
    weights = kernels.reshape(rows * width, size * size, 1)
    result = local_conv2d(picture, weights, (size, size), (1, 1), (rows, width), "channels_last", padding=padding)
    return result[..., 0]


def with_numpy(picture: np.ndarray, kernels: np.ndarray, padding) -> np.ndarray:
    """Filter as NumPy does it fastest: windows copied row by row, which stay in the cache, and a product by einsum."""
    rows, width, size, _ = kernels.shape
    windows = sliding_window_view(np.pad(picture[..., 0], ((0, 0), *padding)), (size, size), axis=(1, 2))
    weights = kernels.reshape(rows, width, size * size)
    result = np.empty((3, rows, width), np.float32)
    for row in range(rows):
        np.einsum("cpd,pd->cp", windows[:, row].reshape(3, width, -1), weights[row], out=result[:, row])
    return result


def best_time(function, repeats: int, *arguments) -> tuple[float, np.ndarray]:
    """Return the shortest of several times of a call, and its result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function(*arguments)
        times.append(time.perf_counter() - start)
    return min(times), result


def foveate(picture: np.ndarray, fovea: Fovea, progress) -> tuple[np.ndarray, float, float, float]:
    """Filter the whole picture both ways, in bands of rows where its kernels would take too much memory.

    Returns the filtered picture (3, height, width), the seconds that localconv and NumPy took, and the largest
    difference between the two.
    """
    height, width, radius = fovea.height, fovea.width, fovea.radius
    step = min(height, max(1, BAND_BYTES // (4 * width * fovea.size**2)))
    repeats = 3 if step == height else 1
    storage = np.empty((step, width, fovea.size, fovea.size), np.float32)
    result = np.empty((3, height, width), np.float32)
    ours = numpys = difference = 0.0
    for top in range(0, height, step):
        bottom = min(top + step, height)
        kernels = storage[: bottom - top]
        fovea.fill(kernels, top, progress)
        # the rows that the band's windows reach, and zeros where they reach beyond the picture
        first, last = max(top - radius, 0), min(bottom + radius, height)
        pairs = ((radius - (top - first), radius - (last - bottom)), (radius, radius))
        padding = "same" if step == height else pairs  # the same thing where one band is the picture
        band = picture[:, first:last]
        seconds, result[:, top:bottom] = best_time(with_localconv, repeats, band, kernels, padding)
        ours += seconds
        seconds, expected = best_time(with_numpy, repeats, band, kernels, pairs)
        numpys += seconds
        difference = max(difference, float(np.abs(result[:, top:bottom] - expected).max()))
    return result, ours, numpys, difference


def draw(before: np.ndarray, after: np.ndarray, gaze: tuple[int, int], path: Path) -> None:
    """Write both pictures, (3, height, width), side by side as a PNG, the gaze marked in each."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = before.shape[1:]
    gap = max(8, width // 40)
    text = min(max(height // 22, 12), 120)
    canvas = Image.new("RGB", (2 * width + 3 * gap, height + 2 * gap + 3 * text // 2), "white")
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=text)
    for number, (caption, pixels) in enumerate((("before", before), ("after", after))):
        left, top = gap + number * (width + gap), gap + 3 * text // 2
        pixels = np.moveaxis(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8), 0, -1)
        canvas.paste(Image.fromarray(pixels), (left, top))
        pen.text((left, gap), caption, fill="#2b2f33", font=font)
        mark(pen, left + gaze[0], top + gaze[1], max(4, min(height, width) // 40))
    try:
        canvas.save(path, format="PNG")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def mark(pen, x: int, y: int, radius: int) -> None:
    """Draw a ring around the point, white with a black edge, so that it shows on any ground."""
    stroke = max(1, radius // 5)
    for colour, reach in (("black", stroke), ("white", 0)):
        outer = radius + reach
        pen.ellipse((x - outer, y - outer, x + outer, y + outer), outline=colour, width=stroke + 2 * reach)


def show_progress(height: int):
    """Return a function that keeps a line on stderr up to date, given how many rows are done."""
    live = sys.stderr.isatty()

    def progress(rows: int) -> None:
        if live:
            print(f"\r\x1b[Kbuilding kernels: {rows / height:4.0%}", end="", file=sys.stderr, flush=True)
            if rows == height:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    return progress


def report(fovea: Fovea, ours: float, numpys: float, difference: float) -> None:
    """Print what was done, and how fast."""
    positions = fovea.height * fovea.width
    print(f"picture             {fovea.width} x {fovea.height} pixels, gaze at {fovea.gaze[0]} {fovea.gaze[1]}")
    print(f"positions           {positions:,}, each with its own {fovea.size} x {fovea.size} kernel")
    print(f"weights             {positions * fovea.size**2 * 4 / 1e6:,.1f} MB")
    print(f"localconv           {ours * 1e3:,.1f} ms")
    print(f"NumPy               {numpys * 1e3:,.1f} ms, {numpys / ours:.1f} times as long")
    print(f"largest difference  {difference:.1e} (the picture's values go from 0 to 1)")


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; return the exit status."""
    options = parse(arguments)
    try:
        if options.size < 3 or options.size % 2 == 0:
            raise InputError(f"--size must be odd and at least 3, got {options.size}")
        if not options.output.absolute().parent.is_dir():
            raise InputError(f"cannot write {options.output}: no such directory")
        picture = load(options.image)
        gaze = resolve_gaze(options.gaze, picture, options.image is None)
        fovea = Fovea(*picture.shape[1:3], gaze, options.size)
        after, *figures = foveate(picture, fovea, show_progress(fovea.height))
        report(fovea, *figures)
        draw(picture[..., 0], after, gaze, options.output)
    except InputError as error:
        print(f"foveate.py: {error}", file=sys.stderr)
        return 2
    print(f"written             {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
