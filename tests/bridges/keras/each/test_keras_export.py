"""What `Model.export` writes runs in a process without localconv, and engines can be set in whole models."""

import importlib.util

import keras
import numpy as np
import pytest
from exported import assert_same, run_exported, save_inputs
from keras_tools import BACKEND, TRAINS, array

import localconv
from localconv.command_line import main
from localconv.keras import Involution2D, LocallyConnected1D, LocallyConnected2D, LocallyConnected3D, ops, set_engine
from localconv.layers.files.atomic import write_whole

layers = keras.layers
rng = np.random.default_rng(8)
# What Keras needs to write a format, by backend.
NEEDED = {
    "tensorflow": {"onnx": ("tf2onnx", "onnxruntime"), "tf_saved_model": (), "litert": ()},
    "torch": {"onnx": ("onnxscript", "onnxruntime"), "torch": ()},
    "jax": {"onnx": ("jax2onnx", "onnxruntime"), "tf_saved_model": ("tensorflow",)},
    # Keras exports nothing from it.
    "numpy": {},
}[BACKEND]
SUFFIXES = {"onnx": ".onnx", "tf_saved_model": ".saved_model", "litert": ".tflite", "torch": ".pt2"}
FORMATS = sorted(NEEDED)
# Of Keras, its exporters and theirs.
pytestmark = pytest.mark.filterwarnings("ignore")


def needs(form):
    for package in NEEDED[form]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}, which is not installed")


def export(model, form, path):
    """Export a model, with inputs of a batch beside it; return what it answers to them here."""
    # PyTorch's own form has the size of the example, which Keras makes of 1.
    batch = 1 if form == "torch" else 3
    inputs = [rng.standard_normal((batch, *x.shape[1:])).astype("f") for x in model.inputs]
    expected = array(model(inputs if len(inputs) > 1 else inputs[0]))
    model.export(str(path), format=form, verbose=False)
    save_inputs(path, *inputs)
    return expected


def joined(x, outputs):
    """A model of one output of all values: formats do not agree in the order of several."""
    flat = [layers.Flatten()(y) for y in outputs]
    return keras.Model(x, layers.Concatenate()(flat) if len(flat) > 1 else flat[0])


def int8(layer, x):
    layer.build(x.shape)
    layer.quantize("int8")
    return layer(x)


def all_kinds(data_format):
    """Layers of all implementations and windows on one input; what differs in nothing else is in one data format."""
    last = data_format == "channels_last"
    more = {"data_format": data_format, "bias_initializer": "random_normal"}
    paddings = ("valid", "same", "same") if last else ("same", "valid", "same")
    x = keras.Input((9, 8, 4) if last else (4, 9, 8))
    outputs = [
        LocallyConnected2D(3, (2, 3), (2, 1), padding, implementation=implementation, **more)(x)
        for implementation, padding in enumerate(paddings, 1)
    ]
    outputs += [
        LocallyConnected2D(3, 2, dilation_rate=2, activation="relu", **more)(x),
        LocallyConnected2D(4, 2, 2, "same", groups=2, **more)(x),
        int8(LocallyConnected2D(3, 2, padding="same", implementation=1 if last else 3, **more), x),
    ]
    if last:
        outputs.append(LocallyConnected1D(3, 3, 2, "same", **more)(layers.Reshape((12, 24))(x)))
    else:
        volume = layers.Reshape((6, 6, 4, 2))(x)
        outputs.append(LocallyConnected3D(2, (2, 1, 2), (1, 2, 1), "same", **more)(volume))
    return joined(x, outputs)


def called_by_others():
    """Layers that only other layers call, and filters that come with the data."""
    x = keras.Input((3, 8, 7, 2))
    inner = keras.Sequential([keras.Input((8, 7, 2)), LocallyConnected2D(4, 2, 2), layers.BatchNormalization()])
    y = layers.Reshape((12, 3, 4))(layers.TimeDistributed(inner)(x))
    taps = layers.Conv2D(4, 1)(y)
    involution = Involution2D(2, groups=2, reduction_ratio=2, padding="inside", normalization=None)
    return joined(x, [ops.local_filter2d(y, taps, 2, padding="same"), involution(y)])


