"""Sequential: stacking, running, its table and its bar; the documented examples as printed."""

import copy
import importlib.util
import io
import json
import pathlib
import pickle
import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from localconv import layers
from localconv.layers import Conv1D, Conv2D, Dense, Flatten, LocallyConnected1D, LocallyConnected2D, Sequential


def model_1d():
    return Sequential(
        [LocallyConnected1D(4, 3, activation="relu", input_shape=(10, 3), seed=1), Flatten(), Dense(2, seed=2)]
    )


X = np.random.default_rng(0).normal(size=(70, 10, 3)).astype("float32")


def test_documented_examples():
    model = Sequential()
    model.add(LocallyConnected1D(64, 3, input_shape=(10, 32)))
    assert model.output_shape == (None, 8, 64)
    model.add(LocallyConnected1D(32, 3))
    assert model.output_shape == (None, 6, 32)
    model = Sequential()
    model.add(LocallyConnected2D(64, (3, 3), input_shape=(32, 32, 3)))
    assert model.output_shape == (None, 30, 30, 64)
    assert model.count_params() == (30 * 30) * (3 * 3 * 3 * 64) + (30 * 30) * 64, "as the documentation counts them"
    assert Conv1D(32, 3, activation="relu", input_shape=(10, 128))(np.ones((4, 10, 128))).shape == (4, 8, 32)
    assert Conv1D(32, 3, activation="relu", input_shape=(7, 10, 128))(np.ones((4, 7, 10, 128))).shape == (4, 7, 8, 32)
    assert Conv2D(2, 3, activation="relu", input_shape=(28, 28, 3))(np.ones((4, 28, 28, 3))).shape == (4, 26, 26, 2)
    assert Conv2D(2, 3, activation="relu", dilation_rate=2)(np.ones((4, 28, 28, 3))).shape == (4, 24, 24, 2)
    assert Conv2D(2, 3, activation="relu", padding="same")(np.ones((4, 28, 28, 3))).shape == (4, 28, 28, 2)
    assert Conv2D(2, 3, activation="relu")(np.ones((4, 7, 28, 28, 3))).shape == (4, 7, 26, 26, 2)


def test_it_is_its_layers_in_order():
    model = model_1d()
    x = X
    for layer in model.layers:
        x = layer(x)
    np.testing.assert_array_equal(model(X), x)
    assert [variable.shape for variable in model.weights] == [(8, 9, 4), (8, 4), (32, 2), (2,)]
    assert model.count_params() == sum(w.size for w in model.get_weights())
    assert model.input_shape == (None, 10, 3)


def test_it_is_a_sequence_of_its_layers():
    model = model_1d()
    assert len(model) == 3
    bottom, middle, top = model
    assert list(model) == model.layers
    assert [model[0], model[1], model[-1]] == model.layers
    assert model[1:] == model.layers[1:]
    assert model.layers[1] in model
    assert Dense(1) not in model
    assert [model.pop() for _ in model] == [top, middle, bottom], "the list as it was when the loop began"
    assert top not in model
    assert len(model) == 0
    assert model, "also without layers"


@pytest.mark.parametrize(("key", "error"), [(3, IndexError), (-4, IndexError), ("dense", TypeError), (1.0, TypeError)])
def test_no_such_index(key, error):
    with pytest.raises(error):
        model_1d()[key]


@pytest.mark.parametrize("name", ["fit", "compile", "evaluate", "optimizer", "loss", "metrics", "train_on_batch"])
def test_what_keras_trains_with(name):
    model = model_1d()
    assert not hasattr(model, name)
    assert name not in dir(model)
    with pytest.raises(AttributeError, match=rf"no '{name}'.*docs/training-loop\.md.*localconv\.keras") as caught:
        getattr(model, name)
    assert (caught.value.name, caught.value.obj) == (name, model)


def test_the_page_that_errors_name_is_there():
    page = pathlib.Path(__file__).parent.parent / "docs" / "training-loop.md"
    if not page.exists():
        pytest.skip("a test of a checkout; this is not one")
    assert page.read_text(encoding="utf-8").startswith("# Writing a training loop\n")


