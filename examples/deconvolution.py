"""Sharpen a photograph whose blur differs from place to place (deconvolution with a point spread function that varies).

A lens makes of every point of light a small smear, its point spread function (PSF): round in the middle of the picture,
longer and turned further out. A few PSFs on a grid, interpolated between, are a `localconv.KernelBank`. What the camera
records is `local_conv2d_transpose` of the scene, which spreads each point by its own PSF; the adjoint is `local_conv2d`
with the same bank. Richardson-Lucy needs nothing else. It is run with the PSFs of the grid and, for comparison, with
their mean everywhere. Where PyTorch is installed its optimizer finds the scene too, by the same two functions.

The scene is scikit-learn's photograph, and goes on beyond the picture's border. The blur is made with a finer grid than
the one that deconvolution knows, and photons are counted, which is the noise.

    python examples/deconvolution.py
    python examples/deconvolution.py --steps 60 --photons 1e5 --output sharp.png
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from localconv import KernelBank, local_conv2d, local_conv2d_transpose

SAMPLE = "flower.jpg"
SIZE = 15  # pixels along the side of a PSF
REACH = SIZE // 2
NARROW, LONG = 0.8, 3.0  # standard deviations of a PSF: across, and along in the corners
KNOWN, TRUE = (5, 7), (15, 21)  # nodes of the grid that deconvolution knows, and of the one that blurs
TORCH_STEPS, RATE, SMOOTHNESS = 40, 0.02, 1e-3  # of the optimizer

Function = Callable[[np.ndarray], np.ndarray]


class InputError(Exception):
    """What the user gave cannot be used; the message is one line that says why."""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30, help="of Richardson-Lucy (default: %(default)s)")
    parser.add_argument("--photons", type=float, default=1e4, help="of a white pixel (default: %(default)g)")
    parser.add_argument("--output", type=Path, default=Path("deconvolution.png"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"--steps must be at least 1, got {options.steps}")
    if not options.photons > 0:
        parser.error(f"--photons must be above 0, got {options.photons}")
    return options


def load() -> np.ndarray:
    """Return the scene, its colours as three images of one channel: (3, rows, columns, 1), float32 from 0 to 1."""
    try:
        import matplotlib  # noqa: F401  # what draws the result: better missed now than at the end
        from sklearn.datasets import load_sample_image

        pixels = load_sample_image(SAMPLE)
    except ImportError as error:
        raise InputError(f"{error.name} is missing; pip install '.[demo]' in the checkout brings it") from error
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    halved = pixels[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).mean((1, 3)) / 255
    return np.moveaxis(halved, -1, 0)[..., None].astype(np.float32)


def psfs(nodes: tuple[int, int], rows: int, columns: int) -> KernelBank:
    """Return the PSFs of a scene: Gaussians, on a grid of nodes.

    Each sums to 1 and is drawn as a point of light looks in the picture.
    """
    at = [np.linspace(0, size - 1, count) for size, count in zip((rows, columns), nodes, strict=True)]
    y, x = (2 * axis / axis[-1] - 1 for axis in at)  # -1 to 1
    y, x = (axis.reshape(-1, 1, 1) for axis in np.meshgrid(y, x, indexing="ij"))
    angle, far = np.arctan2(y, x) + 0.6, np.hypot(y, x) / np.sqrt(2)
    down, right = np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1]
    along = right * np.cos(angle) + down * np.sin(angle)
    across = down * np.cos(angle) - right * np.sin(angle)
    filters = np.exp(-0.5 * ((along / (NARROW + (LONG - NARROW) * far)) ** 2 + (across / NARROW) ** 2))
    filters /= filters.sum((1, 2), keepdims=True)
    return KernelBank.on_grid(filters.reshape(-1, SIZE**2, 1).astype(np.float32), at, (rows, columns))


def mean_of(bank: KernelBank) -> KernelBank:
    """Return the mean of the PSFs, for every pixel."""
    return KernelBank(bank.filters.mean(0, keepdims=True), indices=np.zeros(bank.shape[0], np.int32))


def camera(bank: KernelBank, scene_shape: tuple[int, ...]) -> tuple[Function, Function]:
    """Return what makes a picture of a scene, and its adjoint.

    The picture is smaller than the scene by the reach of a PSF on each side, so that it has all light that belongs to
    it. Of the adjoint, a convolution, that is a padding: from a pixel of the picture's corner to the scene's.
    """
    images, rows, columns, _ = scene_shape
    window = {"data_format": "channels_last", "padding": ((2 * REACH, 2 * REACH),) * 2}
    picture_shape = (images, rows - 2 * REACH, columns - 2 * REACH, 1)

    def forward(scene: np.ndarray) -> np.ndarray:
        return local_conv2d_transpose(scene, bank, SIZE, 1, picture_shape, **window)

    def adjoint(picture: np.ndarray) -> np.ndarray:
        return local_conv2d(picture, bank, SIZE, **window)

    return forward, adjoint


def richardson_lucy(picture: np.ndarray, bank: KernelBank, scene_shape: tuple[int, ...], steps: int) -> np.ndarray:
    """Return the scene that the picture's photons make most likely, after some steps towards it."""
    forward, adjoint = camera(bank, scene_shape)
    seen = adjoint(np.ones_like(picture))  # how much of a point's light is in the picture
    scene = np.full(scene_shape, picture.mean(), np.float32)
    for _ in range(steps):
        scene *= adjoint(picture / forward(scene)) / seen
    return scene


