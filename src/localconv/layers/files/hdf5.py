"""Weights and models in HDF5, in the layouts of Keras 2.

There are two. The older, .h5: a group for each layer, whose attribute weight_names lists the datasets in it, and the
names of the groups in the attribute layer_names; a whole model has all that under ``model_weights``, and its config in
the attribute model_config. The newer, .weights.h5 and the archive .keras around it: ``layers/NAME/vars/0``, where the
name is that of the layer's class, numbered, and not the layer's own; the config is a file of its own in the archive.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ...core.arrays import Array
from ..arguments import shown
from ..naming import snake_case
from . import archive
from .hdf5_datasets import Dataset, Survey, h5py
from .hdf5_names import MODEL_WEIGHTS, TOP_LEVEL, Place, Places, in_order
from .hdf5_strings import Strings
from .stored import (
    BY_KERAS_2,
    JSON_LIMIT,
    MOST_PARTS,
    WEIGHTS_ONLY,
    NameLimit,
    Refused,
    Source,
    StoredLayer,
    has_too_many_parts,
    limit_of,
    opened,
    reading,
)

# What files say that wrote them: Keras decides by it how to read them, and the layout is that of this version.
KERAS_VERSION = "2.15.0"
BACKEND = "tensorflow"

# HDF5 keeps the attributes of a group in a header of 64 KiB; longer lists are cut into NAME0, NAME1, ...
ATTRIBUTE_LIMIT = 64512

# The members of a .keras.
WEIGHTS = "model.weights.h5"
CONFIG = "config.json"

METADATA = "metadata.json"

SHORT_TEXT = 1024

# Of a file that is one of HDF5; a continuation of its path.
NO_LAYERS = "is an HDF5 file, but does not hold weights as Keras 2 writes them"


class NewerLayer(NamedTuple):
    """A layer to be written in the newer layout: its name, for errors alone, its class, its weights and, of a model,
    the layers inside it.
    """

    name: str
    kind: str
    weights: list[Array]
    inner: list[NewerLayer] | None = None


def newer_key(kind: str, seen: Counter[str]) -> str:
    """What the newer layout calls the next layer of a class, of which so many have been seen."""
    base = snake_case(kind)
    seen[base] += 1
    return f"{base}_{seen[base] - 1}" if seen[base] > 1 else base


# ------------------------------------------------------------------------------------------------------------- to files


def write(layers: list[tuple[str, dict[str, Array]]], file: BinaryIO, config: str | None = None) -> None:
    """Write layers, each a name and its weights by name, in the older layout; with a config, as a whole model."""
    with h5py().File(file, "w") as root:
        _write_versions(root)
        if config is None:
            _write_layers(root, layers)
        else:
            root.attrs["model_config"] = config.encode()
            _write_layers(root.create_group(MODEL_WEIGHTS), layers)


def write_archive(layers: list[NewerLayer], file: BinaryIO, config: str) -> None:
    """Write a whole model in the newer layout: a .keras."""
    content = io.BytesIO()
    with h5py().File(content, "w") as root:
        _write_newer(root, layers)
        root.create_group("vars")
    metadata = {"keras_version": KERAS_VERSION, "date_saved": time.strftime("%Y-%m-%d@%H:%M:%S")}
    with zipfile.ZipFile(file, "w") as members:
        members.writestr(METADATA, json.dumps(metadata))
        members.writestr(CONFIG, config)
        members.writestr(WEIGHTS, content.getbuffer())


def check_newer(layers: list[NewerLayer], places: Places | None = None, parent: Place = ()) -> None:
    """ValueError, naming the layer, unless layers can be in a file of the newer layout: classes may have names such
    that what Keras makes of them is that of another layer.
    """
    places = Places() if places is None else places
    group = places.claim(parent, "layers", None)
    seen: Counter[str] = Counter()
    for layer in layers:
        place = places.claim(group, newer_key(layer.kind, seen), layer.name)
        if layer.inner is not None:
            check_newer(layer.inner, places, place)
        variables = places.claim(place, "vars", layer.name)
        for number in range(len(layer.weights)):
            places.claim(variables, str(number), layer.name, True)


def _write_newer(parent: Any, layers: list[NewerLayer]) -> None:
    group = parent.create_group("layers")
    seen: Counter[str] = Counter()
    for layer in layers:
        own = group.create_group(newer_key(layer.kind, seen))
        if layer.inner is not None:
            _write_newer(own, layer.inner)
        variables = own.create_group("vars")
        for number, value in enumerate(layer.weights):
            variables.create_dataset(str(number), data=value)


def _write_versions(group: Any) -> None:
    group.attrs["backend"] = BACKEND.encode()
    group.attrs["keras_version"] = KERAS_VERSION.encode()


def _write_layers(group: Any, layers: list[tuple[str, dict[str, Array]]]) -> None:
    _write_names(group, "layer_names", [layer for layer, _ in layers])
    _write_versions(group)
    for layer, weights in in_order(layers):
        _write_group(group.create_group(layer), weights)
    _write_group(group.create_group(TOP_LEVEL), {})


def _write_group(group: Any, weights: dict[str, Array]) -> None:
    _write_names(group, "weight_names", list(weights))
    for name, value in weights.items():
        group.create_dataset(name, data=value)


def _write_names(group: Any, attribute: str, names: list[str]) -> None:
    array = np.array([name.encode() for name in names]) if names else np.array([], "S1")
    parts = 1
    while parts < len(array) and any(part.nbytes > ATTRIBUTE_LIMIT for part in np.array_split(array, parts)):
        parts += 1
    if parts == 1:
        group.attrs[attribute] = array
        return
    for number, part in enumerate(np.array_split(array, parts)):
        group.attrs[f"{attribute}{number}"] = part


# ----------------------------------------------------------------------------------------------------------- from files


@contextlib.contextmanager
def opened_hdf5(path: Path) -> Iterator[ModelFile]:
    """A context that yields the checked HDF5 file at this path, or inside the archive at this path."""
    module = h5py()
    with opened(path) as file, contextlib.ExitStack() as stack:
        with reading(path):
            size, members = file.seek(0, os.SEEK_END), None
            # HDF5 would open the path anew, and perhaps another file that has been renamed to it meanwhile.
            content: Source = archive.Window(file, 0, size)
            if content.read(len(archive.SIGNATURE)) == archive.SIGNATURE:
                members = stack.enter_context(zipfile.ZipFile(file))
                content = archive.seekable_member(members, file, WEIGHTS)
            root = stack.enter_context(_hdf5(module, content))
            model_file = ModelFile(path, size, content, root, members)
        yield model_file


def _hdf5(module: Any, source: Any) -> Any:
    try:
        return module.File(source, "r")
    except OSError as error:
        raise Refused(f"is not an HDF5 file that can be read: {error}") from error


class ModelFile:
    """An open HDF5 file that refers to no other.

    Parameters
    ----------
    path : Path
    size : int
        In bytes, of the archive if it is in one.
    content : binary file
        What HDF5 reads.
    root : h5py.File
    members : zipfile.ZipFile or None
        The archive that it is in.

    Attributes
    ----------
    elements : int
        How many numbers all datasets together declare.
    is_older, is_newer : bool
        Which layout the weights have; neither, if there are none.
    """

    def __init__(self, path: Path, size: int, content: Source, root: Any, members: zipfile.ZipFile | None) -> None:
        self.path, self.size, self.content, self.root, self.members = path, size, content, root, members
        if root.id.get_create_plist().get_sizes() != (8, 8):
            raise Refused("has addresses or sizes that are not of 8 bytes")
        self._names, self._strings = NameLimit(), Strings(content, root.userblock_size)
        survey = Survey(root)
        self.elements, self._declared = survey.elements, survey.size
        # As in Keras: a layer of a file of weights may have the name of the group that a whole model's are in.
        self._weights = root if _lists_layers(root) else root.get(MODEL_WEIGHTS, root)
        older = _lists_layers(self._weights)
        self.is_older, self.is_newer = older, not older and "layers" in self._weights

    # -------------------------------------------------------------------------------------------------------- the model

    @property
    def has_config(self) -> bool:
        """Whether this is a whole model's file."""
        with reading(self.path):
            return self.members is not None or "model_config" in self.root.attrs

    def check_size(self) -> None:
        """ValueError if the file declares far more than it holds."""
        if self._declared > limit_of(self.size):
            raise Refused(
                f"declares {self._declared} bytes of weights and has {self.size}: that is too much to be a model"
            )

    def config(self) -> str:
        """The JSON text that describes the model. ValueError if there is none, or one that is too much."""
        with reading(self.path):
            self.check_size()
            if self.members is not None:
                text = (
                    archive.unpacked(self.members, archive.member(self.members, CONFIG), JSON_LIMIT).getvalue().decode()
                )
            elif "model_config" in self.root.attrs:
                text = self._text(self.root, "model_config", JSON_LIMIT)
            else:
                raise Refused(WEIGHTS_ONLY)
            if has_too_many_parts(text):
                raise Refused(f"describes a model by more than {MOST_PARTS} lists and dicts")
        return text

    def keras_version(self) -> str:
        """The version of Keras that the file says it was written by; without a word of it, `KERAS_VERSION`."""
        with reading(self.path):
            if self.members is None:
                return self._short_text(self.root, "keras_version", KERAS_VERSION)
            if METADATA not in self.members.namelist():
                return KERAS_VERSION
            content = archive.unpacked(self.members, archive.member(self.members, METADATA), SHORT_TEXT)
            version = json.loads(content.getvalue())["keras_version"]
            if not isinstance(version, str):
                raise Refused(f"is damaged: the keras_version in {METADATA} is no text")
        return version

    # ------------------------------------------------------------------------------------------------------ the weights

    def layers(self, model: Any, by_name: bool) -> list[StoredLayer]:
        """The layers in the file; the newer layout needs the model to tell their order."""
        with reading(self.path):
            root = self._weights
            if self.is_older:
                self._check_version(root)
                return list(self._older(root))
            if self.is_newer:
                if by_name:
                    raise Refused(
                        "does not hold the layers' names (files .weights.h5 and .keras do not): load it by order"
                    )
                return list(self._newer(_group(root, "layers"), model))
            raise Refused(NO_LAYERS)

    def listed(self) -> list[StoredLayer]:
        """The layers in the file by what they are called there: for those who read no values, whatever Keras wrote it.

        No model is needed.
        """
        with reading(self.path):
            if self.is_older:
                return list(self._older(self._weights))
            if not self.is_newer:
                raise Refused(NO_LAYERS)
            layers: list[StoredLayer] = []
            # Groups that are still to be looked at, and what they are called; a group may be inside itself.
            stack, seen = [("", _group(self._weights, "layers"))], set[int]()
            while stack:
                path, group = stack.pop()
                if (address := h5py().h5o.get_info(group.id).addr) in seen:
                    continue
                seen.add(address)
                for key in group:
                    layer, name = _group(group, key), f"{path}{key}"
                    self._names.take(1, len(name))
                    variables = _group(layer, "vars") if "vars" in layer else {}
                    weights = [str(number) for number in range(len(variables))]
                    layers.append(
                        StoredLayer(name, [Dataset(self.path, f"{name}/vars/{one}", variables, one) for one in weights])
                    )
                    if "layers" in layer:
                        stack.append((f"{name}/", _group(layer, "layers")))
            return layers

    def _check_version(self, root: Any) -> None:
        """ValueError for a file of the older layout whose kernels are not those of Keras 2 with TensorFlow."""
        version = self._short_text(root, "keras_version", KERAS_VERSION)
        backend = self._short_text(root, "backend", BACKEND)
        if version.startswith("1.") or backend == "theano":
            raise Refused(
                f"was written by Keras {version} with {backend}, which stores kernels another way: only files of Keras "
                f"2 with TensorFlow can be read. {BY_KERAS_2}"
            )

    def _older(self, root: Any) -> Iterator[StoredLayer]:
        for name in self._read_names(root, "layer_names"):
            group = _group(root, name)
            weights = self._read_names(group, "weight_names")
            yield StoredLayer(name, [Dataset(self.path, f"{name}/{weight}", group, weight) for weight in weights])

    def _newer(self, group: Any, model: Any) -> Iterator[StoredLayer]:
        """Layers are named by their class and number among those of that class."""
        seen: Counter[str] = Counter()
        for layer in model.layers:
            key = newer_key(type(layer).__name__, seen)
            if not layer.weights:
                continue
            if key not in group:
                raise Refused(f"has no layer {key!r} for the layer {layer.name}, it has {shown(sorted(group))}")
            if hasattr(layer, "layers"):
                yield from self._newer(_group(_group(group, key), "layers"), layer)
            else:
                variables = _group(_group(group, key), "vars")
                names = [str(number) for number in range(len(variables))]
                yield StoredLayer(
                    None, [Dataset(self.path, f"{key}/vars/{name}", variables, name) for name in names], layer
                )
        expected = {f"{base}_{number}" if number else base for base, count in seen.items() for number in range(count)}
        more = [
            key for key in group if key not in expected and "vars" in _group(group, key) and len(group[key]["vars"])
        ]
        if more:
            raise Refused(f"has layers with weights that the model has not: {shown(more)}")

    # ------------------------------------------------------------------------------------------------------- attributes

    def _read_names(self, group: Any, attribute: str) -> list[str]:
        if attribute in group.attrs:
            return self._texts(group, attribute)
        names: list[str] = []
        number = 0
        while f"{attribute}{number}" in group.attrs:
            names += self._texts(group, f"{attribute}{number}")
            number += 1
        return names

    def _texts(self, group: Any, attribute: str) -> list[str]:
        """An attribute that is a list of names."""
        if group.attrs.get_id(attribute).shape == (0,):  # Keras writes an empty list as one of numbers
            return []
        shape, size = _string_type(group, attribute)
        if len(shape) != 1:
            raise Refused(f"has an attribute {attribute} of shape {shape}, not a list")
        if size is None:
            self._names.take(shape[0], 0)
            return self._variable(group, attribute, shape[0], lambda size: self._names.take(0, size))
        self._names.take(shape[0], shape[0] * size)
        return [text.decode() for text in group.attrs[attribute]]

    def _short_text(self, group: Any, attribute: str, default: str) -> str:
        """An attribute that may be there."""
        return self._text(group, attribute, SHORT_TEXT) if attribute in group.attrs else default

    def _text(self, group: Any, attribute: str, limit: int) -> str:
        """An attribute that is one string."""
        shape, size = _string_type(group, attribute)
        if shape:
            raise Refused(f"has an attribute {attribute} of shape {shape}, not one text")

        def take(size: int) -> None:
            if size > limit:
                raise Refused(f"has an attribute {attribute} of {size} bytes, at most {limit} are read")

        if size is None:
            return self._variable(group, attribute, 1, take)[0]
        take(size)
        return str(group.attrs[attribute].decode())

    def _variable(self, group: Any, attribute: str, count: int, take: Callable[[int], None]) -> list[str]:
        """An attribute of strings of variable length."""
        return self._strings.of(h5py().h5o.get_info(group.id).addr, attribute, count, take)


def _lists_layers(group: Any) -> bool:
    return "layer_names" in group.attrs or "layer_names0" in group.attrs


def _group(parent: Any, name: str) -> Any:
    group = parent[name]
    if not isinstance(group, h5py().Group):
        raise Refused(f"is damaged: {group.name!r} is not a group")
    return group


def _string_type(group: Any, attribute: str) -> tuple[tuple[int, ...], int | None]:
    """Shape of an attribute that holds strings, and their size in bytes if it is fixed."""
    text = group.attrs.get_id(attribute)
    stored = text.get_type()
    if stored.get_class() != h5py().h5t.STRING or text.shape is None:
        raise Refused(f"has an attribute {attribute} that does not hold text")
    return text.shape, None if stored.is_variable_str() else stored.get_size()
