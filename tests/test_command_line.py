"""`python -m localconv`: what it prints, what it writes, and how it ends."""

import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from layer_cases import GOLDEN, golden

import localconv
from localconv import layers
from localconv.command_line import main, printable

h5py = pytest.importorskip("h5py")


@pytest.fixture
def run(capsys):
    """Runs a command in this process: its exit status, what it printed, and what it complained of."""

    def call(*arguments):
        try:
            status = main(list(map(str, arguments)))
        except SystemExit as end:
            status = end.code
        return (status, *capsys.readouterr())

    return call


def model(path=None):
    made = layers.Sequential(
        [
            layers.LocallyConnected2D(2, 3, activation="relu", input_shape=(6, 5, 1), name="local", seed=1),
            layers.Flatten(name="flat"),
            layers.Dense(3, seed=2, name="read_out"),
        ],
        name="small",
    )
    if path is not None:
        (made.save if path.suffix != ".npz" else made.save_weights)(path)
    return made


def weights_of(path):
    made = layers.load_model(path)
    return {variable.name: variable.numpy().tolist() for variable in made.weights}


# --- the interface ----------------------------------------------------------------------------------------------------


def test_as_a_program(tmp_path):
    """In processes of their own: the configuration, the version, the page of help, errors and their status."""

    def program(*arguments):
        command = [sys.executable, "-m", "localconv", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        return done.returncode, done.stdout, done.stderr

    status, out, err = program()
    assert (status, err) == (0, "")
    assert out.startswith("localconv        ")
    assert "instruction set" in out
    assert program("--version") == (0, f"localconv {localconv.__version__}\n", "")
    status, out, err = program("--help")
    assert (status, err) == (0, "")
    assert out.startswith("usage: python -m localconv ")
    assert all(word in out for word in ("inspect", "convert", "--version"))
    status, out, err = program("inspect", "none.h5")
    assert (status, out) == (2, "")
    assert err.startswith("localconv: error: ")
    assert "none.h5" in err
    assert "Traceback" not in err
    status, out, err = program("inspect", str(GOLDEN / "line_1.h5"))
    assert (status, err) == (0, "")


@pytest.mark.parametrize(
    "arguments", [("no such command",), ("inspect",), ("convert", "a.h5"), ("--no-such-option",), ("inspect", "a", "b")]
)
def test_wrong_use(arguments, run):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("usage: python -m localconv ")


def test_help_of_commands(run):
    for command, words in (("inspect", ["--json", ".npz"]), ("convert", ["--quantize", "--overwrite", "int8"])):
        status, out, err = run(command, "--help")
        assert (status, err) == (0, "")
        assert all(word in out for word in words)


@pytest.mark.skipif(os.name != "posix", reason="how pipes end is POSIX")
def test_a_reader_that_has_seen_enough():
    code = "import sys; from localconv.command_line import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "inspect", str(GOLDEN / "line_1.h5")]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def shell(redirection, *arguments, **variables):
    """A command with streams as a shell's redirection leaves them: its status, and what came out of those that are."""
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "localconv", *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, check=False, timeout=120)
    return done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")


CLOSED = (">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-")
# Open, and nothing can be written to them.
UNWRITABLE = ("1</dev/null", "2</dev/null", "1</dev/null 2</dev/null")


@pytest.mark.skipif(os.name != "posix", reason="how streams are closed is POSIX")
@pytest.mark.parametrize("redirection", [*CLOSED, *UNWRITABLE])
def test_commands_do_their_work_without_streams(redirection, tmp_path):
    """A warning of the command too has nowhere to go then."""
    model(tmp_path / "m.h5")
    for number, more in enumerate(((), ("--quantize", "int8"))):
        new = tmp_path / f"new_{number}.h5"
        status, out, err = shell(redirection, "convert", tmp_path / "m.h5", new, *more)
        assert (status, out) == (0, "")
        assert (err == "") == (not more or "2" in redirection)
        layers.load_model(new)
    assert shell(redirection, "convert", tmp_path / "m.h5", new)[0] == 2, "the file is there"


