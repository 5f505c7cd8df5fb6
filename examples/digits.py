"""Train a network with a locally connected layer to read handwritten digits, in NumPy alone.

A convolution finds strokes, a locally connected layer looks for other things at every place (the digits are centred, so
places mean something), and a dense layer reads the answer off. The pictures are the 1797 real ones that come with
scikit-learn; every fifth of them, in random order, is held out and never trained on.

    python examples/digits.py
    python examples/digits.py --optimizer momentum --epochs 60 --seed 1 --output mine.png
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from localconv.layers import Conv2D, Dense, Dropout, Flatten, LocallyConnected2D, ProgressBar, Sequential, Variable
from localconv.layers.initializers import HeNormal

CLASSES = 10
STROKES = 5  # the filters whose looks are drawn


class InputError(Exception):
    """What the user gave cannot be used; the message is one line that says why."""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--epochs", type=int, default=30, help="times through the training pictures (default: %(default)s)"
    )
    parser.add_argument("--batch", type=int, default=32, help="pictures a step (default: %(default)s)")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam", help="default: %(default)s")
    parser.add_argument(
        "--rate", type=float, help="learning rate at the start; it falls to 0 (default: what suits the optimizer)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the split, the weights and the order (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("digits.png"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    for name in ("epochs", "batch", "rate"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            parser.error(f"--{name} must be above 0, got {value}")
    if options.seed < 0:
        parser.error(f"--seed must be at least 0, got {options.seed}")
    return options


def load(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return pictures (n, 8, 8, 1) from 0 to 1 and their digits: those to train on, then the held-out fifth."""
    try:
        import matplotlib  # noqa: F401  # for the drawing: better known before the training than behind it
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(f"{error.name} is missing; pip install '.[demo]' in the checkout brings it") from error
    digits = load_digits()
    order = rng.permutation(len(digits.target))
    pictures, target = (digits.images[order, :, :, None] / 16).astype(np.float32), digits.target[order]
    held_out = len(order) // 5
    return pictures[held_out:], target[held_out:], pictures[:held_out], target[:held_out]


def network(seed: int) -> Sequential:
    """Return the network."""
    return Sequential(
        [
            Conv2D(16, 3, activation="relu", kernel_initializer="he_normal", input_shape=(8, 8, 1), seed=seed),
            LocallyConnected2D(16, 3, activation="relu", kernel_initializer=HeNormal(fans="position"), seed=seed + 1),
            Flatten(),
            Dropout(0.4, seed=seed + 2),
            Dense(CLASSES, activation="softmax", seed=seed + 3),
        ],
        name="digits",
    )


class Momentum:
    """Gradient descent that keeps a part of its last step."""

    rate = 0.05

    def __init__(self, variables: list[Variable], keep: float = 0.9) -> None:
        self.variables, self.keep, self.steps = variables, keep, [np.zeros(v.shape, v.dtype) for v in variables]

    def step(self, rate: float) -> None:
        """Change every variable by its gradient."""
        for variable, step in zip(self.variables, self.steps, strict=True):
            step *= self.keep
            step -= rate * variable.grad
            variable.assign(variable.value + step)


class Adam:
    """Kingma and Ba (2014), algorithm 1."""

    rate = 0.002

    def __init__(
        self, variables: list[Variable], beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-7
    ) -> None:
        self.variables, self.beta1, self.beta2, self.epsilon, self.steps = variables, beta1, beta2, epsilon, 0
        self.moments = [(np.zeros(v.shape, v.dtype), np.zeros(v.shape, v.dtype)) for v in variables]

    def step(self, rate: float) -> None:
        """Change every variable by its gradient."""
        self.steps += 1
        rate *= (1 - self.beta2**self.steps) ** 0.5 / (1 - self.beta1**self.steps)
        for variable, (mean, square) in zip(self.variables, self.moments, strict=True):
            mean += (1 - self.beta1) * (variable.grad - mean)
            square += (1 - self.beta2) * (variable.grad**2 - square)
            variable.assign(variable.value - rate * mean / (np.sqrt(square) + self.epsilon))


OPTIMIZERS = {"adam": Adam, "momentum": Momentum}


def train_step(model: Sequential, optimizer: Adam | Momentum, x: np.ndarray, target: np.ndarray, rate: float) -> float:
    """Learn from one batch; return its cross-entropy."""
    probability = model(x, training=True)
    right = np.arange(len(x)), target
    loss = -np.log(np.maximum(probability[right], 1e-7)).mean()
    gradient = np.zeros_like(probability)
    gradient[right] = -1 / np.maximum(probability[right], 1e-7) / len(x)
    model.backward(gradient)
    optimizer.step(rate)
    model.apply_constraints()
    return float(loss)


