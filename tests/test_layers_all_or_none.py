"""All weights are replaced, or none: whatever raises on the way, and whenever a signal comes."""

import copy
import errno
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from layer_cases import GOLDEN

import localconv
from localconv import layers
from localconv.layers.files import atomic

PACKAGE = str(Path(localconv.__file__).parent)


def network():
    """Two layers with two weights each; the weights are of 0."""
    made = layers.Sequential([layers.Dense(3, name="a", input_shape=(2,)), layers.Dense(2, name="b")])
    made.set_weights([np.zeros(w.shape) for w in made.weights])
    return made


def state(model):
    """All 0, all 1, or what it is."""
    values = {float(value) for weight in model.get_weights() for value in weight.ravel()}
    return values.pop() if len(values) == 1 else values


class Failing:
    """An array-like that some failure hits when it is converted, not when its shape is asked for."""

    def __init__(self, shape, error):
        self.shape, self.error = shape, error

    def __array__(self, dtype=None, copy=None):
        raise self.error


def ones(model):
    return [np.ones(w.shape) for w in model.weights]


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("target", ["model", "layer"])
@pytest.mark.parametrize("error", [MemoryError, FloatingPointError, KeyboardInterrupt])
def test_a_conversion_that_fails(place, target, error):
    model = network()
    which = model if target == "model" else model.layers[place // 2]
    new = ones(which)
    number = place % len(new)
    new[number] = Failing(new[number].shape, error)
    before = [w.version for w in model.weights]
    with pytest.raises(error):
        which.set_weights(new)
    assert state(model) == 0
    assert [w.version for w in model.weights] == before


@pytest.mark.parametrize("settings", ["raise", "warn"])
@pytest.mark.parametrize("form", ["set_weights", "npz", "h5", "weights.h5", "keras"])
def test_values_that_overflow(settings, form, tmp_path):
    """1e300 in the last weight of a float32 model, where overflow is an error: by NumPy's settings, or as a warning
    (errors here). It becomes infinite all the same, as in what the layers compute.
    """
    if form not in ("set_weights", "npz"):
        pytest.importorskip("h5py")
    model = network()
    new = ones(model)
    new[-1][-1] = 1e300
    wide = layers.Sequential(
        [layers.Dense(3, name="a", dtype="float64", input_shape=(2,)), layers.Dense(2, name="b", dtype="float64")]
    )
    wide.set_weights(new)
    path = tmp_path / f"a.{form}"

    def load():
        if form == "set_weights":
            model.set_weights(new)
        else:
            model.load_weights(path)

    if form in ("npz", "h5"):
        wide.save_weights(path)
    elif form != "set_weights":
        write_newer(path, new)
    with np.errstate(all=settings):
        load()
        y = model(np.full((1, 2), 1e300))
    assert np.isinf(model.get_weights()[-1][-1])
    assert all((w == 1).all() for w in model.get_weights()[:-1])
    assert np.isinf(y).all()


def write_newer(path, weights):
    """The newer layout, and the archive around it."""
    h5py = pytest.importorskip("h5py")
    inner = path.with_name("inner.h5")
    with h5py.File(inner, "w") as root:
        for number, weight in enumerate(weights):
            root[f"layers/dense{'_1' * (number // 2)}/vars/{number % 2}"] = weight
    if path.suffix == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(inner, "model.weights.h5")
    else:
        inner.rename(path)


class Meanwhile:
    """An array-like that calls something when it is converted, as another thread might."""

    def __init__(self, value, call):
        self.shape, self.value, self.call = value.shape, value, call

    def __array__(self, dtype=None, copy=None):
        self.call()
        return self.value


@pytest.mark.parametrize("implementation", [2, 3])
@pytest.mark.parametrize("way", ["set_weights", "apply_constraints"])
def test_another_assignment_and_a_call_meanwhile(way, implementation):
    """What the layer keeps of its kernel is that of the last assignment, not of one that came in between."""
    layer = layers.LocallyConnected1D(2, 3, implementation=implementation)
    layer.build((None, 6, 1))
    x = np.random.default_rng(0).normal(size=(2, 6, 1)).astype("f4")
    kernel, bias = layer.get_weights()
    before = layer(x)

    def meanwhile():
        layer.kernel.assign(2 * kernel)
        layer(x)

    last = Meanwhile(bias, meanwhile)
    if way == "set_weights":
        layer.set_weights([4 * kernel, last])
    else:
        layer.kernel.constraint, layer.bias.constraint = lambda w: 4 * w, lambda w: last
        layer.apply_constraints()
    assert np.array_equal(layer.kernel.value, 4 * kernel)
    np.testing.assert_array_equal(layer(x), 4 * before, "powers of two are exact")


def test_assignments_in_a_copy():
    """Of another process, perhaps, with assignments of its own before: none is taken for one that was copied."""
    layer = layers.LocallyConnected1D(1, 1, implementation=3, use_bias=False)
    x = np.ones((1, 4, 1), "f4")
    layer(x)
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert again._rows[0] is again.kernel.version, "nothing is computed twice"
        again.kernel.assign(again.kernel.value * 0)
        assert not again(x).any()
        assert layer(x).all()


def test_constraints_that_fail():
    """The first would be applied, the second raises, or returns what does not fit."""
    for wrong in (lambda w: 1 / 0, lambda w: w[:1], lambda w: "x"):
        model = layers.Sequential(
            [
                layers.Dense(3, kernel_constraint=lambda w: w + 1, bias_constraint=wrong, input_shape=(2,)),
                layers.Dense(2, kernel_constraint=lambda w: w + 1),
            ]
        )
        model.set_weights([np.zeros(w.shape) for w in model.weights])
        for which in (model, model.layers[0]):
            with pytest.raises((ZeroDivisionError, ValueError, TypeError)):
                which.apply_constraints()
            assert state(model) == 0
    model.layers[0].bias.constraint = None
    model.apply_constraints()
    assert [set(np.unique(w)) for w in model.get_weights()] == [{1}, {0}, {1}, {0}]


class Signal(BaseException):
    """What a signal handler raises."""


def interrupted_after(count, call, where=PACKAGE):
    """Calls, with an exception after so many bytecodes of the package (or a file in it), as a signal handler raises it.

    Whether the call got that far.
    """
    left = count

    def trace(frame, event, _):
        nonlocal left
        if not frame.f_code.co_filename.startswith(where):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                raise Signal
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Signal:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("call", ["set_weights", "apply_constraints"])
def test_a_signal_between_any_two_steps(call):
    count, seen = 1, set()
    while True:
        model = network()
        for weight in model.weights:
            weight.constraint = lambda w: w + 1
        new = ones(model)
        interrupted = interrupted_after(
            count,
            lambda model=model, new=new: model.set_weights(new) if call == "set_weights" else model.apply_constraints(),
        )
        assert state(model) in (0, 1), f"after {count} bytecodes"
        seen.add(state(model))
        if not interrupted:
            break
        count += 1
    assert count > 100
    assert seen == {0, 1}


def test_a_signal_while_a_file_is_loaded(tmp_path):
    """At every 61st of some thousand steps."""
    model = network()
    model.set_weights(ones(model))
    model.save_weights(tmp_path / "a.npz")
    count = 1
    while True:
        model = network()
        interrupted = interrupted_after(count, lambda model=model: model.load_weights(tmp_path / "a.npz"))
        assert state(model) in (0, 1), f"after {count} bytecodes"
        if not interrupted:
            break
        count += 61
    assert state(model) == 1


# Between the file's creation and the with statement it is the garbage collector that closes it.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("way", ["new", "overwrite", "new without hard links"])
def test_a_signal_while_a_file_is_saved(way, tmp_path, monkeypatch):
    """Between any two steps: the old file or the new one, and no other."""

    def refuse(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    if way == "new without hard links":
        monkeypatch.setattr(atomic.os, "link", refuse, raising=False)
        monkeypatch.setattr(atomic, "POSIX", True)
    monkeypatch.setattr(atomic.os, "fsync", lambda descriptor: None)  # slow, and after some hundred times no better
    path, one, loaded = tmp_path / "a.npz", network(), network()
    one.set_weights(ones(one))
    count, seen, empty = 1, set(), 0
    while True:
        path.unlink(missing_ok=True)
        if way == "overwrite":
            network().save_weights(path)
        interrupted = interrupted_after(
            count, lambda: one.save_weights(path, overwrite=way == "overwrite"), atomic.__file__
        )
        names = [other.name for other in tmp_path.iterdir()]
        assert names in ([], ["a.npz"]), f"after {count} bytecodes"
        if names and not path.stat().st_size:
            empty += 1
        else:
            if names:
                loaded.load_weights(path)
            seen.add(state(loaded) if names else None)
        if not interrupted:
            break
        count += 1
    assert count > 100
    assert seen == ({0, 1} if way == "overwrite" else {None, 1})
    # Of os.open's return and what keeps the descriptor, and before the try statement.
    assert empty <= (3 if way == "new without hard links" else 0)


def test_loading_a_model_runs_no_initializer(monkeypatch):
    """Their values would be thrown away; what the weights are is what the file holds, and may be changed as ever."""
    pytest.importorskip("h5py")

    def run(*_, **__):
        pytest.fail("an initializer ran")

    monkeypatch.setattr(layers.keras_objects.initializers, "initial", run)
    model = layers.load_model(GOLDEN / "line_2.model.h5")
    assert [w.value.flags.writeable for w in model.weights] == [False] * 3
    assert all(w.value.flags.c_contiguous and not w.value.base.flags.writeable for w in model.weights)
    model.weights[0].assign(model.weights[0].value * 2)