def test_attributes_that_are_missing_otherwise():
    with pytest.raises(AttributeError, match="'Sequential' object has no attribute 'fits'"):
        model_1d().fits  # noqa: B018
    with pytest.raises(AttributeError, match="never been called and thus has no defined input shape"):
        Sequential().input_shape  # noqa: B018

    class Own(Sequential):
        def fit(self, x):
            return len(x)

    assert Own().fit(X) == 70
    assert len(pickle.loads(pickle.dumps(model_1d()))) == len(copy.copy(model_1d())) == 3


def test_it_lists_its_layers():
    model = Sequential([Conv1D(2, 3, name="c")], name="outer")
    assert repr(model) == "<Sequential 'outer', 1 layer\n  [0] Conv1D 'c': not built>"
    inner = Sequential([Conv1D(2, 3, name="<c>"), Flatten(name="f")], name="inner")
    model = Sequential([Conv1D(4, 3, input_shape=(10, 3), name="first"), inner, Dense(2, name="last")], name="outer")
    model[0].quantize("int8")
    assert repr(model).splitlines() == [
        "<Sequential 'outer', 3 layers",
        "  [0] Conv1D, int8 'first': (None, 8, 4), 52 parameters",
        "  [1] Sequential 'inner': (None, 12), 26 parameters",
        "    [0] Conv1D '<c>': (None, 6, 2), 26 parameters",
        "    [1] Flatten 'f': (None, 12), 0 parameters",
        "  [2] Dense 'last': (None, 2), 26 parameters>",
    ]
    assert repr(Sequential(name="none")) == "<Sequential 'none', 0 layers>"
    assert len(repr(Sequential(name="n" * 10**6))) < 2000


def test_a_notebook_shows_a_table():
    model = Sequential([Conv1D(4, 3, input_shape=(10, 3), name="<script>"), Flatten()], name="a & b")
    table = ElementTree.fromstring(model._repr_html_())
    rows = [["".join(cell.itertext()) for cell in row] for row in table]
    assert rows == [
        ["", "Sequential", "'a & b'", ""],
        ["[0]", "Conv1D", "'<script>'", "(None, 8, 4), 40 parameters"],
        ["[1]", "Flatten", repr(model[1].name), "(None, 32), 0 parameters"],
    ]


def test_models_may_be_deep():
    model = Sequential([Flatten(name="f")])
    for _ in range(1500):  # deeper than Python's calls
        model = Sequential([model])
    assert repr(model).endswith("[0] Flatten 'f': not built>")
    assert model._repr_html_().count("<tr>") == 1502


def test_add_and_pop():
    model = model_1d()
    top = model.pop()
    assert isinstance(top, Dense)
    assert model.output_shape == (None, 32)
    model.add(Dense(5))
    assert model(X).shape == (70, 5)
    for _ in range(3):
        model.pop()
    assert not model.built
    with pytest.raises(TypeError, match=r"There are no layers in the model."):
        model.pop()
    model.add(Conv1D(2, 3))
    assert model(X).shape == (70, 8, 2)


def test_adding_a_layer_looks_at_the_topmost_only(monkeypatch):
    """However many there are: as many shapes are computed for the last one as for the first."""
    counts, calls = [], []
    compute = Dense.compute_output_shape
    monkeypatch.setattr(
        Dense, "compute_output_shape", lambda self, shape: (calls.append(self), compute(self, shape))[1]
    )
    monkeypatch.setattr(layers.Layer, "name", property(lambda self: (calls.append(self), self._name)[1]))
    model = Sequential([Dense(2, input_shape=(3,))])
    for _ in range(50):
        calls.clear()
        model.add(Dense(2))
        counts.append(len(calls))
    assert len(set(counts)) == 1, counts
    assert model.output_shape == (None, 2)


def test_output_shape_follows_the_input():
    """Also of a layer that was built for another input, and of a model that grows after it was added."""
    conv = Conv1D(2, 3)
    conv.build((None, 20, 3))
    inner = Sequential([Conv1D(3, 3, input_shape=(10, 3))])
    model = Sequential([inner])
    inner.add(Conv1D(3, 2))
    model.add(conv)
    assert inner.output_shape == (None, 7, 3)
    assert model.output_shape == model.compute_output_shape((None, 10, 3)) == (None, 5, 2)
    assert model.pop() is conv
    assert model.output_shape == (None, 7, 3)
    late = Sequential([Conv1D(2, 3), Flatten()])
    with pytest.raises(AttributeError, match="output shape"):
        late.output_shape  # noqa: B018  # the attribute is the test
    late.build((None, 10, 3))
    late.add(Dense(2))
    assert late.output_shape == (None, 2)
    assert [late.pop() for _ in range(3)]
    with pytest.raises(AttributeError, match="output shape"):
        late.output_shape  # noqa: B018
    late.add(Flatten(input_shape=(2, 2)))
    assert late.output_shape == (None, 4)


