"""Runs exported models in one process that has no localconv."""

import subprocess
import sys
from pathlib import Path

import numpy as np

# What runs a file of each suffix: a function of its path and inputs that returns outputs.
RUNNERS = {
    ".onnx": """
import onnxruntime
def run(path, inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip([i.name for i in session.get_inputs()], inputs, strict=True)))
""",
    ".saved_model": """
import tensorflow as tf
def run(path, inputs):
    model = tf.saved_model.load(path)
    outputs = model.serve(inputs if len(inputs) > 1 else inputs[0])
    return [y.numpy() for y in (outputs if isinstance(outputs, list) else [outputs])]
""",
    ".tflite": """
import tensorflow as tf
def run(path, inputs):
    model = tf.lite.Interpreter(path)
    for detail, x in zip(model.get_input_details(), inputs, strict=True):
        model.resize_tensor_input(detail["index"], x.shape)
    model.allocate_tensors()
    for detail, x in zip(model.get_input_details(), inputs, strict=True):
        model.set_tensor(detail["index"], x)
    model.invoke()
    return [model.get_tensor(detail["index"]) for detail in model.get_output_details()]
""",
    ".pt2": """
import torch
def run(path, inputs):
    outputs = torch.export.load(path).module()(*map(torch.tensor, inputs))
    return [y.detach().numpy() for y in (outputs if isinstance(outputs, (list, tuple)) else [outputs])]
""",
}

LOOP = """
import sys, pathlib
import numpy as np
sys.modules["localconv"] = None  # whoever imports it fails
for path in map(pathlib.Path, sys.argv[1:]):
    with np.load(path.with_suffix(".inputs.npz")) as file:
        inputs = [file[name] for name in file.files]
    np.savez(path.with_suffix(".outputs.npz"), *run(str(path), inputs))
"""


def save_inputs(path, *inputs):
    """Put beside a model's file what it is to be run with."""
    np.savez(Path(path).with_suffix(".inputs.npz"), *inputs)


def run_exported(folder, suffix):
    """The outputs of all models of a suffix in a folder, lists of arrays by the files' stems."""
    paths = sorted(Path(folder).glob(f"*{suffix}"))
    command = [sys.executable, "-I", "-c", RUNNERS[suffix] + LOOP, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    found = {}
    for path in paths:
        with np.load(path.with_suffix(".outputs.npz")) as file:
            found[path.stem] = [file[name] for name in file.files]
    return found


def assert_same(found, expected, of_largest=1e-5):
    """The same shape and, but for so much of the largest, the same values."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=0, atol=of_largest * np.abs(expected).max())
