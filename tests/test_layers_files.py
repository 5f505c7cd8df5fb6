"""Weights and models in files: those that Keras 2.15 wrote, and our own."""

import json
import re
import shutil
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layer_cases import GOLDEN, assert_close, golden

from localconv import layers
from localconv.layers.files import stored as limits

h5py = pytest.importorskip("h5py")

FILES = [pytest.param(GOLDEN / name, case, id=name) for case in golden("files") for name in case["files"]]


def blank(case):
    """The case's model with weights of 7."""
    model = layers.Sequential.from_json(case["config"])
    model.set_weights([np.full(w.shape, 7.0) for w in model.get_weights()])
    return model


def holds(model, weights):
    return all(np.array_equal(ours, theirs) for ours, theirs in zip(model.get_weights(), weights, strict=True))


def small(**first):
    """A model whose layers have the names that the test files use."""
    return layers.Sequential(
        [
            layers.LocallyConnected1D(2, 3, name="local_1d", input_shape=(7, 2), **first),
            layers.LocallyConnected1D(2, 2, strides=2, use_bias=False, name="locally_connected1d"),
        ]
    )


@pytest.mark.parametrize(("path", "case"), FILES)
def test_keras_files_by_order(path, case):
    model = blank(case)
    model.load_weights(path)
    assert holds(model, case["weights"])
    assert_close(model.predict(case["x"]), case["y"])


@pytest.mark.parametrize(
    ("path", "case"), [p for p in FILES if p.id.endswith(".h5") and not p.id.endswith(".weights.h5")]
)
def test_keras_files_by_name(path, case):
    """One layer at a time, the last one first, and another layer in front of it."""
    whole = blank(case)
    weighted = [layer for layer in whole.layers if layer.weights]
    for layer in reversed(weighted):
        lone = layers.Sequential([layers.Activation("relu", batch_input_shape=layer.input_shape), layer])
        lone.load_weights(path, by_name=True)
    assert holds(whole, case["weights"])


@pytest.mark.parametrize("case", golden("files"))
def test_config_is_that_of_keras(case):
    assert json.loads(layers.Sequential.from_json(case["config"]).to_json()) == json.loads(case["config"])


@pytest.mark.parametrize(("path", "case"), [p for p in FILES if p.id.endswith((".model.h5", ".keras"))])
def test_whole_models(path, case):
    model = layers.load_model(path)
    assert holds(model, case["weights"])
    assert_close(model.predict(case["x"]), case["y"])


def test_weights_file_holds_no_model():
    with pytest.raises(ValueError, match="holds no model"):
        layers.load_model(GOLDEN / "line_1.h5")


def face():
    """As make_layers_golden.py makes it."""
    rows, columns, channels = np.ogrid[:71, :71, :3]
    return np.sin(0.3 * rows + 0.2 * columns * (channels + 1) + channels)[None].astype("float32")


def locally_connected_part():
    """The deepface network up to its last locally connected layer,
    without the pooling's or the dense layers' help to match.
    """
    return layers.Sequential(
        [
            layers.Conv2D(2, 11, activation="relu", name="C1", input_shape=(71, 71, 3)),
            layers.MaxPooling2D(pool_size=3, strides=2, padding="same", name="another_name"),
            layers.Conv2D(1, 9, activation="relu", name="C3"),
            layers.LocallyConnected2D(2, 9, activation="relu", name="L4"),
            layers.LocallyConnected2D(2, 7, strides=2, activation="relu", name="L5"),
            layers.LocallyConnected2D(2, 5, activation="relu", name="L6"),
        ]
    )


def test_deepface():
    (case,) = golden("deepface")
    model = layers.load_model(GOLDEN / "deepface.model.h5")
    assert_close(model.predict(face()), case["y"])
    assert [layer.output_shape[1:3] for layer in model.layers[3:6]] == [(15, 15), (5, 5), (1, 1)]
    inner = locally_connected_part()
    inner.load_weights(GOLDEN / "deepface.model.h5", by_name=True)
    assert_close(inner.predict(face()), case["inner"])
    with pytest.raises(ValueError, match="Layer count mismatch"):
        inner.load_weights(GOLDEN / "deepface.model.h5")


