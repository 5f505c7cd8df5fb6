"""Denoise a photograph with a filter for every pixel, predicted by a small network (kernel prediction).

A network of three convolutions looks at noisy pictures and predicts 5 x 5 weights for each pixel of each, which
`local_filter2d` applies to all colours. Gradients go through the weights to the network. It learns from batches of
crops of one photograph of scikit-learn's and is shown the other one. A step of the filters alone is timed against
`unfold`, which lays every window out.

    python examples/kernel_prediction.py
    python examples/kernel_prediction.py --steps 400 --noise 0.15 --output mine.png
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from localconv.torch import local_filter2d

TAPS, BATCH, CROP = 5, 4, 64


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="training steps (default: %(default)s)")
    parser.add_argument("--noise", type=float, default=0.1, help="its standard deviation (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("kernel_prediction.png"), help="default: %(default)s")
    return parser.parse_args(arguments)


class KernelPrediction(nn.Module):
    """A filter for every pixel, of weights that are positive and sum to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU()
        )
        self.weights = nn.Conv2d(24, TAPS**2, 3, padding=1)

    def forward(self, noisy: Tensor) -> Tensor:
        """Return pictures (N, 3, H, W) denoised."""
        return local_filter2d(noisy, self.weights(self.layers(noisy)).softmax(1), TAPS, padding=TAPS // 2)


def by_unfold(noisy: Tensor, filters: Tensor) -> Tensor:
    """Return what `local_filter2d` does, by laying out all windows."""
    windows = nn.functional.unfold(noisy, TAPS, padding=TAPS // 2).view(len(noisy), 3, TAPS**2, -1)
    return (windows * filters.flatten(2)[:, None]).sum(2).view(noisy.shape)


def step_time(function: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Return the seconds that filtering a batch and the gradient for its filters take, a median."""
    noisy = torch.rand(BATCH, 3, 4 * CROP, 4 * CROP)
    filters = torch.rand(BATCH, TAPS**2, 4 * CROP, 4 * CROP, requires_grad=True)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        function(noisy, filters).sum().backward()
        times.append(time.perf_counter() - start)
    return median(times)


def gaussian(noisy: Tensor, sigma: float) -> Tensor:
    """Return a picture filtered by one Gaussian everywhere."""
    offsets = torch.arange(-4.0, 5.0)
    one = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = torch.outer(one, one)
    edges = nn.functional.pad(noisy[:, None], (4, 4, 4, 4), mode="replicate")
    return nn.functional.conv2d(edges, (kernel / kernel.sum())[None, None])[:, 0]


def psnr(picture: Tensor, clean: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB."""
    return float(-10 * (picture.clamp(0, 1) - clean).square().mean().log10())


def photographs() -> tuple[Tensor, Tensor]:
    """Return one to learn from and one to be shown, (3, H, W) from 0 to 1, at half their size."""
    from sklearn.datasets import load_sample_image

    pictures = [torch.tensor(load_sample_image(name)) for name in ("flower.jpg", "china.jpg")]
    first, second = [nn.functional.avg_pool2d(p.permute(2, 0, 1).float() / 255, 2) for p in pictures]
    return first, second


def train(model: nn.Module, picture: Tensor, steps: int, noise: float) -> None:
    """Train on batches of random crops with fresh noise."""
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    _, height, width = picture.shape
    for _ in range(steps):
        corners = zip(torch.randint(height - CROP, (BATCH,)), torch.randint(width - CROP, (BATCH,)), strict=True)
        clean = torch.stack([picture[:, top : top + CROP, left : left + CROP] for top, left in corners])
        optimizer.zero_grad()
        (model(clean + noise * torch.randn_like(clean)) - clean).square().mean().backward()
        optimizer.step()


def main(arguments: list[str] | None = None) -> int:
    """Train, denoise, draw; return the exit status."""
    options = parse(arguments)
    torch.manual_seed(0)
    lesson, clean = photographs()
    model = KernelPrediction()
    start = time.perf_counter()
    train(model, lesson, options.steps, options.noise)
    print(f"{options.steps} steps: {time.perf_counter() - start:.1f} s")
    noisy = clean + options.noise * torch.randn_like(clean)
    with torch.no_grad():
        predicted = model(noisy[None])[0]
    # The Gaussian may choose its width with the clean picture at hand.
    blurred = max((gaussian(noisy, sigma / 10) for sigma in range(4, 16)), key=lambda p: psnr(p, clean))
    pictures = {"noisy": noisy, "one Gaussian": blurred, "predicted kernels": predicted}
    for name, picture in pictures.items():
        print(f"{name:18} {psnr(picture, clean):5.2f} dB")
    ours, theirs = step_time(lambda *both: local_filter2d(*both, TAPS, padding=TAPS // 2)), step_time(by_unfold)
    times = f"{ours * 1e3:.1f} ms, by unfold {theirs * 1e3:.1f} ms"
    print(f"a step of the filters: {times}, {theirs / ours:.1f} times as long")
    draw(pictures, clean, options.output)
    print(f"written: {options.output}")
    return 0


def draw(pictures: dict[str, Tensor], clean: Tensor, path: Path) -> None:
    """Draw the pictures side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(pictures), figsize=(15, 4))
    for axis, (name, picture) in zip(axes, pictures.items(), strict=True):
        axis.imshow(picture.clamp(0, 1).permute(1, 2, 0))
        axis.set_title(f"{name}: {psnr(picture, clean):.2f} dB")
        axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    sys.exit(main())
