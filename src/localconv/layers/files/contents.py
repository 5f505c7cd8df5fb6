"""What is in a file of weights or of a model, told without making the model or reading the weights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from os import PathLike
from typing import Any, NamedTuple

from ..arguments import as_path
from . import hdf5, npz
from .stored import Refused, StoredLayer, opened, reading

SUFFIXES = (".keras", ".h5", ".hdf5", ".npz")
# Models whose configs list their layers.
OF_LAYERS = ("Sequential", "Functional", "Model")
# Models inside models: of Python's calls, and of lines that are read.
DEEPEST = 100


class Described(NamedTuple):
    """A layer as a config describes it, and those inside it if it is a model."""

    name: str
    kind: str
    mode: str | None
    inner: list[Described]


def contents_of(filepath: str | PathLike[str]) -> dict[str, Any]:
    """What a file holds, as JSON can hold it.

    Parameters
    ----------
    filepath : path
        What `Sequential.save` or `Sequential.save_weights` wrote, or Keras: .keras, .h5, .weights.h5, .npz.

    Returns
    -------
    dict
        file, bytes; model: None, or a dict of class and name; layers: a list of dicts of name, class (None where the
        file does not say), quantization_mode (if there is one) and weights, a list of dicts of name, shape, dtype and
        bytes; parameters and weight_bytes: of all of them together.

    Raises
    ------
    ValueError
        If the file is damaged, is none of those, or refers to other files.
    OSError
        If there is no such file, or it may not be read.
    ImportError
        If h5py is needed and missing.

    Notes
    -----
    The file may be anybody's, as for `load_model`, with the same limits: SECURITY.md has them. Layers need not be those
    of this package.
    """
    path = as_path(filepath, "filepath")
    with opened(path) as file:
        size = file.seek(0, 2)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"filepath must end in one of {', '.join(SUFFIXES)}, got {str(path)!r}")
    if path.suffix.lower() == ".npz":
        with npz.stored_layers(path) as stored:
            model, rows = None, [_row(layer.name, None, layer) for layer in stored]
    else:
        with hdf5.opened_hdf5(path) as file:
            model, described = _described(file) if file.has_config else (None, [])
            rows = list(_rows(file, described))
    weights = [weight for row in rows for weight in row["weights"]]
    totals = {
        "parameters": sum(prod(weight["shape"]) for weight in weights),
        "weight_bytes": sum(weight["bytes"] for weight in weights),
    }
    return {"file": str(path), "bytes": size, "model": model, "layers": rows} | totals


def _described(file: hdf5.ModelFile) -> tuple[dict[str, Any], list[Described]]:
    text = file.config()
    with reading(file.path, "describes a model in no way that is known"):
        content = json.loads(text)
        config = content["config"]
        if isinstance(config, list):
            layers = config
        elif content["class_name"] in OF_LAYERS:
            layers = config["layers"]
        else:  # somebody's own class, which may say nothing of its layers
            layers = config.get("layers", [])
        name = None if isinstance(config, list) else config.get("name")
        model = {"class": _text(content["class_name"]), "name": None if name is None else _text(name)}
        return model, [_layer(entry) for entry in layers if entry["class_name"] != "InputLayer"]


def _layer(entry: Mapping[str, Any], depth: int = 0) -> Described:
    if depth > DEEPEST:
        raise Refused(f"describes models inside each other, more than {DEEPEST} deep")
    config = entry["config"]
    inner = config.get("layers")
    layers = inner if isinstance(inner, list) else []
    return Described(
        _text(config.get("name", entry.get("name", ""))),
        _text(entry["class_name"]),
        config.get("quantization_mode") if isinstance(config.get("quantization_mode"), str) else None,
        [_layer(one, depth + 1) for one in layers if one["class_name"] != "InputLayer"],
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Refused("describes a layer without a name or a class")
    return value


def _rows(file: hdf5.ModelFile, described: list[Described]) -> Iterator[dict[str, Any]]:
    """The layers in a file of HDF5, in the order of the config if there is one, and what it does not name behind."""
    stored = {layer.name: layer for layer in file.listed()}
    if file.is_newer:
        for name, place, layer in _places(described, stored):
            yield _row(name, layer, stored.pop(place, None))
    else:
        for layer in described:
            yield _row(layer.name, layer, stored.pop(layer.name, None))
    for more in stored.values():
        if more.weights or not described:
            yield _row(more.name, None, more)


def _places(
    described: list[Described], stored: Mapping[str | None, StoredLayer], above: str = "", path: str = ""
) -> Iterator[tuple[str, str, Described]]:
    """Names of layers, and what the newer layout calls them: Keras 2 by their class and number, later ones by name."""
    seen = Counter[str]()
    for layer in described:
        key = hdf5.newer_key(layer.kind, seen)
        if f"{path}{key}" not in stored and f"{path}{layer.name}" in stored:
            key = layer.name
        yield above + layer.name, path + key, layer
        yield from _places(layer.inner, stored, f"{above}{layer.name}/", f"{path}{key}/")


def _row(name: str | None, described: Described | None, stored: StoredLayer | None) -> dict[str, Any]:
    weights = (
        []
        if stored is None
        else [
            {
                "name": array.name.removeprefix(f"{stored.name}/"),
                "shape": list(array.shape),
                "dtype": array.dtype.name,
                "bytes": prod(array.shape) * array.dtype.itemsize,
            }
            for array in stored.weights
        ]
    )
    mode = {} if described is None or described.mode is None else {"quantization_mode": described.mode}
    return {"name": name, "class": None if described is None else described.kind} | mode | {"weights": weights}