def test_a_failed_build_takes_no_weights_away():
    """Layers that had theirs before keep them; those that were never built stay as they were."""
    trained, pooling = Conv1D(2, 3), layers.MaxPooling1D(2)
    trained.build((None, 10, 3))
    before = trained.get_weights()
    inner = Sequential([Dense(3)])
    model = Sequential([inner, trained, LocallyConnected1D(2, 4), pooling])
    with pytest.raises(ValueError, match="One of the dimensions"):
        model(X[:, :5])
    assert trained.built
    assert not inner.built
    assert not inner.layers[0].built
    assert all(np.array_equal(a, b) for a, b in zip(trained.get_weights(), before, strict=True))
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
        pooling.compute_output_shape((None, 2))
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
        pooling.build((None, 2))
    assert model(X).shape == (70, 2, 2)


def test_wrong_layers():
    model = model_1d()
    with pytest.raises(
        TypeError, match=r"The added layer must be an instance of class Layer. Received: layer=3 of type <class 'int'>."
    ):
        model.add(3)
    with pytest.raises(
        ValueError, match=f'unique names. Name "{model.layers[0].name}" is already the name of a layer in this model.'
    ):
        model.add(Dense(2, name=model.layers[0].name))
    with pytest.raises(ValueError, match="expected min_ndim=3, found ndim=2"):
        model.add(Conv1D(2, 3))
    with pytest.raises(ValueError, match="InputLayer must be the first"):
        model.add(layers.InputLayer((3,)))
    assert len(model.layers) == 3
    assert model(X).shape == (70, 2)


def test_models_in_a_circle():
    """Calls of one would never end: refused where it would close, and nothing is changed."""
    outer, middle, inner = (Sequential(name=name) for name in ("outer", "middle", "inner"))
    with pytest.raises(ValueError, match="is the model itself or holds it"):
        inner.add(inner)
    middle.add(inner)
    outer.add(middle)
    for model in (outer, middle):
        with pytest.raises(ValueError, match="is the model itself or holds it"):
            inner.add(model)
    assert inner.layers == []
    inner.add(Dense(2))
    assert outer(np.ones((1, 3))).shape == (1, 2)


def test_models_in_many_ways():
    """The same ones by 2 ** 40 ways: each is looked at once."""
    model = Sequential([Dense(3)], name="0")
    for number in range(1, 41):
        model = Sequential([Sequential([model], name=f"{number}{side}") for side in "ab"], name=str(number))
    assert [layer.name for layer in model.layers] == ["40a", "40b"]


@pytest.mark.parametrize("wrong", [memoryview(np.ones((2, 2))), memoryview(b"ab"), np.ones((2, 2)), 3, [3], "ab"])
def test_what_is_no_list_of_layers(wrong):
    with pytest.raises(TypeError, match=r"layer|iterable"):
        Sequential(wrong)


def test_copies_have_lists_of_their_own():
    model = Sequential([Dense(2, name="a", input_shape=(3,))])
    again = copy.copy(model)
    again.add(Dense(1, name="b"))
    assert [layer.name for layer in model.layers] == ["a"]
    assert model.output_shape == (None, 2)
    assert again.output_shape == (None, 1)
    assert again.layers[0] is model.layers[0]
    model.add(Dense(5, name="b"))
    assert model(np.ones((1, 3))).shape == (1, 5)
    layer = copy.copy(model.layers[0])
    layer.add_weight("more", (2,))
    assert len(model.layers[0].weights) == 2


def test_without_an_input_shape():
    model = Sequential([Conv1D(2, 3), LocallyConnected1D(2, 4)])
    assert not model.built
    assert model.weights == []
    with pytest.raises(ValueError, match="isn't built"):
        model.count_params()
    with pytest.raises(ValueError, match="This model has not yet been built"):
        model.summary()
    with pytest.raises(AttributeError):
        model.output_shape  # noqa: B018
    with pytest.raises(ValueError, match="One of the dimensions"):
        model(X[:, :5])
    assert not any(layer.built for layer in model.layers), "a failed call leaves nothing built"
    assert model(X).shape == (70, 5, 2)
    assert model.output_shape == (None, 5, 2)
    other = Sequential([Conv1D(2, 3), LocallyConnected1D(2, 4)])
    other.build((None, 10, 3))
    assert [w.shape for w in other.weights] == [w.shape for w in model.weights]


