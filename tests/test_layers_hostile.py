"""Files made to harm: those that read other files, and those that declare far more than they are.

Every file is loaded in a process of its own, and the memory that this takes is measured.
"""

import io
import json
import os
import struct
import traceback
import zipfile
import zlib

import numpy as np
import pytest

from localconv import layers
from localconv.layers.files.contents import contents_of

h5py = pytest.importorskip("h5py")

MIB = 2**20
BOMB = 256 * MIB

# Prints by how much the process grew and what came of it: the weights' sum, or the error.
LOAD = """
import contextlib, io, sys
from pathlib import Path
import h5py, numpy as np
import localconv.command_line, localconv.layers.conversion, localconv.layers.files.contents
from localconv import layers

def peak():
    try:
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    except OSError:
        return 0

what, path, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = layers.Sequential([layers.Dense(size, name="d", input_shape=(size,))])
before = peak()
try:
    if what == "model":
        model = layers.load_model(path)
    else:
        model.load_weights(path, by_name=what == "by_name")
    print(peak() - before, "loaded", sum(float(w.sum()) for w in model.get_weights()), sep="|")
except ValueError as error:
    print(peak() - before, "ValueError", error, sep="|")

del model
outcome = []
for command in (["inspect"], ["inspect", "--json"], ["convert", "--overwrite"], ["convert", "--quantize=int8"]):
    command += [path] if command[0] == "inspect" else [path, f"new{len(outcome)}.npz"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        outcome += [localconv.command_line.main(command), peak() - before]
with open("commands.txt", "w") as file:
    print(*outcome, file=file)
"""


@pytest.fixture
def load(python, tmp_path):
    """Loads a file into a model of one Dense layer `d`, or as a model.

    Returns the outcome; with more memory than allowed it fails.
    """

    def run(name, what="weights", size=4, limit=48 * MIB):
        grown, outcome, text = python(LOAD, what, tmp_path / name, size).strip().split("|", 2)
        assert int(grown) < limit, f"{int(grown) // MIB} MiB, {outcome}: {text}"
        # The command line looks into the same file, and converts it, which holds its weights.
        numbers = [int(word) for word in (tmp_path / "commands.txt").read_text().split()]
        assert set(numbers[::2]) <= {0, 2}
        assert max(numbers[1:4:2]) < limit, f"inspect: {numbers[3] // MIB} MiB"
        assert numbers[-1] < limit + 300 * MIB, f"convert: {numbers[-1] // MIB} MiB"
        return f"{outcome}: {text}"

    return run


def dense(root, kernel, size=4):
    """A file of one layer as Keras writes it; `kernel` puts the kernel into its group under its name."""
    root.attrs["layer_names"] = [b"d"]
    group = root.create_group("d")
    group.attrs["weight_names"] = [b"d/kernel:0", b"d/bias:0"]
    kernel(group.create_group("d"), "kernel:0")
    group["d/bias:0"] = np.zeros(size, "f4")


def keras(path, config, fill=lambda root: None, method=zipfile.ZIP_DEFLATED):
    """A .keras of this config, whose weights `fill` writes."""
    content = io.BytesIO()
    with h5py.File(content, "w") as root:
        root.create_group("layers")
        fill(root)
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        archive.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        archive.writestr("model.weights.h5", content.getvalue())


def sequential(*made):
    entries = [{"class_name": name, "config": config} for name, config in made]
    return {"class_name": "Sequential", "config": {"name": "m", "layers": entries}}


# --- other files
# -----------------------------------------------------------------------------------------------------------


def linked(place):
    """Puts an external link somewhere, and the kernel behind it."""

    def fill(group, name):
        group.file[place] = h5py.ExternalLink("other.h5", "/")
        group[name] = h5py.SoftLink(f"{place}/x")

    return fill


def virtual(group, name):
    layout = h5py.VirtualLayout((4, 4), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4, 4))
    group.create_virtual_dataset(name, layout)


def endless_virtual(group, name):
    """Of so many files as there are."""
    layout = h5py.VirtualLayout((4, 4), "f4", maxshape=(None, 4))
    everything = slice(0, h5py.h5s.UNLIMITED), slice(None)
    layout[everything] = h5py.VirtualSource("other.h5", "x", (4, 4), maxshape=(None, 4))[everything]
    group.create_virtual_dataset(name, layout)


