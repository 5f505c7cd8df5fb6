"""Whose class a config names: Keras's, or somebody's own of the same name."""

import inspect
import itertools
import json

import numpy as np
import pytest

from localconv import layers

# Each kind of object: something built in, its name, and how a layer's config holds it.
KINDS = {
    "initializers": ("GlorotUniform", "kernel_initializer"),
    "regularizers": ("L2", "kernel_regularizer"),
    "constraints": ("NonNeg", "kernel_constraint"),
    "activations": ("relu", "activation"),
}
OWN_MODULES = [
    None,
    "builtins",
    "keras",
    "keras.{}",
    "keras.src.{}",
    "keras.src.layers.core.dense",
    "tf_keras.{}",
    "tf_keras.src.{}",
    "tensorflow.keras.{}",
    "tensorflow.python.keras.{}",
]
OTHERS = [
    ("mypkg.{}", "mypkg>{}"),
    ("mypkg.{}", None),
    ("mypkg.{}", "{}"),
    ("keras.{}", "mypkg>{}"),
    (None, "mypkg>{}"),
    ("builtins", "Custom>{}"),
    ("keras_extras", None),
    ("mykeras.layers", "{}"),
    ("__main__", "{}"),
    (3, None),
    ("keras.{}", 3),
    ("", None),
]


class Own:
    """Somebody's own object of any kind: callable, made of a config."""

    def __init__(self, **config):
        self.config = config

    def __call__(self, x, dtype=None):
        return np.zeros(x, dtype) if isinstance(x, tuple) else x

    def get_config(self):
        return self.config


class OwnLayer(layers.Layer):
    """Somebody's own layer."""

    def _forward(self, x, training):
        return x, None


def entry(kind, name, module=None, registered=None, config=None):
    """A config entry; {} in module and registered name stand for the kind and the name."""

    def filled(text, by):
        return text.format(by) if isinstance(text, str) else text

    return {
        "module": filled(module, kind),
        "class_name": name,
        "config": config or {},
        "registered_name": filled(registered, name),
    }


def model_of(layer):
    return json.dumps({"class_name": "Sequential", "config": {"name": "m", "layers": [layer]}})


DENSE = {"units": 2, "batch_input_shape": [None, 3]}


# --- layers
# ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", OWN_MODULES)
@pytest.mark.parametrize("name", ["Dense", None])
def test_layers_of_keras(module, name):
    made = layers.Sequential.from_json(model_of(entry("layers", "Dense", module, name, DENSE)))
    assert type(made.layers[0]) is layers.Dense


@pytest.mark.parametrize(("module", "registered"), OTHERS)
def test_layers_of_others(module, registered):
    """Refused, or the user's own: by its registered name, by that without the package, by its class name."""
    text = model_of(entry("layers", "Dense", module, registered, {"name": "own"}))
    with pytest.raises(ValueError, match="custom_objects"):
        layers.Sequential.from_json(text)
    names = ["Dense", *([registered.format("Dense")] if isinstance(registered, str) else [])]
    for name in names:
        assert type(layers.Sequential.from_json(text, {name: OwnLayer}).layers[0]) is OwnLayer
        with layers.custom_object_scope({name: OwnLayer}):
            assert type(layers.Sequential.from_json(text).layers[0]) is OwnLayer
    with pytest.raises(ValueError, match="custom_objects"):
        layers.Sequential.from_json(text, {"Another": OwnLayer})


def test_the_registered_name_goes_first():
    text = model_of(entry("layers", "Dense", "mypkg", "mypkg>{}", {"name": "own"}))
    made = layers.Sequential.from_json(text, {"Dense": layers.Flatten, "mypkg>Dense": OwnLayer})
    assert type(made.layers[0]) is OwnLayer


@pytest.mark.parametrize("name", ["InputLayer", "Sequential", "Flatten"])
def test_no_name_is_an_exception(name):
    config = {"name": "x", "layers": [], "batch_input_shape": [None, 3]}
    with pytest.raises(ValueError, match="custom_objects"):
        layers.Sequential.from_json(model_of(entry("layers", name, "mypkg", "mypkg>{}", config)))


def test_models_of_others():
    """The outermost entry is one too."""
    whole = {"class_name": "Sequential", "config": {"layers": []}}
    for more in (
        {"module": "mypkg"},
        {"registered_name": "mypkg>Sequential"},
        {"module": "keras.src", "registered_name": "Other"},
    ):
        with pytest.raises(ValueError, match="Sequential"):
            layers.Sequential.from_json(json.dumps(whole | more))
    for more in ({}, {"module": "keras", "registered_name": None}, {"module": "keras.src.engine.sequential"}):
        layers.Sequential.from_json(json.dumps(whole | more))