@pytest.mark.skipif(os.name != "posix", reason="how streams are closed is POSIX")
@pytest.mark.parametrize("redirection", CLOSED)
@pytest.mark.parametrize("arguments", [(), ("--version",), ("--help",), ("inspect", GOLDEN / "line_1.h5")])
def test_what_has_no_stream_goes_to_no_other(redirection, arguments):
    status, out, err = shell(redirection, *arguments)
    assert (status, err) == (0, "")
    assert (out == "") == (redirection != "2>&-")


@pytest.mark.skipif(os.name != "posix", reason="how streams are closed is POSIX")
def test_errors_without_streams():
    status, out, err = shell(">&-", "inspect", "none.h5")
    assert (status, out) == (2, "")
    assert err.startswith("localconv: error: ")
    for redirection in ("2>&-", "2</dev/null"):
        assert shell(redirection, "inspect", "none.h5") == (2, "", "")
        assert shell(redirection, "no such command") == (2, "", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_is_an_error():
    """Said once, with the status of an error, not that of a Python that could not end."""
    status, _, err = shell(">/dev/full", "inspect", GOLDEN / "line_1.h5")
    assert (status, err) == (2, "localconv: error: [Errno 28] No space left on device\n")


# --- inspect ----------------------------------------------------------------------------------------------------------


def test_table(run, tmp_path):
    model(tmp_path / "m.h5")
    status, out, err = run("inspect", tmp_path / "m.h5")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{tmp_path / 'm.h5'}: {(tmp_path / 'm.h5').stat().st_size} bytes, Sequential small"
    assert lines[1].split() == ["layer", "class", "weight", "shape", "dtype", "bytes"]
    assert [line.split() for line in lines[2:]] == [
        ["local", "LocallyConnected2D", "local/kernel:0", "(12,", "9,", "2)", "float32", "864"],
        ["local/bias:0", "(4,", "3,", "2)", "float32", "96"],
        ["flat", "Flatten"],
        ["read_out", "Dense", "read_out/kernel:0", "(24,", "3)", "float32", "288"],
        ["read_out/bias:0", "(3,)", "float32", "12"],
        ["3", "layers,", "315", "parameters,", "1260", "bytes", "of", "weights"],
    ]
    assert len({len(line) for line in lines[2:4]}) == 1, "columns"


@pytest.mark.parametrize("suffix", ["keras", "h5", "npz"])
@pytest.mark.parametrize("mode", [None, "int8", "bfloat16"])
def test_json(suffix, mode, run, tmp_path):
    if mode == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="bfloat16 is its")
    made, path = model(), tmp_path / f"m.{suffix}"
    if mode is not None:
        made[0].quantize(mode)
    (made.save_weights if suffix == "npz" else made.save)(path)
    status, out, err = run("inspect", path, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert (found["file"], found["bytes"]) == (str(path), path.stat().st_size)
    assert found["model"] == (None if suffix == "npz" else {"class": "Sequential", "name": "small"})
    assert [row["name"] for row in found["layers"]] == ["local", "flat", "read_out"]
    classes = [None] * 3 if suffix == "npz" else ["LocallyConnected2D", "Flatten", "Dense"]
    assert [row["class"] for row in found["layers"]] == classes
    if suffix != "npz":
        assert [row.get("quantization_mode") for row in found["layers"]] == [mode, None, None]
    weights = [weight for row in found["layers"] for weight in row["weights"]]
    assert [(weight["shape"], weight["bytes"]) for weight in weights] == [
        (list(variable.shape), variable.value.nbytes) for variable in made.weights
    ]
    stored = {"bfloat16": "uint16"}
    assert [weight["dtype"] for weight in weights] == [stored.get(v.dtype.name, v.dtype.name) for v in made.weights]
    assert found["parameters"] == made.count_params()
    assert found["weight_bytes"] == sum(variable.value.nbytes for variable in made.weights)


@pytest.mark.parametrize("name", sorted({name for case in golden("files") for name in case["files"]}))
def test_files_of_keras(name, run):
    """Every weight of each, in the right number and of the right sizes."""
    case = next(case for case in golden("files") if name in case["files"])
    status, out, _ = run("inspect", GOLDEN / name, "--json")
    assert status == 0
    found = json.loads(out)
    shapes = sorted(weight["shape"] for row in found["layers"] for weight in row["weights"])
    assert shapes == sorted(list(weight.shape) for weight in case["weights"])
    assert found["parameters"] == sum(weight.size for weight in case["weights"])
    if found["model"] is not None:
        listed = [entry["config"]["name"] for entry in json.loads(case["config"])["config"]["layers"]]
        assert [row["name"] for row in found["layers"] if "/" not in row["name"]] == listed[1:]


def test_models_inside_models(run, tmp_path):
    """In the newer layout, each layer has a line; of two with one class, each its own weights."""
    inner = layers.Sequential([layers.Dense(2, name="a"), layers.Dense(3, name="b")], name="inner")
    layers.Sequential([layers.Dense(1, input_shape=(4,), name="first"), inner], name="outer").save(tmp_path / "m.keras")
    _, out, _ = run("inspect", tmp_path / "m.keras", "--json")
    rows = {row["name"]: [w["shape"] for w in row["weights"]] for row in json.loads(out)["layers"]}
    assert rows == {"first": [[4, 1], [1]], "inner": [], "inner/a": [[1, 2], [2]], "inner/b": [[2, 3], [3]]}


def test_models_of_layers_that_are_not_here(run, tmp_path):
    """Functional, with a layer that only Keras has; and as Keras 3 names weights, by their layers."""
    entries = [
        {"class_name": "InputLayer", "config": {"name": "x"}},
        {"class_name": "BatchNormalization", "config": {"name": "norm"}},
        {"class_name": "LayerNormalization", "config": {"name": "by_name"}},
    ]
    content = io.BytesIO()
    with h5py.File(content, "w") as root:
        root["layers/batch_normalization/vars/0"] = np.zeros(3, "f4")
        root["layers/by_name/vars/0"] = np.zeros((2, 2), "f8")
        root["layers/more/vars/0"] = np.zeros(5, "f4")
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": {"layers": entries}}))
        archive.writestr("model.weights.h5", content.getvalue())
    status, out, err = run("inspect", tmp_path / "m.keras")
    assert (status, err) == (0, "")
    assert [line.split() for line in out.splitlines()[2:]] == [
        ["norm", "BatchNormalization", "vars/0", "(3,)", "float32", "12"],
        ["by_name", "LayerNormalization", "vars/0", "(2,", "2)", "float64", "32"],
        ["more", "vars/0", "(5,)", "float32", "20"],
        ["3", "layers,", "12", "parameters,", "64", "bytes", "of", "weights"],
    ]


def test_files_that_only_others_load(run, tmp_path):
    """What Keras 1 wrote, and a model of somebody's own class, are listed all the same: nothing is computed."""
    model(tmp_path / "m.h5")
    model(tmp_path / "m.keras")
    listed = {
        name: json.loads(run("inspect", tmp_path / name, "--json")[1])["parameters"] for name in ("m.h5", "m.keras")
    }
    with h5py.File(tmp_path / "m.h5", "a") as root:
        root["model_weights"].attrs["keras_version"] = b"1.2.2"
    with zipfile.ZipFile(tmp_path / "m.keras") as old, zipfile.ZipFile(tmp_path / "own.keras", "w") as new:
        new.writestr(
            "config.json", json.dumps({"class_name": "Mine", "registered_name": "Mine", "config": {"width": 3}})
        )
        new.writestr("model.weights.h5", old.read("model.weights.h5"))
    for name, words, count in (
        ("m.h5", "was written by Keras 1.2.2", listed["m.h5"]),
        ("own.keras", "registered_name [None, 'Mine', 'Mine']", listed["m.keras"]),
    ):
        status, out, _ = run("inspect", tmp_path / name, "--json")
        assert (status, json.loads(out)["parameters"]) == (0, count)
        status, _, err = run("convert", tmp_path / name, tmp_path / "new.npz")
        assert status == 2
        assert words in err


def test_what_could_steer_a_terminal_is_escaped(run, tmp_path):
    name = "\x1b[2J\n\u202e" + "x" * 500
    layers.Sequential([layers.Dense(1, input_shape=(1,), name=name)], name=name).save(tmp_path / "m.keras")
    status, out, _ = run("inspect", tmp_path / "m.keras")
    assert status == 0
    assert "\\x1b[2J\\n\\u202exxx" in out
    assert not {"\x1b", "\u202e"} & set(out)
    assert max(map(len, out.splitlines()[1:])) < 300
    assert json.loads(run("inspect", tmp_path / "m.keras", "--json")[1])["layers"][0]["name"] == name
    assert printable("\ud800é") == "\\ud800é"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_letters_that_the_locale_has_not(encoding, run, tmp_path):
    """They are escaped, and the columns fit; in errors and warnings too."""
    name = "\u0142\u00f6"
    escaped = {"ascii": "\\u0142\\xf6", "latin-1": "\\u0142\u00f6", "utf-8": name}[encoding]
    folder = tmp_path / name
    folder.mkdir()
    made = [layers.Dense(1, input_shape=(1,), name=name), layers.Dense(1, name="another_one")]
    layers.Sequential(made).save(folder / "m.h5")

    def program(*arguments):
        command = [sys.executable, "-m", "localconv", *arguments]
        variables = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        done = subprocess.run(command, env=variables, cwd=folder, capture_output=True, check=False, timeout=120)
        return done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding)

    status, out, err = program("inspect", "m.h5")
    assert (status, err) == (0, "")
    lines = [line.rstrip("\r") for line in out.splitlines()[2:]]
    assert [line.split()[0] for line in lines] == [
        escaped,
        f"{escaped}/bias:0",
        "another_one",
        "another_one/bias:0",
        "2",
    ]
    assert len({len(line) for line in lines[:4]}) == 1, "columns"
    assert json.loads(program("inspect", "m.h5", "--json")[1])["layers"][0]["name"] == name
    status, out, err = program("inspect", f"../{name}/none.h5")
    assert (status, out) == (2, "")
    assert f"../{escaped}/none.h5" in err
    status, out, err = program("convert", "m.h5", "new.h5", "--quantize", "int8")
    assert (status, out) == (0, "")
    assert f"layer {escaped} (Dense)" in err