def train(
    model: Sequential, data: tuple[np.ndarray, ...], options: argparse.Namespace, rng: np.random.Generator
) -> dict[str, list[float]]:
    """Train, and return loss and accuracies after each epoch."""
    x, target, held_x, held_target = data
    optimizer, steps = OPTIMIZERS[options.optimizer](model.trainable_weights), -(-len(x) // options.batch)
    start = options.rate or optimizer.rate
    bar = ProgressBar(options.epochs * steps, verbose="auto" if sys.stderr.isatty() else 2)
    curve: dict[str, list[float]] = {"loss": [], "trained": [], "held out": []}
    for epoch in range(options.epochs):
        order, loss = rng.permutation(len(x)), 0.0
        for step in range(steps):
            batch, done = order[step * options.batch :][: options.batch], epoch * steps + step
            rate = start * (0.5 + 0.5 * np.cos(np.pi * done / bar.total))
            loss += train_step(model, optimizer, x[batch], target[batch], rate) / steps
            note = f"held out {curve['held out'][-1]:.1%}" if epoch else ""
            bar.update(done + 1, note)
        curve["loss"].append(loss)
        curve["trained"].append(accuracy(model, x, target))
        curve["held out"].append(accuracy(model, held_x, held_target))
    return curve


def accuracy(model: Sequential, x: np.ndarray, target: np.ndarray) -> float:
    """Return the part of the pictures that the model reads right."""
    return float((model.predict(x, batch_size=512, verbose=0).argmax(1) == target).mean())


def looks(model: Sequential) -> np.ndarray:
    """Return what each filter of the locally connected layer looks for at each position, in pixels: (filters, 4, 4, 5,
    5).

    Both layers' kernels multiplied out, as if there were no relu between them.
    """
    shared, local = model.layers[0].kernel.numpy(), model.layers[1].kernel.numpy()
    (kh, kw, _, channels), (rows, columns) = shared.shape, model.layers[1].output_shape[1:3]
    local = local.reshape(rows, columns, kh, kw, channels, -1)
    seen = np.zeros((local.shape[-1], rows, columns, 2 * kh - 1, 2 * kw - 1), np.float32)
    for i, j in np.ndindex(kh, kw):
        seen[..., i : i + kh, j : j + kw] += np.einsum("uvc,pqcf->fpquv", shared[:, :, 0], local[:, :, i, j])
    return seen


def mosaic(seen: np.ndarray) -> np.ndarray:
    """Return one filter's looks at all positions as one picture, a line of nothing between positions."""
    framed = np.pad(seen, [(0, 0), (0, 0), (0, 1), (0, 1)], constant_values=np.nan)
    rows, columns, height, width = framed.shape
    return framed.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)[:-1, :-1]


def draw(model: Sequential, curve: dict[str, list[float]], output: Path) -> None:
    """Write the learning curve and the filters at each position to a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(12, 6.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    axes, epochs = upper.subplots(1, 2), range(1, len(curve["loss"]) + 1)
    axes[0].semilogy(epochs, curve["loss"], color="tab:gray")
    axes[0].set(title="cross-entropy while training", xlabel="epoch")
    for name, colour in (("trained", "tab:gray"), ("held out", "tab:blue")):
        axes[1].plot(
            epochs,
            [100 * (1 - part) for part in curve[name]],
            color=colour,
            label=f"{name}: {curve[name][-1]:.1%} right",
        )
    axes[1].set(title="pictures read wrong, %", xlabel="epoch", ylim=(0, 12))
    axes[1].legend()
    seen = looks(model)
    strongest = np.argsort(-np.square(seen).sum((1, 2, 3, 4)))[:STROKES]
    lower.suptitle(
        "what five of the locally connected filters look for at each of their 4 x 4 positions (blue: ink, red: none)"
    )
    for panel, number in zip(lower.subplots(1, STROKES), strongest, strict=True):
        limit = np.abs(seen[number]).max()
        panel.imshow(mosaic(seen[number]), cmap="RdBu", vmin=-limit, vmax=limit)
        panel.set(title=f"filter {number}", xticks=[], yticks=[])
    figure.savefig(output, dpi=110)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; return the exit status."""
    options = parse(arguments)
    rng = np.random.default_rng(options.seed)
    try:
        if not options.output.absolute().parent.is_dir():
            raise InputError(f"cannot write {options.output}: no such directory")
        data = load(rng)
    except InputError as error:
        print(f"digits.py: {error}", file=sys.stderr)
        return 2
    model = network(options.seed)
    model.summary()
    print(f"pictures            {len(data[0])} to train on, {len(data[2])} held out")
    start = time.perf_counter()
    curve = train(model, data, options, rng)
    print(f"trained in          {time.perf_counter() - start:.1f} s, {options.epochs} epochs")
    print(
        f"read right          {curve['held out'][-1]:.2%} of the held-out pictures, {curve['trained'][-1]:.2%} of the "
        "others"
    )
    draw(model, curve, options.output)
    print(f"written             {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