def test_files_of_others(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as root:
        root.attrs["model_config"] = model_of(
            entry("layers", "Flatten", "mypkg.layers", "mypkg>{}", {"batch_input_shape": [None, 3]})
        )
        root.attrs["layer_names"] = ["flatten"]
        root.create_group("flatten").attrs["weight_names"] = []
    with pytest.raises(ValueError, match=r"a\.h5 .*custom_objects"):
        layers.load_model(tmp_path / "a.h5")
    assert type(layers.load_model(tmp_path / "a.h5", {"mypkg>Flatten": OwnLayer}).layers[0]) is OwnLayer


# --- what layers are made of
# ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "module"), list(itertools.product(KINDS, OWN_MODULES)))
def test_parts_of_keras(kind, module):
    name, argument = KINDS[kind]
    expected = getattr(layers, kind).get(name)
    assert getattr(layers.Dense(2, **{argument: entry(kind, name, module)}), argument) == expected
    function = {
        "module": module and module.format(kind),
        "class_name": "function",
        "config": name,
        "registered_name": "function",
    }
    if kind == "activations":
        assert layers.activations.get(function) is layers.activations.relu


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("module", "registered"), OTHERS)
def test_parts_of_others(kind, module, registered):
    name, argument = KINDS[kind]
    config = entry(kind, name, module, registered)
    with pytest.raises(ValueError, match="custom_object"):
        layers.Dense(2, **{argument: config})
    with layers.custom_object_scope({name: Own}):
        found = getattr(layers.Dense(2, **{argument: config}), argument)
    assert type(found) is Own or found is Own


@pytest.mark.parametrize("kind", KINDS)
def test_functions_of_others(kind):
    name, argument = {**KINDS, "regularizers": ("l2", "kernel_regularizer")}[kind]
    for module, registered in (
        ("mypkg.nn", name),
        ("mypkg.nn", f"mypkg>{name}"),
        ("mypkg.nn", "function"),
        (None, f"mypkg>{name}"),
    ):
        config = {"module": module, "class_name": "function", "config": name, "registered_name": registered}
        with pytest.raises(ValueError, match="custom_object"):
            layers.Dense(2, **{argument: config})
        with layers.custom_object_scope({name: abs}):
            assert getattr(layers.Dense(2, **{argument: config}), argument) is abs


# --- what we write
# ---------------------------------------------------------------------------------------------------------------


def relu(x):
    """Somebody's own function with the name of a built-in one."""
    return x


class L2(Own):
    """Somebody's own classes, likewise."""


class HeNormal(layers.initializers.Initializer):
    def _values(self, shape, rng):
        return np.full(shape, 3.0)


class Dense(OwnLayer):
    """A layer, likewise."""


def test_our_own_configs_round_trip():
    """Objects of the user's that are called as built-in ones come back in a scope, and are refused outside of it."""
    own = {"relu": relu, "L2": L2, "HeNormal": HeNormal, "Dense": Dense}
    model = layers.Sequential(
        [
            Dense(name="first", input_shape=(3,)),
            layers.Dense(
                2, relu, kernel_initializer=HeNormal(), kernel_regularizer=L2(by=2), bias_constraint=relu, name="second"
            ),
        ]
    )
    text = model.to_json()
    again = layers.Sequential.from_json(text, own)
    first, second = again.layers
    assert type(first) is Dense
    assert second.activation is second.bias_constraint is relu
    assert type(second.kernel_initializer) is HeNormal
    assert type(second.kernel_regularizer) is L2
    assert second.kernel_regularizer.config == {"by": 2}
    assert again.to_json() == text
    for name in own:
        with pytest.raises(ValueError, match=f"{name!r}.*custom_object"):
            layers.Sequential.from_json(text, {key: value for key, value in own.items() if key != name})


def test_functions_without_a_namesake_are_written_as_keras_does():
    def thrice(x):
        return 3 * x

    expected = {"module": "builtins", "class_name": "function", "config": "thrice", "registered_name": "function"}
    assert layers.activations.serialize(thrice) == layers.constraints.serialize(thrice) == expected


def test_ufuncs_are_not_the_built_in_activations():
    """np.tanh has a name that is built in, and no module of its own in some versions of NumPy."""
    config = layers.Activation(np.tanh).get_config()
    with pytest.raises(ValueError, match="custom_object"):
        layers.Activation.from_config(config)
    assert layers.Activation.from_config(layers.Activation("tanh").get_config()).activation is layers.activations.tanh
    with layers.custom_object_scope({"tanh": np.tanh}):
        assert layers.Activation.from_config(config).activation is np.tanh


@pytest.mark.parametrize("part", [layers.initializers, layers.regularizers, layers.constraints])
def test_configs_hold_the_arguments_of_constructors(part):
    """In their order: `fans`, which Keras does not know, only where it is given."""
    kinds = {
        value
        for value in vars(part).values()
        if inspect.isclass(value) and part.serialize(value())["registered_name"] is None
    }
    assert kinds
    for kind in kinds:
        arguments = [name for name in inspect.signature(kind).parameters if name != "fans"]
        assert list(kind().get_config()) == arguments
        assert kind.from_config(kind().get_config()) == kind()