CONFIGS = {
    "no JSON": "{",
    "no object": "[1]",
    "no layers": {"class_name": "Sequential", "config": {}},
    "no name": {"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": {"name": 3}}]}},
    "no class": {"class_name": "Sequential", "config": {"layers": [{"config": {"name": "d"}}]}},
    "numbers": {"class_name": "Sequential", "config": {"layers": [1, 2]}},
}


def deep(depth):
    entry = {"class_name": "Sequential", "config": {"name": "m", "layers": []}}
    for _ in range(depth):
        entry = {"class_name": "Sequential", "config": {"name": "m", "layers": [entry]}}
    return entry


@pytest.mark.parametrize("config", [*CONFIGS.values(), deep(150), deep(3000)], ids=[*CONFIGS, "deep", "deeper"])
def test_configs_that_are_none(config, run, tmp_path):
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(100_000)
        text = config if isinstance(config, str) else json.dumps(config)
    finally:
        sys.setrecursionlimit(limit)
    content = io.BytesIO()
    with h5py.File(content, "w") as root:
        root.create_group("layers")
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", text)
        archive.writestr("model.weights.h5", content.getvalue())
    for command in (["inspect", tmp_path / "m.keras"], ["convert", tmp_path / "m.keras", tmp_path / "new.npz"]):
        status, out, err = run(*command)
        assert (status, out) == (2, "")
        assert err.startswith(f"localconv: error: {tmp_path / 'm.keras'} ")


