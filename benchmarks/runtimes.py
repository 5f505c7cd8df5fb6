"""One model in every runtime that it can leave for: ``python benchmarks/runtimes.py``, the table of docs/deploying.md.

The model is a small DeepFace: a convolution, two locally connected layers, a dense one. Every runtime writes its file
in a process of its own, and opens and runs it in another, which is never without it; they take turns. A runtime that is
not installed is left out by name. ``--python litert=/path/to/python`` names the interpreter that has one, by the name
of the table's row; localconv must be importable there too.

Columns: the file's size; milliseconds of a call with one image (the median of alternating rounds, and the fastest);
the largest difference from NumPy's layers, as a part of the largest value; and by how much the process grew, at its
peak, from its imports to the second call, over the weights. Linux only.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], Any]

SIZE = (64, 64, 3)
# Filters, kernel size and strides of the locally connected layers.
LOCAL = ((16, 5, 1), (16, 3, 2))
CLASSES = 10


@dataclass(frozen=True)
class Runtime:
    """write: a file of the weights; open: what runs it; needs: the modules of both; package: whose version counts."""

    title: str
    package: str
    suffix: str
    needs: tuple[str, ...]
    write: Callable[[Path], None]
    open: Callable[[Path], Run]


# ----------------------------------------------------------------------------------------------------------- the model


def numpy_model() -> Any:
    """The model in NumPy's layers, with the same weights every time."""
    from localconv import layers

    model = layers.Sequential(
        [
            layers.Conv2D(16, 5, activation="relu", input_shape=SIZE),
            layers.MaxPooling2D(),
            *(layers.LocallyConnected2D(f, k, strides=s, activation="relu") for f, k, s in LOCAL),
            layers.Flatten(),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(w.shape, np.float32) for w in model.get_weights()]
    # Of a matrix for each position the rows count, of others all axes but the filters.
    depths = [w.shape[1] if w.ndim == 3 else math.prod(w.shape[:-1]) for w in weights]
    model.set_weights([w / np.float32(math.sqrt(depth)) for w, depth in zip(weights, depths, strict=True)])
    return model


def torch_model() -> Any:
    """The same in PyTorch; for images with their channels first."""
    import torch
    from torch import nn

    from localconv.torch import LocalConv2d

    size, local = (SIZE[0] - 4) // 2, []
    for filters, kernel, stride in LOCAL:
        local += [LocalConv2d(16, filters, kernel, size, stride), nn.ReLU()]
        size = (size - kernel) // stride + 1
    dense = nn.Linear(size * size * LOCAL[-1][0], CLASSES)
    model = nn.Sequential(
        nn.Conv2d(SIZE[2], 16, 5), nn.ReLU(), nn.MaxPool2d(2), *local, nn.Flatten(), dense, nn.Softmax(-1)
    )
    conv, bias, *others, kernel, shift = map(torch.from_numpy, numpy_model().get_weights())
    # Pixels are flattened with their channels last there, and first here.
    kernel = kernel.reshape(size, size, -1, CLASSES).permute(3, 2, 0, 1).flatten(1)
    ready = [conv.permute(3, 2, 0, 1), bias, *others, kernel, shift]
    ready[3:-2:2] = [terms.movedim(-1, 0) for terms in ready[3:-2:2]]
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), ready, strict=True):
            parameter.copy_(value)
    return model.requires_grad_(False).eval()


