"""Files of every form that can be loaded, and what damage makes of them: for the tests and for the fuzzer."""

import functools
import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from layer_cases import GOLDEN, write_model

from localconv import layers
from localconv.layers.conversion import convert_file
from localconv.layers.files.contents import contents_of

# Files of the same model: those that Keras wrote, and a .npz, which it cannot write; and those of the model quantized.
FORMS = {"npz": None, "int8.npz": None}
MODELS = ("model.h5", "keras", "int8.keras")
try:
    import h5py
except ImportError:  # then there are no others
    h5py = None
else:
    FORMS |= {
        "h5": "line_1.h5",
        "model.h5": "line_1.model.h5",
        "weights.h5": "line_1.weights.h5",
        "keras": "line_1.keras",
        "int8.h5": None,
        "int8.keras": None,
    }


def model(form):
    """The model whose weights are in the files of this form; its own are of 7."""
    made = layers.Sequential(
        [
            layers.LocallyConnected1D(2, 3, name="local_1d", input_shape=(7, 2)),
            layers.LocallyConnected1D(2, 2, strides=2, use_bias=False, name="locally_connected1d"),
        ]
    )
    made.set_weights([np.full(w.shape, 7.0) for w in made.weights])
    if form.startswith("int8"):
        made.quantize("int8")
    return made


@functools.cache
def whole(form):
    """The bytes of a file of this form."""
    if FORMS[form]:
        return (GOLDEN / FORMS[form]).read_bytes()
    made = model(form)
    made.set_weights([np.arange(w.size).reshape(w.shape).astype(w.dtype) for w in made.weights])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a.{form}")
        if form in MODELS:
            write_model(made, path)
        else:
            made.save_weights(path)
        return path.read_bytes()


def damage(rng, form, path):
    """Writes a file of this form to which something has happened, and says what."""
    path.write_bytes(whole(form))
    ways = [change_bytes, change_bytes, cut]
    if form.endswith(("npz", "keras")):
        ways += [change_members, change_members]
    if form.endswith("keras"):
        ways += [change_config, change_inner, change_inner, change_inner]
    elif not form.endswith("npz"):
        ways += [change_objects, change_objects, change_objects]
    way = rng.choice(ways)
    way(rng, path)
    return way.__name__


# --- bytes
# ------------------------------------------------------------------------------------------------------------------


def cut(rng, path):
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def change_bytes(rng, path):
    path.write_bytes(changed(rng, path.read_bytes()))