def test_input_layer():
    model = Sequential([layers.InputLayer((10, 3)), Conv1D(2, 3)])
    assert len(model.layers) == 1
    assert model.output_shape == (None, 8, 2)


def test_get_layer():
    model = model_1d()
    assert model.get_layer(index=0) is model.get_layer(model.layers[0].name) is model.layers[0]
    with pytest.raises(ValueError, match="No such layer: x"):
        model.get_layer("x")
    with pytest.raises(ValueError, match="at index 3 but model only has 3 layers"):
        model.get_layer(index=3)
    with pytest.raises(ValueError, match="Provide either"):
        model.get_layer()
    model.layers.clear()
    assert len(model.layers) == 3, "the list is a copy"


def test_trainable_is_that_of_all_layers():
    model = model_1d()
    model.trainable = False
    assert model.trainable_weights == []
    assert len(model.non_trainable_weights) == 4
    assert not model.layers[0].trainable
    model.trainable = True
    model.layers[0].trainable = False
    assert len(model.trainable_weights) == 2
    assert [w.name for w in model.weights] == [w.name for layer in model.layers for w in layer.weights]


def test_set_weights():
    model = model_1d()
    before = model.get_weights()
    with pytest.raises(ValueError, match="weight shape"):
        model.set_weights([*before[:3], np.zeros(7)])
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before, strict=True))
    model.set_weights([w * 0 for w in before])
    assert not model(X).any()


def test_json():
    model = model_1d()
    again = Sequential.from_json(model.to_json(indent=2))
    assert again.to_json() == model.to_json()
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again(X), model(X))
    nested = Sequential([Sequential([Conv1D(2, 3, input_shape=(10, 3))]), Flatten()])
    again = Sequential.from_json(nested.to_json())
    assert again.to_json() == nested.to_json()
    double = Sequential([Dense(2, dtype="float64", input_shape=(3,))], dtype="float64")
    assert Sequential.from_json(double.to_json()).dtype == "float64"


@pytest.mark.parametrize(
    "text",
    [
        '{"class_name": "Functional", "config": {}}',
        "[]",
        '{"class_name": "Sequential"}',
        '{"class_name": "Sequential", "config": {"layers": [3]}}',
        '{"class_name": "Sequential", "config": {"layers": [{"class_name": "LSTM", "config": {}}]}}',
        "{",
    ],
)
def test_wrong_json(text):
    with pytest.raises(ValueError):  # noqa: PT011  # many messages
        Sequential.from_json(text)


def test_layers_of_another_dtype():
    model = Sequential([Conv1D(2, 3, dtype="float64", input_shape=(10, 3)), Dense(2)])
    assert model(X, training=True).dtype == "float32"
    assert model.backward(np.ones((70, 8, 2))).dtype == "float32"
    assert model.layers[0].kernel.grad.dtype == "float64"


# --- predict ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 1, 7, 70, 1000])
def test_predict(batch_size):
    model = model_1d()
    np.testing.assert_allclose(model.predict(X, batch_size), model(X), rtol=1e-5, atol=1e-6)


def test_predict_nothing():
    assert model_1d().predict(X[:0]).shape == (0, 2)


def test_predict_refuses():
    model = model_1d()
    for wrong in ({"batch_size": 0}, {"verbose": 3}, {"x": np.float64(1)}, {"x": X[0]}):
        with pytest.raises(ValueError):  # noqa: PT011  # many messages
            model.predict(**({"x": X} | wrong))


NEEDS_TQDM = pytest.mark.skipif(not importlib.util.find_spec("tqdm"), reason="the bar is tqdm's, of the extra test")


def test_progress_in_no_terminal(capsys):
    model = model_1d()
    for quiet in ("auto", 0):
        model.predict(X, 10, verbose=quiet)
        assert capsys.readouterr() == ("", ""), "no terminal, or not wanted"
    model.predict(X, 10, verbose=2)
    assert re.fullmatch(r"7/7, 0\.\d s\n", capsys.readouterr().err)