# --- nothing half-loaded ----------------------------------------------------------------------------------------------


def refused(model, path, *words, error=ValueError, **options):
    before = model.get_weights()
    with pytest.raises(error) as caught:
        model.load_weights(path, **options)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert holds(model, before)


@pytest.mark.parametrize("by_name", [False, True])
def test_other_shape_in_a_later_layer(by_name):
    model = layers.Sequential(
        [
            layers.LocallyConnected1D(2, 3, name="local_1d", input_shape=(7, 2)),
            layers.LocallyConnected1D(3, 2, strides=2, use_bias=False, name="locally_connected1d"),
        ]
    )
    path = GOLDEN / "line_1.h5"
    with h5py.File(path) as file:
        name = next(name for name in file if name.startswith("locally_connected1d"))
    model.layers[1]._name = name
    refused(model, path, "Shape mismatch in layer #1", "(2, 4, 3)", "(2, 4, 2)", by_name=by_name)


def test_another_implementation():
    for stored in (2, 3):
        refused(
            small(),
            GOLDEN / f"line_{stored}.h5",
            "Shape mismatch in layer #0 (named local_1d",
            "convert_implementation",
        )
    refused(small(implementation=2), GOLDEN / "line_1.h5", "Shape mismatch", "convert_implementation")


def test_weights_of_another_implementation_convert():
    case = next(case for case in golden("files") if "line_3.h5" in case["files"])
    theirs, ours = layers.Sequential.from_json(case["config"]), small()
    theirs.load_weights(GOLDEN / "line_3.h5")
    for mine, their in zip(ours.layers, theirs.layers, strict=True):
        entry = {
            "class_name": "LocallyConnected1D",
            "config": their.get_config(),
            "build_config": {"input_shape": their.input_shape},
        }
        mine.set_weights(layers.convert_implementation(their.get_weights(), entry, 1))
    assert_close(ours.predict(case["x"]), case["y"])


def test_other_number_of_weights():
    model = layers.Sequential([layers.LocallyConnected1D(2, 3, name="local_1d", input_shape=(7, 2), use_bias=False)])
    refused(model, GOLDEN / "line_1.h5", "Layer count mismatch", "expected 1 layers, found 2")
    refused(
        model,
        GOLDEN / "line_1.h5",
        "Weight count mismatch for layer #0",
        "expects 1 weight(s)",
        "Received 2",
        by_name=True,
    )


def test_no_name_fits():
    model = layers.Sequential([layers.LocallyConnected1D(2, 3, name="other", input_shape=(7, 2))])
    refused(model, GOLDEN / "line_1.h5", "local_1d", "other", by_name=True)


def test_skipped_mismatch():
    model = small(implementation=2)
    model.layers[1]._name = "elsewhere"
    before = model.get_weights()
    with pytest.warns(UserWarning, match="Skipping loading of weights: Shape mismatch in layer #0"):
        model.load_weights(GOLDEN / "line_1.h5", by_name=True, skip_mismatch=True)
    assert holds(model, before)
    refused(model, GOLDEN / "line_1.h5", "skip_mismatch", skip_mismatch=True)


def test_names_that_the_newer_layout_does_not_have():
    refused(small(), GOLDEN / "line_1.weights.h5", "load it by order", by_name=True)


def test_newer_layout_with_other_layers():
    model = layers.Sequential([layers.LocallyConnected1D(2, 3, input_shape=(7, 2))])
    refused(
        model, GOLDEN / "line_1.weights.h5", "has layers with weights that the model has not", "locally_connected1d_1"
    )
    model = layers.Sequential([layers.Conv1D(2, 3, input_shape=(7, 2))])
    refused(model, GOLDEN / "line_1.weights.h5", "no layer 'conv1d'")


def test_model_that_is_not_built():
    with pytest.raises(ValueError, match="have not yet been created"):
        layers.Sequential([layers.Conv1D(2, 3)]).load_weights(GOLDEN / "line_1.h5")
    with pytest.raises(ValueError, match="have not yet been created"):
        layers.Sequential([layers.Conv1D(2, 3)]).save_weights("nothing.npz")