def test_groups_inside_themselves(run, tmp_path):
    with h5py.File(tmp_path / "m.weights.h5", "w") as root:
        root["layers/a/vars/0"] = np.zeros(3, "f4")
        root["layers/a/layers"] = root["layers"]
    status, out, _ = run("inspect", tmp_path / "m.weights.h5", "--json")
    assert status == 0
    assert [row["name"] for row in json.loads(out)["layers"]] == ["a"]


# --- convert ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", ["keras", "h5"])
@pytest.mark.parametrize("new", ["keras", "h5", "hdf5", "npz"])
def test_models(old, new, run, tmp_path):
    made = model(tmp_path / f"old.{old}")
    before = (tmp_path / f"old.{old}").read_bytes()
    assert run("convert", tmp_path / f"old.{old}", tmp_path / f"new.{new}") == (0, "", "")
    assert (tmp_path / f"old.{old}").read_bytes() == before
    if new == "npz":
        again = model()
        again.set_weights([0 * w for w in again.get_weights()])
        again.load_weights(tmp_path / "new.npz")
    else:
        again = layers.load_model(tmp_path / f"new.{new}")
    assert [w.tobytes() for w in again.get_weights()] == [w.tobytes() for w in made.get_weights()]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("mode", ["int8", "float16", "bfloat16"])
