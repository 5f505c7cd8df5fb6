"""Whole models in files: what `Sequential.save` writes, real Keras and `load_model` read."""

import importlib.util
import io
import json
import pathlib
import sys
import zipfile

import numpy as np
import pytest
from layer_cases import GOLDEN, assert_close, golden

from localconv import layers
from localconv.layers.files import stored
from localconv.layers.files.contents import contents_of

h5py = pytest.importorskip("h5py")

# By its path: beside it is a directory `keras`, which is not to be found as that package.
spec = importlib.util.spec_from_file_location("saved_models", GOLDEN.parent / "saved_models.py")
saved_models = importlib.util.module_from_spec(spec)
spec.loader.exec_module(saved_models)

SUFFIXES = ("keras", "h5")


def plain(attribute):
    """Names as texts, however HDF5 holds them."""
    listed = np.asarray(attribute).tolist()
    names = [listed] if isinstance(listed, (str, bytes)) else listed
    return [name.decode() if isinstance(name, bytes) else name for name in names]


def content(path):
    """All that a model's file holds but the date: its config, and groups, attributes and datasets by name."""
    found = {}

    def look(name, item):
        attributes = {key: plain(value) for key, value in item.attrs.items() if key != "model_config"}
        found[name] = attributes, item[()].tobytes() if isinstance(item, h5py.Dataset) else None

    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        assert list(parts) == ["metadata.json", "config.json", "model.weights.h5"]
        assert json.loads(parts["metadata.json"]).pop("date_saved")
        found["version"], config = json.loads(parts["metadata.json"])["keras_version"], parts["config.json"]
        source = io.BytesIO(parts["model.weights.h5"])
    else:
        source = path
    with h5py.File(source) as file:
        if path.suffix != ".keras":
            config = file.attrs["model_config"]
        look("", file)
        file.visititems(look)
    return json.loads(config), found


def same(first, second):
    pairs = list(zip(first.get_weights(), second.get_weights(), strict=True))
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)


# --- Keras ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", golden("saved"), ids=lambda case: case["file"])
def test_keras_reads_what_is_saved(case):
    """What real Keras found in the files of saved_models.py: the same config, weights and answers."""
    model = saved_models.made(case["file"])
    mine, keras = json.loads(model.to_json()), json.loads(case["config"])
    for entry in mine["config"]["layers"]:
        if entry["class_name"] != "Dropout":
            entry["config"].pop("seed", None)
    mine["config"].pop("dtype", None)
    assert mine == keras
    for ours, theirs in zip(model.get_weights(), case["weights"], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    y = model.predict(case["x"])
    assert_close(y, case["y"].astype(y.dtype))  # of the model's dtype, and not of its last layer's as in Keras
    assert same(model, layers.load_model(GOLDEN / case["file"]))


@pytest.mark.parametrize("file", saved_models.FILES)
def test_what_keras_read_is_what_is_saved_today(file, tmp_path):
    saved_models.made(file).save(tmp_path / file)
    assert content(tmp_path / file) == content(GOLDEN / file)


WHOLE = [(case, name) for case in golden("files") for name in case["files"] if name.endswith((".keras", ".model.h5"))]


@pytest.mark.parametrize(("case", "name"), WHOLE, ids=[name for _, name in WHOLE])
def test_it_is_the_file_that_keras_wrote(case, name, tmp_path):
    """Byte by byte in config and weights, attribute by attribute."""
    path = tmp_path / name
    layers.load_model(GOLDEN / name).save(path)
    assert content(path) == content(GOLDEN / name)
    assert_close(layers.load_model(path).predict(case["x"]), case["y"])


# --- round trips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [*SUFFIXES, "hdf5", "KERAS"])
@pytest.mark.parametrize("name", saved_models.MODELS)
def test_round_trip(name, suffix, tmp_path):
    model = saved_models.made(f"ours_{name}.{suffix}")
    model.save(tmp_path / f"model.{suffix}")
    again = layers.load_model(tmp_path / f"model.{suffix}")
    x = np.random.default_rng(0).standard_normal((2, *model.input_shape[1:])).astype("float32")
    assert same(model, again)
    assert model(x).tobytes() == again(x).tobytes()
    assert [v.name for v in again.weights] == [v.name for v in model.weights]
    assert [layer.trainable for layer in again] == [layer.trainable for layer in model]
    assert [path.name for path in tmp_path.iterdir()] == [f"model.{suffix}"]
    again.save(tmp_path / f"twice.{suffix.lower()}")
    assert same(model, layers.load_model(tmp_path / f"twice.{suffix.lower()}"))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("mode", ["int8", "float16", "bfloat16"])
def test_quantized_models(mode, suffix, tmp_path):
    if mode == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="bfloat16 is its")
    model = saved_models.made("ours_nest.keras")
    model.quantize(mode)
    model.save(tmp_path / f"small.{suffix}")
    again = layers.load_model(tmp_path / f"small.{suffix}")
    assert [layer.quantization_mode for layer in again] == [layer.quantization_mode for layer in model]
    assert same(model, again)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_weights_that_do_not_train(suffix, tmp_path):
    """The order in the file is that of a model made of its config, which knows of layers and not of variables."""

    def made(name):
        return layers.LocallyConnected1D(2, 1, input_shape=(2, 2), name=name)

    model = layers.Sequential([made("a"), layers.Sequential([made("b"), made("c")], name="inner")])
    model.set_weights([np.full(w.shape, number) for number, w in enumerate(model.get_weights())])
    model[0].kernel.trainable = model[1][0].kernel.trainable = False
    model[1].trainable = False
    model[1][1].trainable = True
    model.save(tmp_path / f"model.{suffix}")
    again = layers.load_model(tmp_path / f"model.{suffix}")
    values = {v.name: v.numpy().tolist() for v in model.weights}
    assert {v.name: v.numpy().tolist() for v in again.weights} == values