MODELS = {
    "channels_last": lambda: all_kinds("channels_last"),
    "channels_first": lambda: all_kinds("channels_first"),
    "called_by_others": called_by_others,
    "small": lambda: keras.Sequential([keras.Input((9, 2)), LocallyConnected1D(2, 3, implementation=2)]),
}
# ONNX is tried with all layers; what else holds the same operations, with some. torch.export takes its time.
TRIED = {"onnx": MODELS, "tf_saved_model": ["called_by_others"], "litert": ["called_by_others"], "torch": ["small"]}


@pytest.fixture(scope="module", params=FORMATS)
def answers(request, tmp_path_factory):
    """What exported models answer in a process without localconv, and what they answer here, by name."""
    form = request.param
    needs(form)
    folder, expected = tmp_path_factory.mktemp(form), {}
    keras.utils.set_random_seed(1)
    for name in TRIED[form]:
        expected[name] = export(MODELS[name](), form, folder / f"{name}{SUFFIXES[form]}")
    found = run_exported(folder, SUFFIXES[form])
    return {name: (found[name][0], values) for name, values in expected.items()}


@pytest.mark.skipif(not TRAINS, reason="Keras exports nothing from NumPy")
def test_what_is_exported_runs_elsewhere(answers):
    for found, expected in answers.values():
        assert_same(found, expected)


@pytest.mark.skipif(not TRAINS, reason="Keras exports nothing from NumPy")
@pytest.mark.parametrize("form", FORMATS)
def test_compiled_kernels_are_refused(form, tmp_path):
    """In words that say what to do, which Keras has among its own; there is no file then."""
    needs(form)
    model = keras.Sequential([keras.Input((8, 2)), LocallyConnected1D(2, 3, engine="compiled")])
    model(np.zeros((1, 8, 2), "f"))
    path = tmp_path / f"model{SUFFIXES[form]}"
    with pytest.raises((ValueError, RuntimeError), match=r"set_engine\(model, 'ops'\)"):
        model.export(str(path), format=form, verbose=False)
    assert not path.exists()
    expected = export(set_engine(model, "ops"), form, path)
    assert_same(run_exported(tmp_path, SUFFIXES[form])["model"][0], expected)


def runs_compiled(model):
    """Whether the compiled kernels compute what a model predicts."""
    localconv.local_conv1d(np.zeros((1, 3, 1), "f"), np.zeros((1, 3, 1), "f"), 3, 1)
    before = localconv._core.last_run()
    model.predict(np.ones((2, *model.inputs[0].shape[1:]), "f"), verbose=0)
    return localconv._core.last_run() != before


@pytest.mark.skipif(not TRAINS, reason="Keras exports nothing from NumPy")
@pytest.mark.parametrize("form", FORMATS[:1])
def test_an_export_leaves_the_model_as_it_is(form, tmp_path):
    needs(form)
    model = keras.Sequential([keras.Input((80, 20)), LocallyConnected1D(8, 3)])
    assert runs_compiled(model)
    export(model, form, tmp_path / f"model{SUFFIXES[form]}")
    model.predict_function = None
    assert runs_compiled(model)
    assert model.layers[0].engine == "auto"


# --- set_engine -------------------------------------------------------------------------------------------------------


class Holder(keras.layers.Layer):
    """A layer with others in its attributes."""

    def __init__(self, **base):
        super().__init__(**base)
        self.named = {"first": LocallyConnected1D(2, 3), "more": [(LocallyConnected1D(2, 3),)]}

    def call(self, x):
        return self.named["more"][0][0](self.named["first"](x))


def everywhere():
    """A model that has layers wherever layers can be, and a function that lists them."""
    local = [LocallyConnected1D(2, 3, name=f"local_{number}") for number in range(4)]
    holder, x = Holder(), keras.Input((12, 2))
    inner = keras.Sequential([keras.Input((10, 2)), local[1]])
    y = holder(inner(local[0](x)))
    steps = layers.TimeDistributed(layers.TimeDistributed(local[2]))
    y = layers.Reshape((1, 4, 2))(y)
    y = layers.Reshape((1, 2, 4, 1))(y)
    filtered = ops.local_filter1d(x, layers.Conv1D(3, 1)(x), 3, padding="same")
    model = keras.Model(x, [steps(y), local[3](filtered)])
    node = next(layer for layer in model.layers if type(layer).__name__ == "LocalFilter")
    return model, [*local, holder.named["first"], holder.named["more"][0][0], node]


def test_all_layers_get_the_engine():
    model, found = everywhere()
    assert {layer.engine for layer in found} == {"auto"}
    assert set_engine(model, "ops") is model
    assert {layer.engine for layer in found} == {"ops"}
    copy = keras.Model.from_config(model.get_config(), custom_objects={"Holder": Holder})
    assert {layer.engine for layer in copy.layers if hasattr(layer, "engine")} == {"ops"}