def test_quantized(mode, run, tmp_path):
    if mode == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="bfloat16 is its")
    made = model(tmp_path / "m.h5")
    status, out, err = run("convert", tmp_path / "m.h5", tmp_path / "small.keras", "--quantize", mode)
    assert (status, out) == (0, "")
    assert err.startswith("localconv: warning: layer read_out (Dense) keeps its weights")
    again = layers.load_model(tmp_path / "small.keras")
    with pytest.warns(UserWarning, match="read_out"):
        made.quantize(mode)
    assert [w.tobytes() for w in again.get_weights()] == [w.tobytes() for w in made.get_weights()]


@pytest.mark.parametrize(("old", "new"), [("npz", "h5"), ("h5", "npz"), ("npz", "npz"), ("h5", "hdf5")])
def test_weights(old, new, run, tmp_path):
    made = model()
    made[0].quantize("float16")
    made.save_weights(tmp_path / f"old.{old}")
    assert run("convert", tmp_path / f"old.{old}", tmp_path / f"new.{new}") == (0, "", "")
    again = model()
    again[0].quantize("float16")
    again.set_weights([0 * w for w in again.get_weights()])
    again.load_weights(tmp_path / f"new.{new}", by_name=True)
    assert [w.tobytes() for w in again.get_weights()] == [w.tobytes() for w in made.get_weights()]


def test_weights_of_a_functional_model_of_keras(run, tmp_path):
    """Weights need no layers that are here."""
    shapes = {"c/kernel:0": (2, 3), "norm/gamma:0": (3,)}
    with h5py.File(tmp_path / "old.h5", "w") as root:
        root.attrs["layer_names"] = [b"c", b"norm"]
        for layer in ("c", "norm"):
            names = [name for name in shapes if name.startswith(layer)]
            root.create_group(layer).attrs["weight_names"] = [name.encode() for name in names]
            for name in names:
                root[layer][name] = np.full(shapes[name], 0.5, "f4")
    assert run("convert", tmp_path / "old.h5", tmp_path / "new.npz") == (0, "", "")
    with np.load(tmp_path / "new.npz") as file:
        assert file["c/c/kernel:0"].tolist() == [[0.5] * 3] * 2
        assert file["norm/norm/gamma:0"].shape == (3,)