def by_torch(picture: np.ndarray, bank: KernelBank, scene_shape: tuple[int, ...], steps: int) -> np.ndarray:
    """Return the scene that an optimizer of PyTorch finds: least squares, smooth, positive."""
    import torch

    torch.set_num_threads(1)  # its own part is small, and its threads would wait where localconv's work
    forward, adjoint = camera(bank, scene_shape)

    class Camera(torch.autograd.Function):
        @staticmethod
        def forward(ctx, scene):
            return torch.from_numpy(forward(scene.detach().numpy()))

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            return torch.from_numpy(adjoint(gradient.numpy()))

    given = torch.from_numpy(picture)
    start = np.pad(picture, ((0, 0), (REACH, REACH), (REACH, REACH), (0, 0)), mode="edge")
    scene = torch.from_numpy(start).requires_grad_()
    optimizer = torch.optim.Adam([scene], RATE)
    for _ in range(steps):
        optimizer.zero_grad()
        smooth = sum(scene.diff(dim=axis).square().add(1e-4).sqrt().mean() for axis in (1, 2))
        loss = (Camera.apply(scene) - given).square().mean() + SMOOTHNESS * smooth
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            scene.clamp_(min=0)
    return scene.detach().numpy()


def inside(scene: np.ndarray) -> np.ndarray:
    """Return the part of a scene that is in the picture."""
    return scene[:, REACH:-REACH, REACH:-REACH]


def psnr(picture: np.ndarray, true: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB."""
    return float(-10 * np.log10(np.square(picture.clip(0, 1) - true, dtype=np.float64).mean()))


def timed(function: Callable[..., np.ndarray], *arguments: object) -> tuple[np.ndarray, float]:
    """Return what a function of arguments, the last of which are its steps, returns; and the seconds of a step."""
    start = time.perf_counter()
    result = function(*arguments)
    return result, (time.perf_counter() - start) / int(arguments[-1])


def deconvolve(
    picture: np.ndarray, bank: KernelBank, scene_shape: tuple[int, ...], steps: int
) -> dict[str, np.ndarray]:
    """Return what was recorded and what was made of it, by captions; print the times."""
    found = {"blurred": picture}
    contenders = {
        "by the mean PSF": (richardson_lucy, mean_of(bank), steps),
        "by the PSFs": (richardson_lucy, bank, steps),
    }
    if importlib.util.find_spec("torch"):
        contenders["by the PSFs, PyTorch"] = (by_torch, bank, TORCH_STEPS)
    else:
        print("PyTorch               not installed: its optimizer is left out")
    for caption, (function, psfs_of, count) in contenders.items():
        result, seconds = timed(function, picture, psfs_of, scene_shape, count)
        found[caption] = inside(result)
        print(f"{caption:22}{count} steps of {seconds * 1e3:,.1f} ms")
    return found


def of_grid(bank: KernelBank) -> np.ndarray:
    """Return the PSFs side by side, each as bright as the others, as a grey picture."""
    each = bank.filters.reshape(*KNOWN, SIZE, SIZE)
    each = each / each.max((2, 3), keepdims=True)
    return np.moveaxis(each, 2, 1).reshape(1, KNOWN[0] * SIZE, KNOWN[1] * SIZE, 1).repeat(3, 0)


def draw(pictures: dict[str, np.ndarray], path: Path) -> None:
    """Write pictures, (3, rows, columns, 1) each, two in a row, as a PNG."""
    from matplotlib.figure import Figure

    rows = -(-len(pictures) // 2)
    figure = Figure(figsize=(11, 3.9 * rows), layout="constrained")
    for number, (caption, pixels) in enumerate(pictures.items(), 1):
        axes = figure.add_subplot(rows, 2, number)
        axes.imshow(np.moveaxis(pixels[..., 0], 0, -1).clip(0, 1))
        axes.set_title(caption)
        axes.set_axis_off()
    try:
        figure.savefig(path, dpi=80)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Blur, deconvolve, draw; return the exit status."""
    options = parse(arguments)
    try:
        if not options.output.absolute().parent.is_dir():
            raise InputError(f"cannot write {options.output}: no such directory")
        scene = load()
        rows, columns = scene.shape[1:3]
        bank, finer = psfs(KNOWN, rows, columns), psfs(TRUE, rows, columns)
        mean_photons = camera(finer, scene.shape)[0](scene).clip(0) * options.photons
        picture = (np.random.default_rng(0).poisson(mean_photons) / options.photons).astype(np.float32)
        print(f"scene                 {columns} x {rows} pixels in colour; {len(bank.filters)} PSFs of {SIZE} x {SIZE}")
        print(f"bank                  {bank.nbytes / 1e6:.1f} MB; its kernel would be {bank.size * 4 / 1e6:.1f} MB")
        found = deconvolve(picture, bank, scene.shape, options.steps)
        qualities = {caption: psnr(result, inside(scene)) for caption, result in found.items()}
        for caption, quality in qualities.items():
            print(f"{caption:22}{quality:.2f} dB")
        if not qualities["by the PSFs"] > max(qualities["blurred"], qualities["by the mean PSF"]):
            raise InputError("deconvolution by the PSFs came no nearer: fewer --steps, or more --photons?")
        captions = {f"{caption}: {qualities[caption]:.2f} dB": result for caption, result in found.items()}
        draw({"the PSFs": of_grid(bank), **captions, "the scene": inside(scene)}, options.output)
    except InputError as error:
        print(f"deconvolution.py: {error}", file=sys.stderr)
        return 2
    print(f"written               {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
