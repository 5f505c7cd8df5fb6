"""Read handwritten digits with a transformer block whose attention looks at the neighbourhood of every pixel.

Scores are `local_correlation2d` of keys and queries, values are summed by `local_filter2d`; heads are groups, and
windows at the border are moved until they lie inside. Dense attention with a mask gives the same numbers; both are
timed at a larger size, where the scores of the dense one need the square of the pixels in memory. The pictures are
the 1797 real ones that come with scikit-learn; every fifth is held out.

    python examples/neighborhood_attention.py
    python examples/neighborhood_attention.py --epochs 30 --seed 1
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from localconv.torch import local_correlation2d, local_filter2d

SIZE, HEADS, CHANNELS = 5, 4, 32


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the split and the weights (default: %(default)s)")
    return parser.parse_args(arguments)


def by_neighborhood(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return attention (N, C, H, W) over the window of every pixel."""
    n, channels, height, width = queries.shape
    scale = (channels // HEADS) ** -0.5
    scores = local_correlation2d(keys, scale * queries, SIZE, padding="inside", groups=HEADS)
    weights = scores.view(n, HEADS, SIZE**2, height, width).softmax(2).flatten(1, 2)
    return local_filter2d(values, weights, SIZE, padding="inside", groups=HEADS)


def by_mask(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return the same by dense attention, in which a mask leaves every pixel its window."""
    n, channels, height, width = queries.shape
    rows, columns = (starts(length) for length in (height, width))
    near = [
        (at[:, None] <= torch.arange(len(at))) & (torch.arange(len(at)) < at[:, None] + SIZE) for at in (rows, columns)
    ]
    mask = (near[0][:, None, :, None] & near[1][None, :, None, :]).reshape(height * width, height * width)
    by_head = [t.reshape(n, HEADS, channels // HEADS, -1).transpose(2, 3) for t in (queries, keys, values)]
    result = nn.functional.scaled_dot_product_attention(*by_head, attn_mask=mask)
    return result.transpose(2, 3).reshape(queries.shape)


def starts(length: int) -> Tensor:
    """Return the first pixel of every pixel's window along an axis."""
    return (torch.arange(length) - SIZE // 2).clamp(0, length - SIZE)


class Block(nn.Module):
    """A transformer block on pictures (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(1, channels) for _ in range(2)])
        self.projection = nn.Conv2d(channels, 3 * channels, 1)
        self.output = nn.Conv2d(channels, channels, 1)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1), nn.GELU(), nn.Conv2d(2 * channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return what the block makes of pictures."""
        x = x + self.output(by_neighborhood(*self.projection(self.norms[0](x)).chunk(3, 1)))
        return x + self.layers(self.norms[1](x))


def load(seed: int) -> tuple[Tensor, ...]:
    """Return pictures and digits to train on, and those held out."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(seed))
    pictures, target = torch.from_numpy(digits.images).float()[order, None] / 16, torch.from_numpy(digits.target)[order]
    held_out = len(order) // 5
    return pictures[held_out:], target[held_out:], pictures[:held_out], target[:held_out]


def train(model: nn.Module, x: Tensor, target: Tensor, epochs: int) -> None:
    """Train by Adam on shuffled batches of 64."""
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), target[batch]).backward()
            optimizer.step()


def milliseconds(function: Callable[..., Tensor], tensors: list[Tensor]) -> float:
    """Return what attention and its gradients take, a median."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        function(*tensors).sum().backward()
        times.append(time.perf_counter() - start)
    return 1e3 * median(times)


def main(arguments: list[str] | None = None) -> int:
    """Train, test, compare with dense attention; return the exit status."""
    options = parse(arguments)
    torch.manual_seed(options.seed)
    x, target, held_out, answers = load(options.seed)
    model = nn.Sequential(
        nn.Conv2d(1, CHANNELS, 3, padding=1), Block(CHANNELS), nn.Flatten(), nn.Linear(CHANNELS * 64, 10)
    )
    start = time.perf_counter()
    train(model, x, target, options.epochs)
    with torch.no_grad():
        right = (model(held_out).argmax(1) == answers).float().mean()
    print(f"{options.epochs} epochs: {time.perf_counter() - start:.1f} s, {right:.1%} of held out digits right")
    tensors = [torch.randn(1, CHANNELS, 48, 48, requires_grad=True) for _ in range(3)]
    torch.testing.assert_close(by_neighborhood(*tensors), by_mask(*tensors), rtol=1e-4, atol=1e-5)
    ours, dense = (milliseconds(function, tensors) for function in (by_neighborhood, by_mask))
    pixels = tensors[0][0, 0].numel()
    print(f"48 x 48 pixels, forward and backward: {ours:.1f} ms, dense with a mask {dense:.1f} ms, the same numbers")
    print(f"scores: {HEADS * SIZE**2 * pixels * 4 / 2**20:.1f} MiB, dense {HEADS * pixels**2 * 4 / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