REFUSED = {
    "no such suffix": (("m.h5", "new.txt"), "the new file must end in one of"),
    "another format": (("m.h5", "new.weights.h5"), "filepath must end in"),
    "no such file": (("none.h5", "new.npz"), "No such file"),
    "a directory": ((".", "new.npz"), "directory"),
    "no model": (("w.npz", "new.keras"), "holds weights only"),
    "no model to quantize": (("w.npz", "new.npz", "--quantize", "int8"), "holds weights only"),
    "no such mode": (("m.h5", "new.npz", "--quantize", "int3"), "--quantize must be one of"),
    "no names": (("n.weights.h5", "new.npz"), "does not hold the layers' names"),
    "is there": (("m.h5", "w.npz"), "w.npz is there already: --overwrite replaces it"),
    "no directory": (("m.h5", "none/new.npz"), "No such file or directory: 'none/new.npz'"),
    "no directory for a model": (("m.h5", "none/new.keras"), "No such file or directory: 'none/new.keras'"),
    "no file of ours": (("text.h5", "new.npz"), "text.h5"),
    "no archive": (("text.npz", "new.npz"), "text.npz"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model(tmp_path / "m.h5")
    model(tmp_path / "w.npz")
    (tmp_path / "n.weights.h5").write_bytes((GOLDEN / "line_1.weights.h5").read_bytes())
    for name in ("text.h5", "text.npz"):
        (tmp_path / name).write_text("weights, once")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    arguments, words = REFUSED[what]
    status, out, err = run("convert", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("localconv: error: ")
    assert words in err
    assert err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("damage", ["large", "deep", "list"])
def test_damaged_models_are_not_left_to_keras(damage, run, tmp_path):
    """Which has no limits: with the words that the other formats have."""
    h5py = pytest.importorskip("h5py", reason="needs h5py: pip install 'localconv[h5]'")
    model(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        content = json.loads(file.attrs["model_config"])
        if damage == "large":
            content["config"]["layers"][-1]["config"]["units"] = 3_000_000
        elif damage == "deep":
            content["config"]["layers"][-1] = [[[]]]
        else:
            content = [content]
        file.attrs["model_config"] = json.dumps(content)
    said = [run("convert", tmp_path / "m.h5", tmp_path / f"new{suffix}") for suffix in (".npz", ".onnx")]
    assert said[0] == said[1]
    assert said[0][0] == 2


def test_overwrite(run, tmp_path):
    model(tmp_path / "m.h5")
    (tmp_path / "new.keras").write_text("old")
    assert run("convert", tmp_path / "m.h5", tmp_path / "new.keras", "--overwrite") == (0, "", "")
    assert weights_of(tmp_path / "new.keras") == weights_of(tmp_path / "m.h5")
    assert run("convert", tmp_path / "m.h5", tmp_path / "m.h5", "--overwrite") == (0, "", "")
    assert weights_of(tmp_path / "new.keras") == weights_of(tmp_path / "m.h5")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((("a", "k"), ("a", "l")), "layers of one name"),
        ((("", "k"),), "layer '' cannot be saved"),
        ((("a", ""),), "layer 'a' cannot be saved"),
        ((("a/k", "k"), ("a", "k")), "layer 'a/k' cannot be saved"),
    ],
)
def test_names_that_other_files_do_not_hold(names, words, run, tmp_path):
    with open(tmp_path / "w.npz", "wb") as file:
        layers.files.npz.write([(layer, {weight: np.zeros(2, "f4")}) for layer, weight in names], file)
    status, _, err = run("convert", tmp_path / "w.npz", tmp_path / "new.h5")
    assert status == 2
    assert words in err
    assert [path.name for path in tmp_path.iterdir()] == ["w.npz"]


def test_names_that_are_paths(run, tmp_path):
    """In whatever order the layers are."""
    weights = [(layer, {"k": np.full(2, number, "f4")}) for number, layer in enumerate(["a/b", "a", "model_weights"])]
    with open(tmp_path / "w.npz", "wb") as file:
        layers.files.npz.write(weights, file)
    assert run("convert", tmp_path / "w.npz", tmp_path / "w.h5") == (0, "", "")
    assert run("convert", tmp_path / "w.h5", tmp_path / "again.npz") == (0, "", "")
    with np.load(tmp_path / "w.npz") as before, np.load(tmp_path / "again.npz") as after:
        assert {name: after[name].tolist() for name in after} == {name: before[name].tolist() for name in before}


def test_without_h5py(run, tmp_path, monkeypatch):
    model(tmp_path / "w.npz")
    monkeypatch.setitem(sys.modules, "h5py", None)
    for arguments in (("inspect", GOLDEN / "line_1.h5"), ("convert", tmp_path / "w.npz", tmp_path / "w.h5")):
        status, out, err = run(*arguments)
        assert (status, out) == (2, "")
        assert "pip install 'h5py>=" in err
    assert run("inspect", tmp_path / "w.npz")[0] == 0
