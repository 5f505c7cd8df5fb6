"""Train two small networks in PyTorch to read handwritten digits: with a locally connected layer, and without.

Both begin with a convolution. One goes on with a `LocalConv2d`, whose filters differ from place to place, the other
with a convolution wide enough for about as many parameters. The pictures are the 1797 real ones that come with
scikit-learn; every fifth is held out. A training step of the locally connected layer is timed against the same layer
in torch's own operations, and its filters are drawn position by position.

    python examples/torch_digits.py
    python examples/torch_digits.py --epochs 40 --seed 1 --output mine.png
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import torch
from torch import nn

from localconv.torch import LocalConv2d


class Unfolded(nn.Module):
    """The locally connected layer in torch's own operations, with the parameters of another."""

    def __init__(self, layer: LocalConv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the layer returns, by unfold and bmm."""
        kh, kw = self.layer.kernel_size
        windows = x.unfold(2, kh, 1).unfold(3, kw, 1).permute(2, 3, 0, 4, 5, 1)
        rows = windows.reshape(self.layer.weight.shape[0], len(x), -1)
        y = torch.bmm(rows, self.layer.weight).permute(1, 2, 0)
        return y.reshape(len(x), -1, *self.layer.output_size) + self.layer.bias


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the split and the weights (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("torch_digits.png"), help="default: %(default)s")
    return parser.parse_args(arguments)


def load(seed: int) -> tuple[torch.Tensor, ...]:
    """Return pictures and digits to train on, and those held out."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(seed))
    pictures = torch.from_numpy(digits.images).float()[order, None] / 16
    target = torch.from_numpy(digits.target)[order]
    held_out = len(order) // 5
    return pictures[held_out:], target[held_out:], pictures[:held_out], target[:held_out]


def network(local: bool) -> nn.Sequential:
    """Return a network; the second layer is locally connected or a wider convolution."""
    wider = [nn.Conv2d(8, 128, 3), nn.ReLU(), nn.Conv2d(128, 8, 1)]
    second: list[nn.Module] = [LocalConv2d(8, 8, 3, 6)] if local else wider
    head = [nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(8 * 4 * 4, 10)]
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), *second, *head)


def train(model: nn.Sequential, x: torch.Tensor, target: torch.Tensor, epochs: int, seed: int) -> None:
    """Train by Adam on shuffled batches of 32."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), target[batch]).backward()
            optimizer.step()
    model.eval()


def step_time(layers: list[nn.Module], x: torch.Tensor) -> list[float]:
    """Return milliseconds of forward and backward of each layer, in turn, medians."""
    times: list[list[float]] = [[] for _ in layers]
    for _ in range(60):
        for layer, taken in zip(layers, times, strict=True):
            given = x.detach().requires_grad_()
            start = time.perf_counter()
            layer(given).square().sum().backward()
            taken.append(1e3 * (time.perf_counter() - start))
    return [median(taken[10:]) for taken in times]


def draw(layer: LocalConv2d, path: Path) -> None:
    """Draw one filter of the layer at all of its positions, averaged over the channels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows, columns = layer.output_size
    taps = layer.weight.detach().reshape(rows, columns, *layer.kernel_size, layer.in_channels, -1).mean(-2)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5, 5))
    limit = float(taps[..., 0].abs().max())
    for row in range(rows):
        for column in range(columns):
            axis = axes[row][column]
            axis.imshow(taps[row, column, :, :, 0], cmap="RdBu", vmin=-limit, vmax=limit)
            axis.set_axis_off()
    figure.suptitle("One filter, position by position")
    figure.savefig(path, dpi=100)


def main(arguments: list[str] | None = None) -> int:
    """Train, compare, draw; return the exit status."""
    options = parse(arguments)
    x, target, test, answers = load(options.seed)
    for local in (True, False):
        torch.manual_seed(options.seed)
        model = network(local)
        start = time.perf_counter()
        train(model, x, target, options.epochs, options.seed)
        taken = time.perf_counter() - start
        with torch.no_grad():
            accuracy = (model(test).argmax(1) == answers).float().mean().item()
        parameters = sum(p.numel() for p in model.parameters())
        name = "locally connected" if local else "convolutions alone"
        print(f"{name:20} {parameters:6} parameters, {100 * accuracy:5.1f} % of {len(test)} held out, {taken:.1f} s")
        if local:
            chosen = model[2]
            if accuracy < 0.9:
                print("torch_digits.py: less than 90 % right: something is broken", file=sys.stderr)
                return 1
    ours, theirs = step_time([chosen, Unfolded(chosen)], torch.randn(32, 8, 6, 6))
    print(f"a step of the local layer: {ours:.3f} ms, by unfold and bmm {theirs:.3f} ms")
    draw(chosen, options.output)
    print(f"written: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