def keras_model() -> Any:
    """The same in Keras."""
    import keras

    from localconv.keras import LocallyConnected2D

    model = keras.Sequential(
        [
            keras.Input(SIZE),
            keras.layers.Conv2D(16, 5, activation="relu"),
            keras.layers.MaxPooling2D(),
            *(LocallyConnected2D(f, k, strides=s, activation="relu") for f, k, s in LOCAL),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    model.set_weights(numpy_model().get_weights())
    return model


def image(seed: int = 1) -> np.ndarray:
    """One image, channels last."""
    return np.random.default_rng(seed).random((1, *SIZE), np.float32)


def first(x: np.ndarray) -> np.ndarray:
    """The image with its channels first."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def example() -> Any:
    """What PyTorch's programs are traced with."""
    import torch

    return (torch.from_numpy(first(image())),)


# -------------------------------------------------------------------------------------------------------- the runtimes


def program(portable: bool) -> Any:
    """A program of torch.export: of PyTorch's operators, or of localconv's."""
    import contextlib

    import torch

    import localconv.torch

    with localconv.torch.portable() if portable else contextlib.nullcontext():
        return torch.export.export(torch_model(), example())


def in_torch(call: Any) -> Run:
    """A module or program as a function of arrays."""
    import torch

    def run(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return call(torch.from_numpy(first(x))).numpy()

    return run


def write_numpy(file: Path) -> None:
    numpy_model().save(file)


def open_numpy(file: Path) -> Run:
    from localconv import layers

    return layers.load_model(file)


def write_torch(file: Path) -> None:
    import torch

    torch.save(torch_model(), file)


def open_torch(file: Path) -> Run:
    import torch

    return in_torch(torch.load(file, weights_only=False))


def write_keras(file: Path) -> None:
    keras_model().save(file)


def open_keras(file: Path) -> Run:
    import keras

    import localconv.keras  # noqa: F401  # registers the layers

    return keras.models.load_model(file).predict_on_batch


def write_onnx(file: Path) -> None:
    numpy_model().export(file)


def write_torch_onnx(file: Path) -> None:
    import torch

    torch.onnx.export(torch_model(), example(), file, dynamo=True, verbose=False, external_data=False)


def open_onnx(file: Path, channels_first: bool = False) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(file)
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: first(x) if channels_first else x})[0]


def write_openvino(file: Path) -> None:
    import openvino

    openvino.save_model(openvino.convert_model(program(True)), file, compress_to_fp16=False)


def open_openvino(file: Path) -> Run:
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda x: compiled(first(x))[0]


def write_executorch(file: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(program(True), partitioner=[XnnpackPartitioner()])
    file.write_bytes(lowered.to_executorch().buffer)


def open_executorch(file: Path) -> Run:
    import torch
    from executorch.runtime import Runtime as ExecuTorch

    loaded = ExecuTorch.get().load_program(file)
    method = loaded.load_method("forward")
    return lambda x, keep=loaded: method.execute([torch.from_numpy(first(x))])[0].numpy()


def write_litert(file: Path) -> None:
    import litert_torch

    import localconv.torch

    with localconv.torch.portable():
        litert_torch.convert(torch_model(), example()).export(str(file))


def write_keras_litert(file: Path) -> None:
    keras_model().export(file, format="litert", verbose=False)


def open_litert(file: Path, channels_first: bool = False) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(str(file), num_threads=os.cpu_count())
    model.allocate_tensors()
    (into,), (out,) = model.get_input_details(), model.get_output_details()

    def run(x: np.ndarray) -> np.ndarray:
        model.set_tensor(into["index"], first(x) if channels_first else x)
        model.invoke()
        return model.get_tensor(out["index"])

    return run


def write_program(file: Path, portable: bool) -> None:
    import torch

    torch.export.save(program(portable), file)


def open_program(file: Path) -> Run:
    import torch

    import localconv.torch  # noqa: F401  # the operators

    return in_torch(torch.export.load(file).module())


def write_inductor(file: Path, portable: bool) -> None:
    import torch._inductor

    torch._inductor.aoti_compile_and_package(program(portable), package_path=str(file))


def open_inductor(file: Path) -> Run:
    import torch._inductor

    import localconv.torch  # noqa: F401  # the operators

    return in_torch(torch._inductor.aoti_load_package(str(file)))


def jax_model() -> Any:
    """The same as a function of JAX, the weights constants of it."""
    import jax
    import jax.numpy as jnp

    import localconv.jax

    conv, bias, *local, kernel, shift = numpy_model().get_weights()

    def model(x: Any) -> Any:
        x = jax.lax.conv_general_dilated(x, conv, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + bias)
        x = x.reshape(-1, x.shape[1] // 2, 2, x.shape[2] // 2, 2, x.shape[3]).max((2, 4))
        for (_, size, strides), rows, terms in zip(LOCAL, local[::2], local[1::2], strict=True):
            x = jax.nn.relu(localconv.jax.local_conv2d(x, jnp.asarray(rows), (size, size), (strides,) * 2, bias=terms))
        return jax.nn.softmax(x.reshape(x.shape[0], -1) @ kernel + shift)

    return model


def write_jax(file: Path) -> None:
    import jax
    import jax.export

    import localconv.jax

    checks = [jax.export.DisabledSafetyCheck.custom_call(name) for name in localconv.jax.TARGETS.values()]
    exported = jax.export.export(jax.jit(jax_model()), disabled_checks=checks)
    file.write_bytes(exported(jax.ShapeDtypeStruct((1, *SIZE), np.float32)).serialize())


def open_jax(file: Path) -> Run:
    import jax
    import jax.export

    import localconv.jax

    localconv.jax.register()
    call = jax.jit(jax.export.deserialize(bytearray(file.read_bytes())).call)
    return lambda x: np.asarray(call(x))


OF_TORCH = ("torch", "localconv.torch")
RUNTIMES = {
    "numpy": Runtime(
        "`localconv.layers`, NumPy", "numpy", "keras", ("h5py", "localconv.layers"), write_numpy, open_numpy
    ),
    "torch": Runtime("`localconv.torch`", "torch", "pt", OF_TORCH, write_torch, open_torch),
    "keras": Runtime("`localconv.keras`", "keras", "keras", ("keras", "localconv.keras"), write_keras, open_keras),
    "onnx": Runtime(
        "ONNX Runtime, of `Sequential.export`", "onnxruntime", "onnx", ("onnxruntime", "onnx"), write_onnx, open_onnx
    ),
    "torch-onnx": Runtime(
        "ONNX Runtime, of `torch.onnx.export`",
        "onnxruntime",
        "onnx",
        ("onnxruntime", "onnxscript", "torch"),
        write_torch_onnx,
        partial(open_onnx, channels_first=True),
    ),
    "openvino": Runtime("OpenVINO", "openvino", "xml", ("openvino", "torch"), write_openvino, open_openvino),
    "executorch": Runtime(
        "ExecuTorch, XNNPACK", "executorch", "pte", ("executorch.runtime", "torch"), write_executorch, open_executorch
    ),
    "litert": Runtime(
        "LiteRT, of litert-torch",
        "ai-edge-litert",
        "tflite",
        ("ai_edge_litert.interpreter", "torch"),
        write_litert,
        partial(open_litert, channels_first=True),
    ),
    "keras-litert": Runtime(
        "LiteRT, of Keras",
        "ai-edge-litert",
        "tflite",
        ("ai_edge_litert.interpreter", "keras"),
        write_keras_litert,
        open_litert,
    ),
    **{
        f"{name}{'-portable' if portable else ''}": Runtime(
            f"{title}, {'portable' if portable else 'compiled kernels'}",
            "torch",
            "pt2",
            OF_TORCH,
            partial(write, portable=portable),
            opened,
        )
        for name, title, write, opened in (
            ("pt2", "`torch.export`", write_program, open_program),
            ("aoti", "AOTInductor", write_inductor, open_inductor),
        )
        for portable in (False, True)
    },
    "jax": Runtime("`jax.export`", "jax", "bin", ("jax", "localconv.jax"), write_jax, open_jax),
}


# ---------------------------------------------------------------------------------------------------------- processes


def memory(field: str) -> int:
    """Bytes of this process, by their name in Linux's table."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def serve(runtime: Runtime, file: Path) -> None:
    """Open a file, print what there is to know, and then the seconds of a call for every line that is read."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever libraries print
    for name in runtime.needs:
        importlib.import_module(name)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins here
    run, x = runtime.open(file), image()
    run(x)
    result = np.asarray(run(x))
    grown = memory("VmHWM") - before
    print(json.dumps({"version": version(runtime.package), "grown": grown, "y": result.tolist()}), file=answers)
    for line in sys.stdin:
        count = int(line)
        run(x)
        start = time.perf_counter()
        for _ in range(count):
            run(x)
        print((time.perf_counter() - start) / count, file=answers)


class Process:
    """A runtime with the file that it has open."""

    def __init__(self, name: str, python: str, folder: Path) -> None:
        self.runtime = RUNTIMES[name]
        file = folder / name / f"model.{self.runtime.suffix}"
        file.parent.mkdir()
        command = [python, __file__, "--part", name, str(file)]
        done = subprocess.run([*command, "--write"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        self.size = sum(part.stat().st_size for part in file.parent.iterdir())
        pipe, self.errors = subprocess.PIPE, folder / f"{name}.txt"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True)
        self.facts = json.loads(self._answer())
        self.seconds: list[float] = []

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.errors.read_text().strip().splitlines()[-1])
        return line

    def call(self, count: int) -> None:
        """Time some calls."""
        assert self.process.stdin is not None
        print(count, file=self.process.stdin, flush=True)
        self.seconds.append(float(self._answer()))


def started(names: list[str], pythons: dict[str, str], folder: Path) -> list[Process]:
    """The runtimes that are there; the others are named."""
    processes = []
    for name in names:
        try:
            processes.append(Process(name, pythons.get(name, sys.executable), folder))
        except RuntimeError as error:
            print(f"{name}: left out: {error}", file=sys.stderr)
    return processes


def table(processes: list[Process]) -> None:
    """Print what was measured, in Markdown."""
    weights, exact = sum(w.nbytes for w in numpy_model().get_weights()), np.asarray(numpy_model()(image()))
    print(f"\nWeights of {weights / 1e6:.1f} MB.\n")
    print("| runtime | version | file, MB | ms a call | fastest | difference | memory over weights |")
    print("|---|---|---|---|---|---|---|")
    for process in processes:
        facts, times = process.facts, process.seconds
        difference = np.abs(np.asarray(facts["y"]) - exact).max() / exact.max()
        print(
            f"| {process.runtime.title} | {facts['version']} | {process.size / 1e6:.1f} | {median(times) * 1e3:.2f} "
            f"| {min(times) * 1e3:.2f} | {difference:.0e} | {facts['grown'] / weights:.1f} |"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=RUNTIMES, default=list(RUNTIMES), help="some of the runtimes")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH", help="whose interpreter that is")
    parser.add_argument("--rounds", type=int, default=25, help="default: %(default)s")
    parser.add_argument("--calls", type=int, default=5, help="of a round; default: %(default)s")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        runtime, file = RUNTIMES[options.part[0]], Path(options.part[1])
        runtime.write(file) if options.write else serve(runtime, file)
        return
    with tempfile.TemporaryDirectory() as folder:
        processes = started(options.only, dict(given.split("=", 1) for given in options.python), Path(folder))
        for _ in range(options.rounds):
            for process in processes:
                time.sleep(0.02)
                process.call(options.calls)
        for process in processes:
            process.process.terminate()
    table(processes)


if __name__ == "__main__":
    main()