@NEEDS_TQDM
def test_progress_that_is_asked_for(capsys):
    model_1d().predict(X, 10, verbose=1)
    text = capsys.readouterr().err
    assert text.split("\r")[-1].startswith("100%|")
    assert " 7/7 [" in text
    assert text.endswith("\n")


class Terminal(io.StringIO):
    def isatty(self):
        return True


# As ipykernel's for a notebook, which says that it is no terminal.
Notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until the test moves it."""
    now = [0.0]
    monkeypatch.setattr(layers.progress.time, "monotonic", lambda: now[0])
    return now


@NEEDS_TQDM
@pytest.mark.parametrize(("kind", "watched"), [(Terminal, True), (Notebook, True), (io.StringIO, False)])
def test_bar_of_long_work_only(clock, kind, watched):
    for seconds, shown in ((0.19, False), (0.5, watched)):
        file = kind()
        with layers.ProgressBar(10, file=file) as bar:
            for step in range(1, 11):
                clock[0] += seconds
                assert ("loss" in file.getvalue()) <= (step > 4), "not before two seconds are over"
                bar.update(step, note=f"loss {step}")
        assert bool(file.getvalue()) == shown
        if shown:
            assert " 5/10 [" in file.getvalue()
            assert file.getvalue().endswith("loss 10]\n")


@NEEDS_TQDM
def test_bar_ends_when_work_fails(clock):
    file = Terminal()

    def work():
        with layers.ProgressBar(10, file=file) as bar:
            clock[0] = 3.0
            bar.update(4)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert file.getvalue().endswith("\n")


def test_one_step_has_no_bar(clock):
    """It would appear when the work is done."""
    file = Terminal()
    bar = layers.ProgressBar(1, file=file)
    clock[0] = 60.0
    bar.update(1)
    assert file.getvalue() == ""


def test_without_tqdm(clock, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    file = Terminal()
    bar = layers.ProgressBar(10, file=file)
    for step in range(1, 11):
        clock[0] += 1
        bar.update(step)
    assert file.getvalue() == ""
    with pytest.raises(ImportError, match="pip install tqdm"):
        model_1d().predict(X, verbose=1)


@pytest.mark.parametrize("verbose", ["auto", 0, 1, 2])
def test_without_a_stderr(clock, monkeypatch, capsys, verbose):
    """As in a process that was started with `2>&-`: nothing is shown, on stdout neither."""
    monkeypatch.setattr(sys, "stderr", None)
    with layers.ProgressBar(2, verbose) as bar:
        for step in (1, 2):
            clock[0] += 60
            bar.update(step)
    model_1d().predict(X, verbose=verbose)
    assert capsys.readouterr().out == ""


def test_short_work_imports_no_tqdm(python):
    code = "import sys, numpy as np; from localconv.layers import Dense, Sequential;"
    code += "Sequential([Dense(2)]).predict(np.ones((3, 2)), 1); print('tqdm' in sys.modules)"
    assert python(code) == "False\n"


@pytest.mark.parametrize("built", [False, True])
def test_inputs_without_a_batch(built):
    """The error has the shape that was given, not that of what the model would be built for or takes at a time."""
    model = layers.Sequential([layers.Sequential([layers.Conv2D(2, 3)]), layers.Flatten()])
    if built:
        model(np.ones((1, 5, 6, 3)))
    for call in (model, model.predict):
        with pytest.raises(ValueError, match=r"received: \(40, 6, 3\). A batch of one has shape \(1, 40, 6, 3\)"):
            call(np.ones((40, 6, 3)))
    assert model.built == built


def test_masked_inputs():
    """Their mask would be lost."""
    with pytest.raises(TypeError, match=r"x must be a plain array of floats, got a masked array.*\.filled\(0\)"):
        layers.Sequential([layers.Dense(2)]).predict(np.ma.ones((3, 2)))


# --- the table --------------------------------------------------------------------------------------------------------


def test_summary_counts(capsys):
    model = model_1d()
    model.layers[0].trainable = False
    model.summary()
    text = capsys.readouterr().out
    assert "Total params: 386 (1.51 KB)" in text
    assert "Trainable params: 66 (264.00 Byte)" in text
    assert "Non-trainable params: 320 (1.25 KB)" in text


def test_config_is_plain():
    assert json.loads(json.dumps(model_1d().get_config()))["layers"][0]["class_name"] == "InputLayer"