LEADING_OUT = {
    "external link": (lambda group, name: group.update({name: h5py.ExternalLink("other.h5", "/x")}), "'/d/d/kernel:0'"),
    "soft link through an external one": (linked("/away"), "'/away'"),
    "soft link through an external one deep down": (linked("/d/d/a/b/c"), "'/d/d/a/b/c'"),
    "external storage": (
        lambda group, name: group.create_dataset(name, (4, 4), "f4", external=[("other.h5", 0, 64)]),
        "'/d/d/kernel:0'",
    ),
    "virtual dataset": (virtual, "'/d/d/kernel:0'"),
    "virtual dataset without end": (endless_virtual, "'/d/d/kernel:0'"),
}
WRAPPINGS = ["weights", "by_name", "model", "keras"]


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("kind", LEADING_OUT)
def test_other_files_are_not_read(kind, wrapping, load, tmp_path):
    """Named and refused, in weights, whole models, and archives: where a weight should be,
    and where nothing is looked for.
    """
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.ones((4, 4), "f4")
    kernel, name = LEADING_OUT[kind]
    config = sequential(("Dense", {"units": 4, "name": "d", "batch_input_shape": [None, 4]}))
    if wrapping == "keras":

        def fill(root):
            variables = root.create_group("layers/dense/vars")
            kernel(root.create_group("d/d"), "kernel:0")
            variables["0"] = h5py.SoftLink("/d/d/kernel:0")
            variables["1"] = np.zeros(4, "f4")

        keras(tmp_path / "a.keras", config, fill, zipfile.ZIP_STORED)
        outcome = load("a.keras", "model")
    else:
        with h5py.File(tmp_path / "a.h5", "w") as root:
            root.attrs["model_config"] = json.dumps(config)
            dense(root, kernel)
        outcome = load("a.h5", wrapping)
    assert outcome.startswith("ValueError")
    assert name in outcome
    assert "other file" in outcome or "out of the file" in outcome


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a file that shows whether it is opened is a FIFO")
@pytest.mark.parametrize("kind", LEADING_OUT)
def test_other_files_are_not_even_opened(kind, python, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as root:
        dense(root, LEADING_OUT[kind][0])
    code = """
import os, sys
from localconv import layers
model = layers.Sequential([layers.Dense(4, name="d", input_shape=(4,))])
os.mkfifo("other.h5")  # whoever opened it would wait for ever
try:
    model.load_weights("a.h5")
except ValueError:
    print("refused")
"""
    assert python(code, timeout=60) == "refused\n"


def test_links_inside_a_file(load, tmp_path):
    """Soft ones, also in chains and through groups, circles of both kinds and links to nowhere are all right."""

    def kernel(group, name):
        root = group.file
        root["elsewhere/kernel"] = np.ones((4, 4), "f4")
        root["alias"] = h5py.SoftLink("/elsewhere")
        root["chain"] = h5py.SoftLink("alias/kernel")
        group[name] = h5py.SoftLink("/chain")
        group["up"] = root["/"]
        root["elsewhere/again"] = root["elsewhere"]
        root["nowhere"] = h5py.SoftLink("/nothing")
        root["itself"] = h5py.SoftLink("/itself")

    with h5py.File(tmp_path / "a.h5", "w") as root:
        dense(root, kernel)
    assert load("a.h5") == load("a.h5", "by_name") == "loaded: 16.0"


# --- memory, time: HDF5
# ---------------------------------------------------------------------------------------------------------


def chunked(shape, chunks, packed, filters, **options):
    """A dataset with one packed chunk of our own."""

    def fill(group, name):
        dataset = group.create_dataset(name, shape, "f4", chunks=chunks, **filters, **options)
        if packed is not None:
            dataset.id.write_direct_chunk((0,) * len(shape), packed)

    return fill


def bomb(size=BOMB):
    packer = zlib.compressobj(1)
    return b"".join([packer.compress(bytes(MIB)) for _ in range(size // MIB)]) + packer.flush()


GZIP, GROWING = {"compression": "gzip"}, {"maxshape": (None, None)}
SIDE = 64
DATASETS = {
    "a chunk that unpacks to more than it is": lambda: chunked((SIDE, SIDE), (SIDE, SIDE), bomb(), GZIP),
    "a chunk that unpacks to less than it is": lambda: chunked(
        (SIDE, SIDE), (SIDE, SIDE), zlib.compress(bytes(4)), GZIP
    ),
    "a chunk that is shorter than it is": lambda: chunked((SIDE, SIDE), (SIDE, SIDE), bytes(4), {}),
    "a chunk that is longer than it is": lambda: chunked((SIDE, SIDE), (SIDE, SIDE), bytes(2**17), {}),
    "a packed chunk far larger than the dataset": lambda: chunked(
        (SIDE, SIDE), (2**14, 2**13), bomb(), GZIP, **GROWING
    ),
    "a chunk far larger than the dataset": lambda: chunked((SIDE, SIDE), (2**14, 2**13), None, {}, **GROWING),
    "a filter whose memory is not known": lambda: chunked((SIDE, SIDE), (SIDE, SIDE), None, {"compression": "lzf"}),
    "filters in another order": lambda: twice_packed,
    "another shape": lambda: chunked((2**14, 2**13), (2**10, 2**13), None, GZIP),
}


def twice_packed(group, name):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((SIDE, SIDE))
    properties.set_deflate(9)
    properties.set_deflate(9)
    dataset = h5py.h5d.create(
        group.id, name.encode(), h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((SIDE, SIDE)), properties
    )
    dataset.write_direct_chunk((0, 0), zlib.compress(bomb()))


@pytest.mark.memory
@pytest.mark.parametrize("kind", DATASETS)
def test_datasets_that_declare_too_much(kind, load, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as root:
        dense(root, DATASETS[kind](), SIDE)
    outcome = load("a.h5", size=SIDE)
    assert outcome.startswith("ValueError")
    assert "kernel:0" in outcome


@pytest.mark.memory
def test_chunks_without_number(load, tmp_path):
    """Right in every way, but HDF5 would keep a record of each value."""
    with h5py.File(tmp_path / "a.h5", "w") as root:
        dense(root, chunked((1000, 1000), (1, 1), None, {}), 1000)
    assert "ValueError" in load("a.h5", size=1000)


@pytest.mark.parametrize(
    "filters", [{}, GZIP, GZIP | {"shuffle": True, "fletcher32": True}, {"fletcher32": True}, {"shuffle": True}]
)
@pytest.mark.parametrize("chunks", [(4, 4), (3, 2), (1, 4), None])
def test_packed_files_load(filters, chunks, load, tmp_path):
    values = np.arange(16, dtype="f4").reshape(4, 4)
    with h5py.File(tmp_path / "a.h5", "w") as root:
        dense(
            root,
            lambda group, name: group.create_dataset(
                name, data=values, chunks=chunks or (filters and True) or None, **filters
            ),
        )
    assert load("a.h5") == "loaded: 120.0"


def test_half_written_datasets_load(load, tmp_path):
    """Chunks that are not there are 0, and a growing dataset has larger ones than it is."""
    for packed in (GZIP, {}):
        with h5py.File(tmp_path / "a.h5", "w") as root:
            dense(
                root,
                lambda group, name, packed=packed: group.create_dataset(
                    name, (4, 4), "f4", chunks=(64, 3), **packed, **GROWING
                ),
            )
            root["d/d/kernel:0"][:, 3] = 1
        assert load("a.h5") == "loaded: 4.0"


LISTED = 3000
LONG = 1_000_003  # bytes that are found again as a length


def references_to_one_text(path, attribute, length):
    """Makes all strings of an attribute refer to its first, which is the long one, and to be of this length."""
    content = bytearray(path.read_bytes())
    place = content.index(attribute.encode() + b"\0")
    start = content.index(struct.pack("<I", LONG), place)
    assert start < place + 100
    first = struct.pack("<I", length) + content[start + 4 : start + 16]
    for number in range(LISTED):
        content[start + 16 * number : start + 16 * (number + 1)] = first
    path.write_bytes(content)


@pytest.mark.memory
@pytest.mark.parametrize("length", [LONG, 2**32 - 1])
@pytest.mark.parametrize("attribute", ["layer_names", "weight_names", "model_config"])
def test_strings_that_declare_too_much(attribute, length, load, tmp_path):
    """A list whose strings are all one long string, or one of 4 GiB.

    The config as such a list, and as such a string.
    """
    texts = np.full(LISTED, "x", object)
    texts[0] = "y" * LONG
    with h5py.File(tmp_path / "a.h5", "w") as root:
        dense(root, lambda group, name: group.create_dataset(name, (4, 4), "f4"))
        owner = root["d"] if attribute == "weight_names" else root
        if attribute in owner.attrs:
            del owner.attrs[attribute]
        owner.attrs.create(attribute, texts, dtype=h5py.string_dtype())
    references_to_one_text(tmp_path / "a.h5", attribute, length)
    assert "ValueError" in load("a.h5", "model" if attribute == "model_config" else "weights")


@pytest.mark.memory
def test_one_string_that_declares_too_much(load, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as root:
        root.attrs["model_config"] = "{" + " " * (LONG - 1)
    content = bytearray((tmp_path / "a.h5").read_bytes())
    place = content.index(struct.pack("<I", LONG), content.index(b"model_config\0"))
    content[place : place + 4] = struct.pack("<I", 2**32 - 1)
    (tmp_path / "a.h5").write_bytes(content)
    assert "model_config of 4294967295 bytes" in load("a.h5", "model")


def test_strings_whose_heap_has_no_end(load, tmp_path):
    """A free space of size 0: HDF5 2.0 looks for what follows it for ever."""
    with h5py.File(tmp_path / "a.h5", "w") as root:
        dense(root, lambda group, name: group.create_dataset(name, data=np.ones((4, 4), "f4")))
        root.attrs.create("layer_names", ["d", "another"], dtype=h5py.string_dtype())
    content = bytearray((tmp_path / "a.h5").read_bytes())
    start = content.index(b"GCOL")
    content[start + 40 : start + 4096] = bytes(4096 - 40)
    (tmp_path / "a.h5").write_bytes(content)
    assert "ValueError" in load("a.h5")


@pytest.mark.memory
@pytest.mark.parametrize("layout", ["numbered", "long"])
def test_too_many_names(layout, load, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as root:
        if layout == "numbered":
            for number in range(400):
                root.attrs[f"layer_names{number}"] = np.full(1000, b"d" * 60)
        else:
            root.attrs["layer_names"] = np.full(2**20, b"d" * 60)
    assert "names of layers and weights" in load("a.h5", limit=160 * MIB), "that is three times the file"


def test_names_of_variable_length(load, tmp_path):
    """As Keras writes them, in every layout of attributes that HDF5 has for a few of them,
    behind a block of the user's too.
    """
    for options in (
        {},
        {"libver": "latest"},
        {"track_order": True},
        {"userblock_size": 512},
        {"libver": "latest", "userblock_size": 1024},
    ):
        with h5py.File(tmp_path / "a.h5", "w", **options) as root:
            dense(root, lambda group, name: group.create_dataset(name, data=np.ones((4, 4), "f4")))
            root["d"].attrs["weight_names"] = ["d/kernel:0", "d/bias:0"]
            root["ß"], root.attrs["layer_names"] = root["d"], ["d"]
            root.attrs["keras_version"], root.attrs["backend"] = "2.15.0", "tensorflow"
            for number in range(3):
                root.attrs[f"more {number}"] = "x" * 5000
        assert load("a.h5", "by_name") == "loaded: 16.0", options


@pytest.mark.memory
def test_groups_without_end(load, tmp_path):
    with h5py.File(tmp_path / "deep.h5", "w") as root:
        group = root
        for _ in range(2000):
            group = group.create_group("g")
    assert "deep" in load("deep.h5")
    with h5py.File(tmp_path / "wide.h5", "w", libver="latest") as root:
        for number in range(101_000):
            root.id.links.create_hard(str(number).encode(), root.id, b".")
    assert "links" in load("wide.h5")


# --- memory, time: archives
# -------------------------------------------------------------------------------------------------------


def npz(path, members):
    """A .npz with these members, whose index is that of one layer `d`."""
    index = io.BytesIO()
    np.save(index, np.array(json.dumps([["d", ["d/kernel", "d/bias"]]])))
    bias = io.BytesIO()
    np.save(bias, np.zeros(4, "f4"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in ({"localconv layers": [index.getvalue()], "d/bias": [bias.getvalue()]} | members).items():
            with archive.open(f"{name}.npy", "w") as member:
                for part in content:
                    member.write(part)


def npy(dtype, shape, size):
    """The parts of a .npy with this header and so many bytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return [header.getvalue(), *[bytes(MIB)] * (size // MIB)]


def parts_npy(part, count=5 * MIB):
    """The parts of a .npy that holds a JSON list of these."""
    block = f"{part},".encode("utf-32-le") * MIB
    ends = [end.encode("utf-32-le") for end in ("[", f"{part}]")]
    size = (sum(map(len, ends)) + len(block) * (count // MIB)) // 4
    return [*npy(f"<U{size}", (), 0), ends[0], *[block] * (count // MIB), ends[1]]


MEMBERS = {
    "another shape": {"d/kernel": npy("<f4", (BOMB // 4,), BOMB)},
    "more than the header says": {"d/kernel": npy("<f4", (4, 4), BOMB)},
    "a header without end": {
        "d/kernel": [b"\x93NUMPY\x02\x00" + struct.pack("<I", BOMB), *[b" " * MIB] * (BOMB // MIB)]
    },
    "an index without end": {"localconv layers": npy(f"<U{BOMB // 4}", (), BOMB)},
    "an index of many": {"localconv layers": npy("<U1", (BOMB // 4,), BOMB)},
    "an index of lists": {"localconv layers": parts_npy("[]")},
    "an index of dicts": {"localconv layers": parts_npy("{}")},
    "no data for its header": {"d/kernel": npy("<f4", (4, 4), 0)},
    "objects": {"d/kernel": npy("|O", (4, 4), 0)},
    "records": {"d/kernel": npy([("a", "<f4")], (4, 4), MIB)},
    "a header of brackets": {"d/kernel": [b"\x93NUMPY\x01\x00" + struct.pack("<H", 4000) + b"(" * 4000]},
    "a header of minus signs": {"d/kernel": [b"\x93NUMPY\x01\x00" + struct.pack("<H", 4000) + b"-" * 3999 + b"1"]},
}


@pytest.mark.memory
@pytest.mark.parametrize("kind", MEMBERS)
def test_npz_that_declares_too_much(kind, load, tmp_path):
    npz(tmp_path / "a.npz", MEMBERS[kind])
    # Of an index, what NumPy reads and the text of it.
    assert "ValueError" in load(
        "a.npz", limit=200 * MIB if kind in ("an index of lists", "an index of dicts") else 48 * MIB
    )


def test_more_layers_than_an_index_may_list(tmp_path, monkeypatch):
    """Not written, since it would not be read."""
    model = layers.Sequential([layers.Dense(1, input_shape=(1,)), *[layers.Flatten() for _ in range(30)]])
    for module in (layers.files.npz, layers.files.stored):
        monkeypatch.setattr(module, "MOST_PARTS", 1 + 2 * 31)
    model.save_weights(tmp_path / "a.npz")
    model.load_weights(tmp_path / "a.npz")
    model.add(layers.Flatten())
    with pytest.raises(ValueError, match="those of 32 layers are more"):
        model.save_weights(tmp_path / "b.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def lie(path, member):
    """Changes the size that an archive says a member has to 1000, in both places."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        header = archive.getinfo(member).header_offset
        entry = archive.start_dir
    while content[entry + 46 : entry + 46 + len(member)] != member.encode():
        entry = content.index(b"PK\x01\x02", entry + 1)
    for place in (header + 22, entry + 24):
        content[place : place + 4] = struct.pack("<I", 1000)
    path.write_bytes(content)


@pytest.mark.memory
@pytest.mark.parametrize("member", ["config.json", "model.weights.h5"])
@pytest.mark.parametrize("lying", [False, True])
def test_archives_that_unpack_to_too_much(member, lying, load, tmp_path):
    """Members of a quarter of a gigabyte, which say so or say that they are small."""
    keras(tmp_path / "a.keras", sequential())
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        others = {name: archive.read(name) for name in archive.namelist() if name != member}
    with zipfile.ZipFile(tmp_path / "a.keras", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in others.items():
            archive.writestr(name, content)
        with archive.open(member, "w") as stream:
            for _ in range(BOMB // MIB):
                stream.write(b" " * MIB)
    if lying:
        lie(tmp_path / "a.keras", member)
    assert "ValueError" in load("a.keras", "model")


@pytest.mark.memory
def test_archives_are_read_in_place(load, tmp_path):
    """A stored member of 64 MiB, most of which no weight needs, is not copied."""
    config = sequential(("Dense", {"units": 4, "batch_input_shape": [None, 4]}))

    def fill(root):
        root["layers/dense/vars/0"], root["layers/dense/vars/1"] = np.ones((4, 4), "f4"), np.ones(4, "f4")
        root["optimizer"] = np.random.default_rng(0).random(8 * MIB)

    keras(tmp_path / "stored.keras", config, fill, zipfile.ZIP_STORED)
    assert (tmp_path / "stored.keras").stat().st_size > 64 * MIB
    for what in ("model", "weights"):
        assert load("stored.keras", what, limit=24 * MIB) == "loaded: 20.0"
    keras(tmp_path / "packed.keras", config, fill)
    assert load("packed.keras", "model", limit=200 * MIB) == "loaded: 20.0"


@pytest.mark.memory
@pytest.mark.parametrize("form", ["npz", "h5"])
def test_only_what_is_wanted_is_read(form, load, tmp_path):
    """Of a file with a layer of 64 MiB and a small one, the small one."""
    large = layers.Sequential(
        [
            layers.Dense(4, name="d", kernel_initializer="ones", input_shape=(4,)),
            layers.Dense(4 * MIB, name="large", kernel_initializer="zeros"),
        ]
    )
    large.save_weights(tmp_path / f"a.{form}")
    assert load(f"a.{form}", "by_name", limit=24 * MIB) == "loaded: 16.0"


def test_archives_of_other_methods(load, tmp_path):
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(tmp_path / "a.keras", "w", method) as archive:
            archive.writestr("config.json", "{}")
            archive.writestr("model.weights.h5", "x")
        assert "only stored and deflated" in load("a.keras", "model")


# --- memory, time: configs
# ----------------------------------------------------------------------------------------------------------


CONFIGS = {
    "a layer": sequential(("Dense", {"units": 2**15, "batch_input_shape": [None, 2**15]})),
    "an initializer": sequential(
        ("Dense", {"units": 2**13, "batch_input_shape": [None, 2**13], "kernel_initializer": "orthogonal"})
    ),
    "many layers": sequential(
        *[("Dense", {"units": 2**10, "batch_input_shape": [None, 2**10], "name": f"{n}"}) for n in range(900)]
    ),
    "connections": sequential(
        (
            "LocallyConnected1D",
            {
                "filters": 1,
                "kernel_size": 10**5,
                "padding": "same",
                "implementation": 3,
                "batch_input_shape": [None, 10**5, 1],
            },
        )
    ),
    "a square of connections": sequential(
        (
            "LocallyConnected2D",
            {
                "filters": 1,
                "kernel_size": 300,
                "padding": "same",
                "implementation": 2,
                "batch_input_shape": [None, 300, 300, 1],
            },
        )
    ),
    "a cube of connections": sequential(
        (
            "LocallyConnected3D",
            {
                "filters": 1,
                "kernel_size": 60,
                "padding": "same",
                "implementation": 3,
                "batch_input_shape": [None, 60, 60, 60, 1],
            },
        )
    ),
    "axes": sequential(("Flatten", {"batch_input_shape": [None] + [9] * 10**6})),
    "a size": sequential(("Flatten", {"batch_input_shape": [None, 10**4000, 10**4000]})),
    "depth of lists": '{"class_name": "Sequential", "config": ' + "[" * 99_000,
    "depth of dicts": '{"a": ' * 50_000,
    "lists": '{"class_name": "Sequential", "config": {"layers": [' + "[]," * 120_000 + "[]]}}",
    "a number": '{"class_name": "Sequential", "config": {"layers": [' + "9" * 10**6 + "]}}",
    "text": '"' + "x" * 17 * MIB + '"',
    "a dtype of axes": sequential(("Dense", {"units": 1, "dtype": f"({'1,' * MIB}1)f4"})),
    "a dtype of fields": sequential(("Dense", {"units": 1, "dtype": ",".join(["f4"] * MIB)})),
    "a dtype in a dict": sequential(
        ("Dense", {"units": 1, "dtype": {"names": ["a"], "formats": [f"({'1,' * MIB}1)f4"]}})
    ),
}


@pytest.mark.memory
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("form", ["h5", "keras"])
def test_configs_that_declare_too_much(kind, form, load, tmp_path):
    """What the config asks for and the file does not hold is never made."""
    config = CONFIGS[kind]
    text = config if isinstance(config, str) else json.dumps(config)
    if form == "keras":
        keras(tmp_path / "a.keras", text)
    else:
        with h5py.File(tmp_path / "a.h5", "w", libver="latest") as root:
            root.attrs["layer_names"] = np.array([], "S1")
            root.attrs["model_config"] = text
    assert "ValueError" in load(f"a.{form}", "model", limit=120 * MIB)


TEXT = "x" * MIB
LOCAL = {"filters": 1, "kernel_size": 1}
INITIALIZERS = [{"mode": TEXT}, {"distribution": TEXT}, {"scale": TEXT}, {"seed": TEXT}, {"fans": TEXT}]
LONG_TEXTS = {
    "class": (TEXT, {}),
    "units": ("Dense", {"units": TEXT}),
    "list of units": ("Dense", {"units": [TEXT]}),
    "name": ("Dense", {"units": 1, "name": [TEXT]}),
    "dtype": ("Dense", {"units": 1, "dtype": TEXT}),
    "dtype in a list": ("Dense", {"units": 1, "dtype": [TEXT]}),
    "trainable": ("Dense", {"units": 1, "trainable": [TEXT]}),
    "use_bias": ("Dense", {"units": 1, "use_bias": TEXT}),
    "activation": ("Dense", {"units": 1, "activation": TEXT}),
    "list of an activation": ("Dense", {"units": 1, "activation": [TEXT]}),
    "parameter of an activation": ("Dense", {"units": 1, "activation": {"class_name": "relu", "config": {TEXT: 1}}}),
    "module": ("Dense", {"units": 1, "activation": {"module": TEXT, "class_name": "relu", "config": {}}}),
    "argument": ("Dense", {"units": 1, TEXT: 1}),
    "initializer": ("Dense", {"units": 1, "kernel_initializer": TEXT}),
    "list of an initializer": ("Dense", {"units": 1, "kernel_initializer": [TEXT]}),
    "argument of a regularizer": (
        "Dense",
        {"units": 1, "kernel_regularizer": {"class_name": "L2", "config": {TEXT: 1}}},
    ),
    "regularizer": ("Dense", {"units": 1, "kernel_regularizer": {"class_name": "L2", "config": {"l2": TEXT}}}),
    "constraint": ("Dense", {"units": 1, "kernel_constraint": {"class_name": "MaxNorm", "config": {"axis": TEXT}}}),
    "constant": ("Dense", {"units": 1, "kernel_initializer": {"class_name": "Constant", "config": {"value": TEXT}}}),
    "input_shape": ("Dense", {"units": 1, "input_shape": TEXT}),
    "size": ("Dense", {"units": 1, "input_shape": [TEXT]}),
    "padding": ("LocallyConnected1D", LOCAL | {"padding": TEXT}),
    "data_format": ("LocallyConnected1D", LOCAL | {"data_format": TEXT}),
    "strides": ("LocallyConnected1D", LOCAL | {"strides": TEXT}),
    "kernel_size": ("LocallyConnected1D", LOCAL | {"kernel_size": [TEXT]}),
    "implementation": ("LocallyConnected1D", LOCAL | {"implementation": TEXT}),
    "rate": ("Dropout", {"rate": TEXT}),
    "name twice": ("Sequential", {"layers": [{"class_name": "Flatten", "config": {"name": TEXT}}] * 2}),
    "name and shape": ("MaxPooling1D", {"name": TEXT, "batch_input_shape": [None, 3]}),
    "name and size": ("MaxPooling1D", {"name": TEXT, "pool_size": 4, "batch_input_shape": [None, 3, 1]}),
} | {
    f"initializer's {key}": (
        "Dense",
        {"units": 1, "kernel_initializer": {"class_name": "VarianceScaling", "config": {key: value}}},
    )
    for arguments in INITIALIZERS
    for key, value in arguments.items()
}


@pytest.mark.parametrize("kind", LONG_TEXTS)
def test_messages_of_long_texts(kind, tmp_path):
    """Whatever a config holds where it does not belong: the beginning is enough to find it."""
    config = sequential(LONG_TEXTS[kind])
    keras(tmp_path / "a.keras", config)
    for make in (
        lambda: layers.Sequential.from_json(json.dumps(config)),
        lambda: layers.load_model(tmp_path / "a.keras"),
    ):
        with pytest.raises((ValueError, TypeError)) as caught:
            make()
        assert len("".join(traceback.format_exception(caught.value, chain=True))) < 30_000


def test_messages_of_long_names(tmp_path):
    """Of layers in a file of weights."""
    model = layers.Sequential([layers.Dense(4, name="d", input_shape=(4,))])
    with h5py.File(tmp_path / "a.h5", "w") as root:
        dense(root, lambda group, name: group.create_dataset(name, (5, 4), "f4"))
        root.move("d", "d" * 60_000)
        root.attrs["layer_names"] = [b"d" * 60_000]
        root["d" * 60_000].attrs["weight_names"] = [b"d/kernel:0", b"d/bias:0"]
    for by_name in (False, True):
        with pytest.raises(ValueError, match=r"Shape mismatch|No layer of the model") as caught:
            model.load_weights(tmp_path / "a.h5", by_name=by_name)
        assert len(str(caught.value)) < 10_000


@pytest.mark.memory
@pytest.mark.parametrize("dtype", ["f4", "i1", "f8"])
def test_weights_that_are_declared_and_not_there(dtype, load, tmp_path):
    """An empty dataset costs a file nothing: more than 64 MiB of that, as float32 at least,
    are refused before the model is made.
    """
    elements = 64 * MIB // max(4, np.dtype(dtype).itemsize) + 1
    config = sequential(("Dense", {"units": elements, "use_bias": False, "batch_input_shape": [None, 1]}))
    keras(tmp_path / "a.keras", config, lambda root: root.create_dataset("layers/dense/vars/0", (1, elements), dtype))
    assert "too much to be a model" in load("a.keras", "model")


def test_weights_up_to_the_limit(load, tmp_path):
    config = sequential(("Dense", {"units": 1000, "use_bias": False, "batch_input_shape": [None, 1000]}))
    keras(
        tmp_path / "a.keras",
        config,
        lambda root: root.create_dataset("layers/dense/vars/0", (1000, 1000), "f4", fillvalue=0.5),
    )
    assert load("a.keras", "model") == "loaded: 500000.0"


@pytest.mark.memory
def test_many_layers_in_little_memory(load, tmp_path):
    """As many as a config may have: linear, so a second or two; quadratic, it would be minutes."""
    keras(tmp_path / "a.keras", sequential(("Flatten", {"batch_input_shape": [None, 3]}), *[("Flatten", {})] * 45_000))
    assert load("a.keras", "model", limit=200 * MIB) == "loaded: 0"


@pytest.mark.parametrize("order", "<>")
def test_texts_of_numbers_that_are_no_characters(order, tmp_path):
    """NumPy makes strings of them, with which Python does anything."""
    path, text = tmp_path / "w.npz", '[["layer", ["layer/kernel"]]]'
    for letter in (0x10FFFF, 0x110000, 0xFFFFFFFF):
        numbers = np.array([*map(ord, text)], f"{order}u4")
        numbers[text.index("layer") + 1] = letter
        index = numbers.view(f"{order}U{len(text)}").reshape(())
        np.savez(path, **{layers.files.npz.INDEX: index, "layer/kernel": np.zeros(2)})
        if letter == 0x10FFFF:
            assert contents_of(path)["layers"][0]["name"] == "l\U0010ffffyer"
            continue
        with pytest.raises(ValueError, match=r"w\.npz is damaged: localconv layers is no text"):
            contents_of(path)


# --- nothing is executed
# -------------------------------------------------------------------------------------------------------------


class Executed:
    """Unpickled, it would write a file."""

    def __reduce__(self):
        return open, ("executed", "w")


def test_pickles_are_not_loaded(load, tmp_path):
    objects = io.BytesIO()
    np.save(objects, np.array([Executed()] * 16, object).reshape(4, 4), allow_pickle=True)
    npz(tmp_path / "a.npz", {"d/kernel": [objects.getvalue()]})
    assert "ValueError" in load("a.npz")
    npz(tmp_path / "b.npz", {"localconv layers": [objects.getvalue()]})
    assert "ValueError" in load("b.npz")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "entry",
    [
        {
            "module": "os",
            "class_name": "system",
            "config": {"command": "touch executed"},
            "registered_name": "os>system",
        },
        {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "function"},
        {"class_name": "Lambda", "config": {"function": ["4wAAAA==", None, None], "function_type": "lambda"}},
        {
            "module": "antigravity",
            "class_name": "Dense",
            "config": {"units": 4},
            "registered_name": "antigravity>Dense",
        },
    ],
)
def test_configs_import_nothing(entry, python, tmp_path):
    keras(tmp_path / "a.keras", {"class_name": "Sequential", "config": {"layers": [entry]}})
    code = """
import sys
from localconv import layers
try:
    layers.load_model("a.keras")
except ValueError:
    print("refused", "antigravity" in sys.modules)
"""
    assert python(code) == "refused False\n"
    assert not (tmp_path / "executed").exists()