def test_no_such_file(tmp_path):
    for suffix in (".h5", ".npz", ".keras"):
        refused(small(), tmp_path / f"none{suffix}", "none", error=FileNotFoundError)


def test_files_that_are_none(tmp_path):
    (tmp_path / "text.h5").write_text("weights, once")
    refused(small(), tmp_path / "text.h5", "text.h5")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    refused(small(), tmp_path / "other.npz", "not written by save_weights")
    np.save(tmp_path / "array.npy", np.zeros(3))
    shutil.move(tmp_path / "array.npy", tmp_path / "array.npz")
    refused(small(), tmp_path / "array.npz", "was not written by save_weights")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    refused(small(), tmp_path / "empty.h5", "does not hold weights")
    with zipfile.ZipFile(tmp_path / "zip.keras", "w") as archive:
        archive.writestr("readme", "nothing")
    refused(small(), tmp_path / "zip.keras", "model.weights.h5")
    shutil.copy(GOLDEN / "line_1.h5", tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5", "a") as file:
        file.attrs["keras_version"] = b"1.2.2"
    refused(small(), tmp_path / "old.h5", "Keras 1.2.2")


def test_damaged_files(tmp_path):
    model = small()
    model.save_weights(tmp_path / "a.npz")
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    refused(model, tmp_path / "cut.npz", "cut.npz")
    wrong = bytearray(content)
    wrong[content.index(model.weights[0].value.tobytes()) + 1] ^= 1
    (tmp_path / "wrong.npz").write_bytes(wrong)
    refused(model, tmp_path / "wrong.npz", "damaged", "CRC")
    content = (GOLDEN / "line_1.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    refused(model, tmp_path / "cut.h5", "cut.h5")
    shutil.copy(GOLDEN / "line_1.h5", tmp_path / "less.h5")
    with h5py.File(tmp_path / "less.h5", "a") as file:
        del file["local_1d/local_1d/bias:0"]
    refused(model, tmp_path / "less.h5", "damaged", "bias:0")


# --- our own files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["npz", "h5", "hdf5", "NPZ"])
def test_round_trip(tmp_path, suffix):
    for case in golden("files"):
        model, other = blank(case), blank(case)
        model.set_weights(case["weights"])
        model.save_weights(tmp_path / f"w.{suffix}")
        other.load_weights(tmp_path / f"w.{suffix}")
        assert holds(other, case["weights"])
        third = blank(case)
        third.load_weights(tmp_path / f"w.{suffix}", by_name=True)
        assert holds(third, case["weights"])
    assert [path.name for path in tmp_path.iterdir()] == [f"w.{suffix}"]


def test_h5_has_the_layout_of_keras(tmp_path):
    """Groups, attributes and datasets are those that Keras wrote, name by name and byte by byte."""

    def content(path):
        found = {}
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item: found.update(
                    {
                        name: (
                            {key: np.asarray(value).tolist() for key, value in item.attrs.items()},
                            item[()].tobytes() if isinstance(item, h5py.Dataset) else None,
                        )
                    }
                )
            )
            return found, {key: np.asarray(value).tolist() for key, value in file.attrs.items()}

    case = next(case for case in golden("files") if "network_1_channels_first.h5" in case["files"])
    model = blank(case)
    model.set_weights(case["weights"])
    model.save_weights(tmp_path / "ours.h5")

    def plain(value):
        if isinstance(value, bytes):
            return value.decode()
        return [plain(part) for part in value] if isinstance(value, list) else value

    ours, theirs = content(tmp_path / "ours.h5"), content(GOLDEN / "network_1_channels_first.h5")
    assert ours[0].keys() == theirs[0].keys()
    for name, (attributes, data) in ours[0].items():
        assert data == theirs[0][name][1], name
        assert {k: plain(v) for k, v in attributes.items()} == {k: plain(v) for k, v in theirs[0][name][0].items()}, (
            name
        )
    assert {k: plain(v) for k, v in ours[1].items()} == {k: plain(v) for k, v in theirs[1].items()}


def test_more_names_than_one_attribute_holds(tmp_path):
    model = layers.Sequential(name="deep")
    for number in range(40):
        model.add(layers.Dense(1, name=f"{number}_" + "long" * 500, input_shape=(1,)))
    weights = [np.full(w.shape, number) for number, w in enumerate(model.get_weights())]
    model.set_weights(weights)
    model.save_weights(tmp_path / "deep.h5")
    model.set_weights([w * 0 for w in weights])
    model.load_weights(tmp_path / "deep.h5")
    assert holds(model, weights)


# --- names that are paths ---------------------------------------------------------------------------------------------


def named(*names):
    """A model of layers of these names, every weight with a value of its own."""
    model = layers.Sequential([layers.Dense(1, name=name) for name in names])
    model.build((None, 1))
    model.set_weights([np.full(w.shape, 1.0 + number) for number, w in enumerate(model.get_weights())])
    return model


WAYS = {
    "weights.h5": lambda model, path: model.save_weights(path),
    "weights.npz": lambda model, path: model.save_weights(path),
    "model.h5": lambda model, path: model.save(path),
    "model.keras": lambda model, path: model.save(path),
}


def comes_back(model, path):
    """What has been saved is read, by order and by name, and is what it was."""
    expected = model.get_weights()
    if path.name.startswith("model"):
        assert holds(layers.load_model(path), expected)
        return
    for by_name in (False, True):
        other = named(*[layer.name for layer in model.layers])
        other.set_weights([w * 0 for w in expected])
        other.load_weights(path, by_name)
        assert holds(other, expected)


# What Keras 2.15 saves and reads, as a file of weights and as a model.
SAVED_BY_KERAS = [
    ("a/b", "a"),
    ("a", "a/b"),
    ("a//b", "a"),
    ("a/", "b"),
    ("..", "a"),
    ("a/top_level_model_weights", "a"),
    ("model_weights", "a"),
    ("model_weights/a", "b"),
    ("model_weights/top_level_model_weights", "a"),
    ("layers", "vars"),
    ("optimizer_weights", "a"),
    ("a/kernel", "b"),
    ("a\\b", "a"),
    ("b/c/d", "b", "b/c", "b-c"),
]


@pytest.mark.parametrize("names", SAVED_BY_KERAS, ids=str)
@pytest.mark.parametrize("file", WAYS)
def test_names_that_keras_saves(file, names, tmp_path):
    WAYS[file](named(*names), tmp_path / file)
    comes_back(named(*names), tmp_path / file)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("names", "culprit", "whose"),
    [
        (("a", "a/a"), "a/a", "that of layer 'a'"),
        (("a/a", "a"), "a/a", "that of layer 'a'"),
        (("a//b", "a/b"), "a/b", "that of layer 'a//b'"),
        (("./a", "a"), "a", "that of layer './a'"),
        (("a/.", "b"), "a/.", "its own"),
        ((".", "b"), ".", "the file's own"),
        (("", "b"), "", "the file's own"),
        (("/", "b"), "/", "the file's own"),
        (("a", "a/a/kernel:0/b"), "a/a/kernel:0/b", "that of layer 'a'"),
        (("top_level_model_weights", "b"), "top_level_model_weights", "the file's own"),
        (("b", "top_level_model_weights/a"), "top_level_model_weights/a", "the file's own"),
    ],
    ids=str,
)
def test_names_that_meet_in_a_file(names, culprit, whose, whole, tmp_path, monkeypatch):
    """Keras stops in the middle of the file. Here nothing is begun, and the other formats take them."""
    path = tmp_path / "file.h5"
    with monkeypatch.context() as patch:
        patch.setattr(layers.files.saving, "write_whole", None)
        with pytest.raises(ValueError, match=re.escape(f"layer {culprit!r} cannot be saved: what is '")) as raised:
            named(*names).save(path) if whole else named(*names).save_weights(path)
    assert f"in the file is {whose}; give it another name" in str(raised.value)
    file = "model.keras" if whole else "weights.npz"
    WAYS[file](named(*names), tmp_path / file)
    comes_back(named(*names), tmp_path / file)