def twice(x):
    return 2 * x


class Scale(layers.Layer):
    """A user's layer with a weight."""

    def _build(self, shape):
        self.factor = self.add_weight("factor", (1,), "ones")

    def _forward(self, x, training):
        return x * self.factor.value, x


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_users_own(suffix, tmp_path):
    model = layers.Sequential([layers.Dense(2, activation=twice, input_shape=(3,)), Scale(seed=4, name="scale")])
    model[1].factor.assign([3.0])
    model.save(tmp_path / f"own.{suffix}")
    own = {"twice": twice, "Scale": Scale}
    again = layers.load_model(tmp_path / f"own.{suffix}", own)
    assert same(model, again)
    assert again[1].seed == 4, "what a user's config holds stays"
    assert (again[0].activation, type(again[1])) == (twice, Scale)
    with pytest.raises(ValueError, match="must be named in a custom_object_scope"):
        layers.load_model(tmp_path / f"own.{suffix}")


def test_a_users_class_of_keras_name(tmp_path):
    """Is not taken for Keras's."""
    own = type("Dense", (Scale,), {})
    model = layers.Sequential([own(input_shape=(2,), name="d")])
    for suffix in SUFFIXES:
        model.save(tmp_path / f"own.{suffix}")
        assert type(layers.load_model(tmp_path / f"own.{suffix}", {"Dense": own})[0]) is own
        with pytest.raises(ValueError, match="must be named in a custom_object_scope"):
            layers.load_model(tmp_path / f"own.{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_large_configs(suffix, tmp_path):
    """More than the 64 KiB of an ordinary attribute of HDF5."""
    model = layers.Sequential([layers.Dense(1, input_shape=(1,), name=f"layer {number}") for number in range(150)])
    model.save(tmp_path / f"deep.{suffix}")
    assert len(model.to_json()) > 2**16
    assert same(model, layers.load_model(tmp_path / f"deep.{suffix}"))


# --- refusals ---------------------------------------------------------------------------------------------------------


def tiny():
    return layers.Sequential([layers.Dense(1, input_shape=(1,), name="d")])


@pytest.mark.parametrize("name", ["model", "model.npz", "model.weights.h5", "model.txt", "keras"])
def test_suffix(name, tmp_path):
    with pytest.raises(ValueError, match=r"filepath must end in \.keras, \.h5 or \.hdf5"):
        tiny().save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_left_of_what_fails(suffix, tmp_path, monkeypatch):
    """The old file stays whatever goes wrong: a name that no file holds, a lambda, no h5py, a full disk."""
    path = tmp_path / f"model.{suffix}"
    tiny().save(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="overwrite is False"):
        tiny().save(path, overwrite=False)
    with pytest.raises(ValueError, match="have not yet been created"):
        layers.Sequential([layers.Dense(1)]).save(path)
    with pytest.raises(ValueError, match="give it a name"):
        layers.Sequential([layers.Dense(1, activation=lambda x: x, input_shape=(1,))]).save(path)
    if suffix == "h5":
        with pytest.raises(ValueError, match="no NUL"):
            layers.Sequential([layers.Dense(1, input_shape=(1,), name="a\0b")]).save(path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "h5py", None)
        with pytest.raises(ImportError, match="pip install 'h5py>="):
            tiny().save(path)
    with monkeypatch.context() as patch:
        patch.setattr(layers.files.hdf5, "_write_versions" if suffix == "h5" else "_write_newer", full_disk)
        with pytest.raises(OSError, match="No space left"):
            tiny().save(path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def full_disk(*arguments):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("limit", "least"), [("JSON_LIMIT", 100), ("MOST_PARTS", 3)])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_could_not_be_loaded_is_not_saved(limit, least, suffix, tmp_path, monkeypatch):
    for module in (stored, layers.files.saving):
        monkeypatch.setattr(module, limit, least)
    with pytest.raises(ValueError, match="the config of a model must be at most"):
        tiny().save(tmp_path / f"model.{suffix}")
    assert not list(tmp_path.iterdir())


def test_paths_of_every_kind(tmp_path):
    for path in (str(tmp_path / "a.keras"), tmp_path / "b.keras", pathlib.PurePath(tmp_path, "c.keras")):
        tiny().save(path)
    assert len(list(tmp_path.iterdir())) == 3


def as_keras_3(path, version):
    """A file of `Sequential.save` with the version and the dtypes of layers that Keras 3 writes."""
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}

    def changed(text):
        config = json.loads(text)
        config["config"]["layers"][-1]["config"]["dtype"] = policy
        return json.dumps(config)

    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        parts["metadata.json"] = json.dumps({"keras_version": version})
        parts["config.json"] = changed(parts["config.json"])
        with zipfile.ZipFile(path, "w") as archive:
            for name, part in parts.items():
                archive.writestr(name, part)
        return
    with h5py.File(path, "r+") as file:
        file.attrs["keras_version"] = version
        file.attrs["model_config"] = changed(file.attrs["model_config"])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_of_keras_3(suffix, tmp_path):
    """Whose layers cannot be made here: the error says what the file is and who reads it."""
    path = tmp_path / f"model.{suffix}"
    layers.Sequential([layers.Dense(2, input_shape=(3,))]).save(path)
    as_keras_3(path, "3.15.1")
    with pytest.raises(
        ValueError, match=r"was written by Keras '3\.15\.1': .* localconv\.keras .*DTypePolicy"
    ) as caught:
        layers.load_model(path)
    assert str(caught.value).count(str(path)) == 1
    as_keras_3(path, "2.15.0")
    with pytest.raises(ValueError, match="describes a model that cannot be made: dtype must be") as caught:
        layers.load_model(path)
    assert "localconv.keras" not in str(caught.value)


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"keras_version": 3}', b"{}", None])
def test_metadata_that_say_nothing(metadata, tmp_path):
    """A model is read whatever they are; and if it cannot be, an error of the file's."""
    path = tmp_path / "model.keras"
    model = layers.Sequential([layers.Dense(2, input_shape=(3,))])
    for wrong in (False, True):
        model.save(path)
        if wrong:
            as_keras_3(path, "2.15.0")
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()} | {"metadata.json": metadata}
        with zipfile.ZipFile(path, "w") as archive:
            for name, part in parts.items():
                if part is not None:
                    archive.writestr(name, part)
        if wrong:
            with pytest.raises(ValueError, match=r"model\.keras"):
                layers.load_model(path)
        else:
            assert same(layers.load_model(path), model)


