"""Find what moved where between two photographs (block matching, optical flow) by a cost volume.

Every pixel is described by the patch around it, brightness and contrast taken out. `localconv.local_correlation2d`
then compares each pixel of the first photograph with all pixels around the same place in the second one, a number for
every displacement, and the best of these is the motion. The sample is scikit-learn's photograph, and the same as though
the camera had moved ahead, turned and been exposed otherwise: of that the true motion is known.

    python examples/block_matching.py
    python examples/block_matching.py --images before.jpg after.jpg --reach 12 --output motion.png
"""

from __future__ import annotations

import argparse
import colorsys
import sys
import time
from pathlib import Path

import numpy as np

from localconv import im2col, local_correlation2d

SAMPLE = "china.jpg"
ZOOM, TURN, SHIFT, EXPOSURE, NOISE = 1.03, 0.012, (1.0, -2.0), (0.8, 0.1), 0.01  # of the sample's second picture
PATCH = 7  # pixels along the side of what describes a pixel
FLAT = 0.05  # the contrast, summed over a patch, below which it says little
SURE = 0.6  # the likeness, of at most 1, from which a displacement is believed
GREY = np.array([0.299, 0.587, 0.114], np.float32)


class InputError(Exception):
    """What the user gave cannot be used; the message is one line that says why."""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    of_images = f"two pictures of one size (default: scikit-learn's {SAMPLE}, and the same moved)"
    parser.add_argument("--images", type=Path, nargs=2, metavar="FILE", help=of_images)
    parser.add_argument("--reach", type=int, default=8, help="largest displacement, in pixels (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("block_matching.png"), help="default: %(default)s")
    return parser.parse_args(arguments)


def load(paths: list[Path] | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return two pictures (height, width, 3), float32 from 0 to 1, and the true motion where it is known."""
    try:
        from PIL import Image

        if paths is None:
            from sklearn.datasets import load_sample_image

            first = load_sample_image(SAMPLE)[::2, ::2] / np.float32(255)
            return first, *moved(first)
    except ImportError as error:
        raise InputError(f"{error.name} is missing; pip install '.[demo]' in the checkout brings it") from error
    pictures = []
    for path in paths:
        try:
            with Image.open(path) as image:
                pictures.append(np.asarray(image.convert("RGB")) / np.float32(255))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if pictures[0].shape != pictures[1].shape:
        sizes = " and ".join(f"{picture.shape[1]} x {picture.shape[0]}" for picture in pictures)
        raise InputError(f"the pictures must have the same size, got {sizes}")
    return pictures[0], pictures[1], None


def moved(first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture as another camera has it, and where every pixel of `first` went, (height, width, 2)."""
    height, width, _ = first.shape
    middle = np.array([height - 1, width - 1]) / 2
    matrix = ZOOM * np.array([[np.cos(TURN), -np.sin(TURN)], [np.sin(TURN), np.cos(TURN)]])
    at = np.moveaxis(np.mgrid[:height, :width], 0, -1) - middle
    motion = at @ matrix.T + SHIFT - at
    second = sampled(first, (at - SHIFT) @ np.linalg.inv(matrix).T + middle)
    noise = NOISE * np.random.default_rng(0).standard_normal(first.shape, np.float32)
    return (EXPOSURE[0] * second + EXPOSURE[1] + noise).astype(np.float32), motion.astype(np.float32)


def sampled(picture: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the picture between its pixels, by bilinear interpolation; beyond its edge the edge."""
    places = np.clip(places, 0, np.array(picture.shape[:2]) - 1.001)
    whole = places.astype(int)
    part = (places - whole)[..., None].astype(np.float32)
    total = np.zeros_like(picture)
    for down in (0, 1):
        for right in (0, 1):
            weight = abs(1 - down - part[..., 0, :]) * abs(1 - right - part[..., 1, :])
            total += weight * picture[whole[..., 0] + down, whole[..., 1] + right]
    return total


def described(picture: np.ndarray) -> np.ndarray:
    """Return for every pixel the patch around it, (1, height, width, PATCH * PATCH), of mean 0 and length 1.

    Flat patches are shorter, so that what is but noise is like nothing.
    """
    grey = picture @ GREY
    padded = np.pad(grey, PATCH // 2, mode="reflect")[None, ..., None]
    patches = im2col(padded, PATCH, data_format="channels_last").reshape(1, *grey.shape, PATCH**2)
    patches -= patches.mean(-1, keepdims=True)
    patches /= np.sqrt((patches**2).sum(-1, keepdims=True)) + FLAT
    return patches


def with_localconv(first: np.ndarray, second: np.ndarray, reach: int) -> np.ndarray:
    """Return the cost volume, (height, width, (2 * reach + 1)**2)."""
    return local_correlation2d(second, first, 2 * reach + 1, data_format="channels_last", padding="same")[0]


def with_numpy(first: np.ndarray, second: np.ndarray, reach: int) -> np.ndarray:
    """Return the same by a product for every displacement."""
    height, width = first.shape[1:3]
    size = 2 * reach + 1
    padded = np.pad(second[0], ((reach, reach), (reach, reach), (0, 0)))
    costs = np.empty((height, width, size**2), np.float32)
    for tap in range(size**2):
        there = padded[tap // size : tap // size + height, tap % size : tap % size + width]
        np.einsum("hwc,hwc->hw", first[0], there, out=costs[..., tap])
    return costs


def best_displacement(costs: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the displacements of the best matches, (height, width, 2) rows and columns, and how good these are.

    A parabola through the best one and its neighbours tells what lies between pixels.
    """
    size = 2 * reach + 1
    best = costs.argmax(-1)
    likeness = np.take_along_axis(costs, best[..., None], -1)[..., 0]
    result = np.stack(np.divmod(best, size), -1).astype(np.float32) - reach
    for axis, step in enumerate((size, 1)):
        neighbours = (best + sign * step for sign in (-1, 1))
        before, after = (
            np.take_along_axis(costs, np.clip(n, 0, size**2 - 1)[..., None], -1)[..., 0] for n in neighbours
        )
        curvature = 2 * likeness - before - after
        between = abs(result[..., axis]) < reach
        result[..., axis] += np.where(between, (after - before) / (2 * np.maximum(curvature, 1e-6)), 0).clip(-0.5, 0.5)
    return result, likeness


def best_time(function, repeats: int, *arguments) -> tuple[float, np.ndarray]:
    """Return the shortest of several times of a call, and its result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function(*arguments)
        times.append(time.perf_counter() - start)
    return min(times), result


def coloured(motion: np.ndarray, reach: int, sure: np.ndarray | None = None) -> np.ndarray:
    """Return a picture of displacements: the hue is the direction, the saturation the length; grey: not known."""
    wheel = np.array([colorsys.hsv_to_rgb(i / 360, 1, 0.9) for i in range(360)], np.float32)
    angle = np.degrees(np.arctan2(motion[..., 0], motion[..., 1])).astype(int) % 360
    length = np.minimum(np.hypot(motion[..., 0], motion[..., 1]) / reach, 1)[..., None]
    picture = 1 + length * (wheel[angle] - 1)
    return picture if sure is None else np.where(sure[..., None], picture, np.float32(0.6))


def draw(captions: dict[str, np.ndarray], path: Path) -> None:
    """Write pictures (height, width, 3), two in a row, as a PNG."""
    from PIL import Image, ImageDraw, ImageFont

    height, width, _ = next(iter(captions.values())).shape
    gap, text = max(8, width // 40), min(max(height // 16, 12), 60)
    rows = (len(captions) + 1) // 2
    canvas = Image.new("RGB", (2 * width + 3 * gap, rows * (height + gap + 3 * text // 2) + gap), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=text)
    for number, (caption, pixels) in enumerate(captions.items()):
        left = gap + number % 2 * (width + gap)
        top = gap + number // 2 * (height + gap + 3 * text // 2)
        pen.text((left, top), caption, fill="#2b2f33", font=font)
        image = Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))
        canvas.paste(image, (left, top + 3 * text // 2))
    try:
        canvas.save(path, format="PNG")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def report(costs: np.ndarray, ours: float, numpys: float, difference: float) -> None:
    """Print what was done, and how fast."""
    height, width, displacements = costs.shape
    print(f"pictures            {width} x {height} pixels, {PATCH} x {PATCH} around each")
    print(f"cost volume         {displacements} displacements for every pixel, {costs.nbytes / 1e6:,.0f} MB")
    print(f"localconv           {ours * 1e3:,.1f} ms")
    print(f"NumPy               {numpys * 1e3:,.1f} ms, {numpys / ours:.1f} times as long")
    print(f"largest difference  {difference:.1e} (likeness goes from -1 to 1)")


def report_errors(found: np.ndarray, true: np.ndarray, sure: np.ndarray, reach: int) -> None:
    """Print how far the motion is from the true one, where it went no further than `reach` and not out of sight."""
    height, width, _ = true.shape
    there = np.moveaxis(np.mgrid[:height, :width], 0, -1) + true
    seen = (abs(true).max(-1) <= reach) & (there >= 0).all(-1) & (there <= (height - 1, width - 1)).all(-1)
    errors = np.hypot(*np.moveaxis(found - true, -1, 0))[seen & sure]
    print(f"believed            {sure[seen].mean():.0%} of the pixels, which are not flat")
    print(f"error of these      median {np.median(errors):.2f} pixels; {(errors < 1).mean():.0%} below one")


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; return the exit status."""
    options = parse(arguments)
    try:
        if options.reach < 1:
            raise InputError(f"--reach must be at least 1, got {options.reach}")
        if not options.output.absolute().parent.is_dir():
            raise InputError(f"cannot write {options.output}: no such directory")
        first, second, true = load(options.images)
        patches = described(first), described(second)
        ours, costs = best_time(with_localconv, 3, *patches, options.reach)
        numpys, expected = best_time(with_numpy, 1, *patches, options.reach)
        report(costs, ours, numpys, float(np.abs(costs - expected).max()))
        motion, likeness = best_displacement(costs, options.reach)
        sure = likeness > SURE
        captions = {"first": first, "second": second, "motion found": coloured(motion, options.reach, sure)}
        if true is not None:
            report_errors(motion, true, sure, options.reach)
            captions["true motion"] = coloured(true, options.reach)
        draw(captions, options.output)
    except InputError as error:
        print(f"block_matching.py: {error}", file=sys.stderr)
        return 2
    print(f"written             {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