def test_names_that_meet_the_group_of_a_models_weights(tmp_path):
    """Which a file of weights has not."""
    names = ("/model_weights", "a")
    with pytest.raises(ValueError, match=r"layer '/model_weights' cannot be saved.*the file's own"):
        named(*names).save(tmp_path / "model.h5")
    named(*names).save_weights(tmp_path / "weights.h5")
    comes_back(named(*names), tmp_path / "weights.h5")


PARTS = st.sampled_from(["a", "b", "", ".", "..", "a:0", "kernel:0", "top_level_model_weights", "model_weights"])


@given(st.lists(st.lists(PARTS, min_size=1, max_size=5).map("/".join), min_size=1, max_size=5, unique=True))
@pytest.mark.parametrize("file", WAYS)
def test_what_is_saved_under_any_names_comes_back(file, tmp_path_factory, names):
    path = tmp_path_factory.mktemp("names") / file
    try:
        WAYS[file](named(*names), path)
    except ValueError as error:
        assert file.endswith("h5")
        assert any(str(error).startswith(f"layer {name!r} cannot be saved") for name in names)  # noqa: PT017
        assert not list(path.parent.iterdir())
    else:
        comes_back(named(*names), path)


@pytest.mark.parametrize("file", ["weights.h5", "model.h5"])
def test_names_of_many_parts(file, tmp_path):
    """What would be too deep to be read is not written; a name is there twice, that of the layer and of the weight."""
    saved = []
    for parts in range(124, 130):
        model, path = named("/".join("a" * parts)), tmp_path / file
        path.unlink(missing_ok=True)
        try:
            WAYS[file](model, path)
        except ValueError as error:
            assert re.match(r"layer 'a/a/.* cannot be saved: its name has 2\d\d parts", str(error))  # noqa: PT017
        else:
            comes_back(model, path)
            saved.append(parts)
    assert saved == list(range(124, 128 if file == "weights.h5" else 127))