def edited(path, edit, version="2.2.4"):
    """A model's .h5 file with another config, as another version of Keras would have written it."""
    model = layers.Sequential(
        [
            layers.LocallyConnected1D(2, 3, name="local", input_shape=(6, 2)),
            layers.Flatten(),
            layers.Dense(2, name="dense"),
        ]
    )
    model.set_weights([np.full(w.shape, 1.0 + number) for number, w in enumerate(model.get_weights())])
    model.save(path)
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        edit(config)
        file.attrs["model_config"] = json.dumps(config).encode()
        file.attrs["keras_version"] = file["model_weights"].attrs["keras_version"] = version.encode()
    return model


def with_batch_normalization(config):
    config["config"]["layers"].insert(1, {"class_name": "BatchNormalization", "config": {"name": "norm"}})


def of_class(name):
    return lambda config: config.update(class_name=name)


def inside(config):
    config["config"]["layers"][1] = {"class_name": "Functional", "config": {"name": "inner", "layers": []}}


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (of_class("Functional"), r"describes a functional model \('Functional'\)"),
        (of_class("Model"), r"describes a functional model \('Model'\)"),
        (of_class("Mine"), "Sequential of Keras's own class, it has .* 'Mine'"),
        (inside, "Unknown layer: 'Functional'"),
        (with_batch_normalization, "Unknown layer: 'BatchNormalization'"),
    ],
)
def test_models_of_what_is_not_here(edit, words, tmp_path):
    """The error says who opens them; and what it says of the weights is so."""
    path = tmp_path / "model.h5"
    model = edited(path, edit)
    with pytest.raises(ValueError, match=words) as raised:
        layers.load_model(path)
    assert str(raised.value).startswith(f"{path} describes a model that cannot be made: ")
    for way in ("localconv.keras.install()", "keras.models.load_model(FILE)", "load_weights(FILE, by_name=True)"):
        assert way in str(raised.value)
    assert "`python -m localconv inspect FILE`" in str(raised.value)
    with h5py.File(path) as file, pytest.raises(ValueError, match=r"localconv\.keras\.install\(\)"):
        layers.Sequential.from_json(file.attrs["model_config"])
    other = layers.Sequential.from_config(model.get_config())
    other.load_weights(path, by_name=True)
    assert same(other, model)
    assert contents_of(path)["parameters"] == model.count_params()