def changed(rng, content):
    """Bytes with a few others in them, or missing, or repeated from elsewhere."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        place, count = rng.randrange(len(content)), rng.choice([1, 1, 2, 4, 8])
        end = min(place + count, len(content))
        way = rng.choice(["any", "any", "extreme", "bit", "moved", "gone"])
        if way == "any":
            content[place:end] = bytes(rng.randrange(256) for _ in range(end - place))
        elif way == "extreme":
            content[place:end] = bytes([rng.choice([0, 1, 127, 128, 255])]) * (end - place)
        elif way == "bit":
            content[place] ^= 1 << rng.randrange(8)
        elif way == "moved":
            source = rng.randrange(len(content) - (end - place))
            content[place:end] = content[source : source + end - place]
        elif len(content) > end:
            del content[place:end]
    return bytes(content)


# --- archives
# ---------------------------------------------------------------------------------------------------------------


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def change_members(rng, path):
    """Members whose checksums are right and whose contents are not: exchanged, missing, changed, packed."""
    members = members_of(path)
    first, second = rng.choice(list(members)), rng.choice(list(members))
    way = rng.choice(["exchange", "remove", "change", "change", "empty", "pack"])
    if way == "exchange":
        members[first], members[second] = members[second], members[first]
    elif way == "remove":
        del members[first]
    elif way == "change":
        members[first] = changed(rng, members[first])
    elif way == "empty":
        members[first] = b""
    write_members(path, members, rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))


def change_config(rng, path):
    """A config of which one place is another value."""
    members = members_of(path)
    content = json.loads(members["config.json"])
    place, key = inside(rng, content)
    numbers, structures = [2.5, -1, 0, 2**31, 2**63, 10**30], [[], {}, [[]], [None, 9], {"class_name": "Dense"}]
    place[key] = rng.choice([None, True, "3", "", "Dense", *numbers, *structures])
    write_members(path, members | {"config.json": json.dumps(content).encode()})


def inside(rng, content):
    """Somewhere inside a structure of JSON: what holds it, and its key there."""
    key = rng.choice(list(content) if isinstance(content, dict) else range(len(content)))
    inner = content[key]
    if isinstance(inner, dict | list) and inner and rng.random() < 0.85:
        return inside(rng, inner)
    return content, key


def change_inner(rng, path):
    """The HDF5 file in an archive."""
    members = members_of(path)
    inner = path.with_name("inner.h5")
    inner.write_bytes(members["model.weights.h5"])
    change_objects(rng, inner)
    write_members(path, members | {"model.weights.h5": inner.read_bytes()})
    inner.unlink()


# --- objects in HDF5 files
# --------------------------------------------------------------------------------------------------


def values(rng):
    """Values of every type that HDF5 has, to be stored as a dataset or an attribute."""
    shape = rng.choice([(), (0,), (1,), (2,), (5, 2), (5, 6, 2), (2, 4, 2), (1, 1, 1, 1)])
    ints = np.arange(int(np.prod(shape))).reshape(shape)
    texts = np.full(shape, "x", object)
    pair = np.dtype([("a", "f4"), ("b", "i2")])
    return rng.choice(
        [
            lambda: {"data": ints.astype(rng.choice(["i1", "u8", ">i4", "f2", "f4", "f8", ">f4", "g"]))},
            lambda: {"data": ints.astype("c8")},
            lambda: {"data": ints > 0},
            lambda: {"data": np.full(shape, 1e300)},
            lambda: {"data": np.full(shape, np.nan)},
            lambda: {"data": np.zeros(shape, pair)},
            lambda: {"data": np.zeros(shape, "V7")},
            lambda: {"data": np.zeros(shape, "S5")},
            lambda: {"data": texts, "dtype": h5py.string_dtype()},
            lambda: {"data": np.full(shape, b"\xff\xfe", object), "dtype": h5py.string_dtype("ascii")},
            lambda: {"shape": shape, "dtype": h5py.vlen_dtype("f4")},
            lambda: {"shape": shape, "dtype": h5py.ref_dtype},
            lambda: {"shape": shape, "dtype": h5py.regionref_dtype},
            lambda: {"shape": shape, "dtype": h5py.enum_dtype({"NO": 0, "YES": 1}, "i4")},
            lambda: {"shape": shape, "dtype": np.dtype(("f4", (2,)))},
            lambda: {"data": h5py.Empty("f4")},
            lambda: {"data": h5py.Empty(h5py.string_dtype())},
        ]
    )()


def change_objects(rng, path):
    """Attributes and datasets of other types and shapes, missing or elsewhere; links of every kind."""
    with h5py.File(path, "a") as root:
        for _ in range(rng.choice([1, 1, 2, 3])):
            found = ["/"]
            root.visit(found.append)  # what is there by now
            name = rng.choice(found)
            way = rng.choice([change_attribute, change_attribute, change_dataset, change_dataset, change_link, remove])
            way(rng, root, name, found)


def change_attribute(rng, root, name, _):
    attributes = root[name].attrs
    key = rng.choice([*attributes, "layer_names", "weight_names", "weight_names0", "model_config", "keras_version"])
    if rng.random() < 0.2:
        attributes.pop(key, None)
    elif rng.random() < 0.4:
        texts = rng.choice(
            [["local_1d"], ["local_1d", "local_1d"], ["/"], [""], ["."], ["local_1d/bias:0"], ["ß"], [b"\xff"], ["{}"]]
        )
        attributes[key] = rng.choice([texts, texts[0], np.array(texts, "S") if texts != ["ß"] else texts])
    else:
        given = values(rng)
        if "data" in given:  # the others are types of which h5py makes empty datasets, but no attributes
            attributes.create(key, given.pop("data"), **given)


def change_dataset(rng, root, name, _):
    if name == "/":
        return
    given = values(rng)
    axes = 0 if isinstance(given.get("data"), h5py.Empty) else len(given.get("shape", np.shape(given.get("data"))))
    if axes and rng.random() < 0.5:
        given |= {"chunks": True, "maxshape": (None,) * axes}
        given |= rng.choice(
            [{}, {"compression": "gzip"}, {"compression": "lzf"}, {"shuffle": True, "fletcher32": True}]
        )
    del root[name]
    try:
        root.create_dataset(name, **given)
    except (TypeError, ValueError):  # not every filter takes every type: then it is only missing
        return


def change_link(rng, root, name, found):
    if name == "/":
        return
    way, other = rng.choice(["external", "hard", "soft", "soft"]), rng.choice(found)
    item = root[other]
    del root[name]
    if way == "external":
        root[name] = h5py.ExternalLink("other.h5", other)
    elif way == "hard":
        root[name] = item
    else:
        root[name] = h5py.SoftLink(rng.choice([other, f"/{other}", "/nothing"]))


def remove(rng, root, name, _):
    if name != "/":
        del root[name]


def load(what, path, made, **options):
    """Loads a file as weights of a model, or as a model.

    Returns it, or None for a ValueError; if that is not as it must be, raises.
    """
    before = made.get_weights()
    try:
        with np.errstate(all="ignore"):
            if what == "model":
                return layers.load_model(path)
            made.load_weights(path, **options)
            return made
    except ValueError as error:
        message = str(error)
    if str(path) not in message and "ismatch" not in message:
        raise RuntimeError(f"a message without the file: {message}")
    if not all(map(np.array_equal, before, made.get_weights())):
        raise RuntimeError(f"half-loaded: {message}")
    return None


def look(path):
    """Looks into a file, and converts it: each a result or a ValueError that names the file, else it raises."""
    for act in (contents_of, lambda path: convert_file(path, path.with_name("new.npz"), overwrite=True)):
        try:
            with np.errstate(all="ignore"):
                act(path)
        except ValueError as error:
            if str(path) not in str(error) and "ismatch" not in str(error):
                raise RuntimeError(f"a message without the file: {error}") from error