def test_names_that_are_too_many_bytes_to_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "NAMES_LIMIT", 2000)
    for file in ("weights.h5", "model.h5", "weights.npz"):
        with pytest.raises(ValueError, match="names of layers and weights must"):
            WAYS[file](named(*[letter * 300 for letter in "abcde"]), tmp_path / file)
        WAYS[file](named("a", "b"), tmp_path / file)
        comes_back(named("a", "b"), tmp_path / file)


@pytest.mark.parametrize("file", ["weights.h5", "model.h5", "weights.npz"])
def test_names_without_bytes(file, tmp_path):
    with pytest.raises(ValueError, match=r"no lone surrogates .* got 'a\\ud800"):
        WAYS[file](named("a\ud800"), tmp_path / file)
    assert not list(tmp_path.iterdir())


def test_classes_that_keras_gives_one_name(tmp_path):
    """In .keras a layer is called by its class and a number, which a class may have too."""

    class Dense_1(layers.Dense):
        pass

    made = [layers.Dense(1, name="a"), Dense_1(1, name="b"), layers.Dense(1, name="c")]
    model = layers.Sequential(made)
    model.build((None, 1))
    with pytest.raises(ValueError, match=r"layer 'c' cannot be saved: what is 'layers/dense_1' .* of layer 'b'"):
        model.save(tmp_path / "model.keras")
    assert not list(tmp_path.iterdir())
    model.save(tmp_path / "model.h5")


def test_suffix(tmp_path):
    for name in ("weights", "weights.txt", "model.weights.h5", "model.keras"):
        with pytest.raises(ValueError, match="filepath must end in"):
            small().save_weights(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_overwrite(tmp_path):
    model = small()
    model.save_weights(tmp_path / "w.npz")
    before = (tmp_path / "w.npz").read_bytes()
    with pytest.raises(FileExistsError, match="overwrite"):
        model.save_weights(tmp_path / "w.npz", overwrite=False)
    assert (tmp_path / "w.npz").read_bytes() == before


def test_frozen_layers_keep_their_order(tmp_path):
    model, other = small(), small()
    model.layers[0].bias.trainable = False
    model.save_weights(tmp_path / "w.h5")
    other.load_weights(tmp_path / "w.h5")
    assert holds(other, model.get_weights())


def test_without_h5py(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match="pip install 'h5py>="):
        small().load_weights(GOLDEN / "line_1.h5")