def test_what_was_compiled_is_made_anew():
    """Of the model and of those inside it; values stay."""
    inner = keras.Sequential([keras.Input((80, 20)), LocallyConnected1D(8, 3)])
    model = keras.Sequential([keras.Input((80, 20)), inner])
    x = rng.standard_normal((2, 80, 20)).astype("f")
    expected = model.predict(x, verbose=0)
    assert runs_compiled(model)
    assert runs_compiled(inner)
    set_engine(model, "ops")
    assert not runs_compiled(model)
    assert not runs_compiled(inner)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-4)
    set_engine(model, "compiled")
    assert runs_compiled(model)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-4)


def test_int8_layers_and_layers_before_they_are_built():
    layer = LocallyConnected1D(3, 3)
    set_engine(layer, "ops")
    x = rng.standard_normal((2, 8, 2)).astype("f")
    layer(x)
    layer.quantize("int8")
    expected = array(layer(x))
    for engine in ("auto", "ops"):
        assert_same(array(set_engine(layer, engine)(x)), expected)


def test_wrong_arguments():
    layer = LocallyConnected1D(3, 3)
    with pytest.raises(TypeError, match="model must be a layer or a model of Keras, got str"):
        set_engine("model", "ops")
    with pytest.raises(ValueError, match="engine must be one of"):
        set_engine(layer, "fast")
    assert layer.engine == "auto"


# --- the command line -------------------------------------------------------------------------------------------------


def saved(path):
    """A file of a model that localconv.layers does not have."""
    x, z = keras.Input((8, 7, 2), name="image"), keras.Input((3,), name="more")
    y = LocallyConnected2D(3, 3, implementation=2)(x)
    y = layers.Flatten()(layers.BatchNormalization()(y))
    model = keras.Model([x, z], layers.Dense(2)(layers.Concatenate()([y, z])))
    model.save(path)
    return model


@pytest.mark.skipif(BACKEND == "numpy", reason="Keras writes no ONNX files from this backend")
def test_command_line_of_a_sequential(tmp_path, capsys):
    """It has no attribute `input` before it is called."""
    needs("onnx")
    model = keras.Sequential(
        [keras.Input((8, 7, 2)), LocallyConnected2D(3, 3), layers.BatchNormalization(), layers.Flatten()]
    )
    model.save(tmp_path / "model.keras")
    new = tmp_path / "model.onnx"
    assert main(["convert", str(tmp_path / "model.keras"), str(new)]) == 0, capsys.readouterr().err
    x = rng.standard_normal((3, 8, 7, 2)).astype("f")
    save_inputs(new, x)
    assert_same(run_exported(tmp_path, ".onnx")["model"][0], array(model(x)))


def test_command_line(tmp_path, capsys):
    """A functional model of two inputs becomes an ONNX file, or there is an error that says what is missing."""
    model, new = saved(tmp_path / "model.keras"), tmp_path / "model.onnx"
    command = ["convert", str(tmp_path / "model.keras"), str(new)]
    if BACKEND == "numpy":
        assert main(command) == 2
        assert "Keras's backend must be one of tensorflow, torch, jax to write ONNX files" in capsys.readouterr().err
        return
    needs("onnx")
    write_whole(new, lambda file: file.write(b"old"))
    assert main(command) == 2
    assert new.read_bytes() == b"old"
    capsys.readouterr()
    assert main([*command, "--overwrite"]) == 0
    out, err = capsys.readouterr()
    assert (out, "localconv:" in err) == ("", False)
    inputs = [rng.standard_normal((3, *x.shape[1:])).astype("f") for x in model.inputs]
    save_inputs(new, *inputs)
    assert_same(run_exported(tmp_path, ".onnx")["model"][0], array(model(inputs)))


@pytest.mark.skipif(BACKEND != "torch", reason="the same words on all backends")
def test_command_line_that_fails(tmp_path, capsys, monkeypatch):
    saved(tmp_path / "model.keras")
    command = ["convert", str(tmp_path / "model.keras"), str(tmp_path / "model.onnx")]
    assert main([*command, "--quantize", "float16"]) == 2
    assert "mode must be 'int8' for a model that Keras opens, got 'float16'" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(command) == 2
    assert "Keras 3 writes ONNX files of such models, and is not installed here" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.keras"]