def without_shape(config):
    entries = [entry for entry in config["config"]["layers"] if entry["class_name"] != "InputLayer"]
    entries[0]["config"].pop("batch_input_shape", None)
    config["config"]["layers"] = entries


def with_an_empty_input(config):
    without_shape(config)
    config["config"]["layers"].insert(0, {"class_name": "InputLayer", "config": {"name": "x", "sparse": False}})


@pytest.mark.parametrize("edit", [without_shape, with_an_empty_input])
def test_models_without_a_shape(edit, tmp_path):
    """As Keras 2.2 wrote those that began with an InputLayer."""
    path = tmp_path / "model.h5"
    model = edited(path, edit)
    with pytest.raises(ValueError, match=r"shape.* Make the model in code with the input_shape .* load_weights reads"):
        layers.load_model(path)
    other = layers.Sequential.from_config(model.get_config())
    other.load_weights(path)
    assert same(other, model)


def test_models_that_note_their_shape_at_the_end(tmp_path):
    def edit(config):
        without_shape(config)
        config["config"]["build_input_shape"] = [None, 6, 2]

    path = tmp_path / "model.h5"
    model = edited(path, edit)
    assert same(layers.load_model(path), model)
    edited(path, lambda config: edit(config) or config["config"].update(build_input_shape="wrong"))
    with pytest.raises(ValueError, match="input_shape must be"):
        layers.load_model(path)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("LocallyConnected1D", {"nb_filter": 2, "filter_length": 3, "border_mode": "valid", "init": "uniform"}),
        ("Convolution2D", {"nb_filter": 2, "nb_row": 3, "nb_col": 3, "dim_ordering": "tf", "subsample": [1, 1]}),
        ("Dense", {"output_dim": 2, "init": "uniform", "W_regularizer": None}),
    ],
)
def test_models_of_keras_1(kind, arguments, tmp_path):
    def edit(config):
        entry = {"class_name": kind, "config": {"name": "old", "batch_input_shape": [None, 6, 2]} | arguments}
        config["config"] = [entry]  # a list of layers

    path = tmp_path / "model.h5"
    edited(path, edit, "1.2.2")
    with pytest.raises(ValueError, match=r"layer 'old' has arguments of Keras 1, .* in Keras 2, whose load_weights"):
        layers.load_model(path)
    with pytest.raises(ValueError, match=r"was written by Keras 1\.2\.2 .* in Keras 2, whose load_weights"):
        tiny().load_weights(path)


@pytest.mark.parametrize("read", [layers.load_model, lambda path: tiny().load_weights(path), contents_of])
def test_what_tensorflow_saves_in_several_files(read, tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(IsADirectoryError):
        read(tmp_path / "model")
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"")
    (tmp_path / "weights.index").write_bytes(b"")
    for name, words in (("model", "is a SavedModel, a folder"), ("weights", "is a checkpoint, several files")):
        with pytest.raises(ValueError, match=f"{name} {words} of TensorFlow's.*load it in Keras 2 .* and save it"):
            read(tmp_path / name)


def test_files_of_weights_alone(tmp_path):
    """The error says how they are loaded, without h5py too where that is not needed."""
    model = layers.Sequential([layers.Dense(2, input_shape=(3,))])
    for name in ("w.npz", "w.h5"):
        model.save_weights(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} holds no model but weights only: make the model, then load_weig"):
            layers.load_model(tmp_path / name)
    np.savez(tmp_path / "other.npz", kernel=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz was not written by save_weights"):
        layers.load_model(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        layers.load_model(tmp_path / "none.npz")
