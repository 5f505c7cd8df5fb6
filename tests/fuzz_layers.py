"""Rounds of the fuzzer over the layers: constructors, calls, gradients, configs and files."""

import contextlib
import io
import json
import os
import tempfile
import warnings
from pathlib import Path

import damage
import numpy as np
import oracle
from fuzz_values import NUMBERS, ODD, REFUSALS, Finding, bits, dress, spoil

import localconv
from localconv import layers

BIG = 2**26
NAMES = (
    "relu",
    "softmax",
    "glorot_uniform",
    "l2",
    "max_norm",
    "zeros",
    "channels_first",
    "SAME",
    "causal",
    "float64",
    "nothing",
)
# Arguments that a layer may have and that change nothing that is compared here.
TERMS = {
    "use_bias": True,
    "kernel_initializer": "he_normal",
    "bias_initializer": "zeros",
    "kernel_regularizer": None,
    "bias_regularizer": "l1",
    "activity_regularizer": None,
    "kernel_constraint": None,
    "bias_constraint": "non_neg",
}
NO_PARTS = ("Initializer", "Regularizer", "Constraint", "compute_fans")
PARTS = (layers.activations, layers.initializers, layers.regularizers, layers.constraints)


# --------------------------------------------------------------------------------------------------------- what to make


def draw_layer(rng):
    """(class, the constructor's arguments, an input of integers)"""
    rank, first = rng.choice([1, 2, 3]), rng.random() < 0.5
    size, strides = (tuple(rng.randint(1, 3) for _ in range(rank)) for _ in range(2))
    spatial = tuple(k + rng.randint(0, 5 if rank < 3 else 2) for k in size)
    groups = rng.choice([1, 2])
    channels, filters = groups * rng.randint(1, 3), groups * rng.randint(1, 5)
    common = {
        "name": "drawn",
        "trainable": True,
        "dtype": rng.choice(["float32", "float64"]),
        "seed": rng.choice([None, 3]),
    }
    format_ = {"data_format": "channels_first" if first else "channels_last"}
    window = {"strides": strides, "padding": rng.choice(["valid", "same"])} | format_
    kernel = {"filters": filters, "kernel_size": size, "activation": rng.choice([None, "relu"])} | TERMS | window
    local, conv, pool = ((getattr(layers, f"{name}{rank}D")) for name in ("LocallyConnected", "Conv", "MaxPooling"))
    made, arguments = rng.choice(
        [
            (local, kernel | {"implementation": rng.choice([1, 2, 3])}),
            (local, kernel),
            (conv, kernel | {"groups": groups, "dilation_rate": 1}),
            (conv, kernel | {"groups": groups, "dilation_rate": 2, "strides": 1, "padding": "same"}),
            (pool, {"pool_size": size} | window),
            (layers.Dense, {"units": filters, "activation": "relu"} | TERMS),
            (layers.Flatten, format_),
            (layers.Activation, {"activation": rng.choice(["tanh", "softmax", "elu"])}),
            (layers.Dropout, {"rate": rng.choice([0, 0.5, 1.0]), "noise_shape": None}),
        ]
    )
    shape = (rng.randint(1, 3), channels, *spatial) if first else (rng.randint(1, 3), *spatial, channels)
    x = np.random.default_rng(rng.randrange(2**32)).integers(-8, 9, shape).astype(common["dtype"])
    return made, arguments | common | {"input_shape": shape[1:]}, x


def wrong_values(rng, arguments, often):
    """Some of the arguments, spoiled."""
    if rng.random() > often:
        return {}
    chosen = rng.sample(list(arguments), rng.choice([1, 1, 2]))
    return {key: rng.choice(NAMES) if rng.random() < 0.2 else spoil(rng, key, arguments[key]) for key in chosen}


# ----------------------------------------------------------------------------------------------------------- the rounds


def guarded(seed, what, right, call):
    """The call's result, or None if it refused what may be refused."""
    try:
        with warnings.catch_warnings(), np.errstate(all="raise"), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            return call()
    except REFUSALS as error:
        if right:
            raise Finding(f"seed {seed}: {what} refused: {error!r}") from error
        return None
    except NotImplementedError as error:
        if "causal" not in str(error):  # Keras's own answer for a padding that its constructor takes
            raise Finding(f"seed {seed}: {what} raised {error!r}") from error
        return None
    except Exception as error:
        raise Finding(f"seed {seed}: {what} raised {error!r}") from error


def layer_round(rng, seed):
    """A layer is made, called and gone back through; what it accepts, it does as its config says."""
    made, arguments, x = draw_layer(rng)
    wrong = wrong_values(rng, arguments, 0.5)
    what = f"{made.__name__}({arguments | wrong})"
    layer = guarded(seed, what, not wrong, lambda: made(**(arguments | wrong)))
    if layer is None:
        return "refused"
    again = guarded(seed, what, True, lambda: made.from_config(json.loads(json.dumps(layer.get_config()))))
    if json.dumps(again.get_config()) != json.dumps(layer.get_config()):
        raise Finding(
            f"seed {seed}: {what}: another config from the config: {again.get_config()}, {layer.get_config()}"
        )
    spoiled = rng.random() < 0.25
    inputs = spoil(rng, "inputs", x) if spoiled else dress(rng, x)
    before = bits({"inputs": inputs})
    right = not (wrong or spoiled)
    y = guarded(seed, f"call of {what}", right, lambda: call_with_integers(rng, layer, inputs))
    if y is None:
        return "refused"
    plain = np.asarray(inputs, layer.dtype)
    if plain.size < BIG:
        check_output(seed, what, layer, plain, y)
        check_backward(seed, what, rng, layer, plain, y)
    if before != bits({"inputs": inputs}):
        raise Finding(f"seed {seed}: {what} changed its input")
    return "checked"


def call_with_integers(rng, layer, inputs):
    """Weights that make every sum exact."""
    layer(inputs)
    if layer.count_params() > BIG:
        raise MemoryError("larger than what is looked at here")
    values = np.random.default_rng(rng.randrange(2**32))
    layer.set_weights([values.integers(-8, 9, w.shape) for w in layer.weights])
    return layer(inputs, training=True)


def kind_of(layer):
    return type(layer).__name__.rstrip("123D")


def linear(layer):
    return getattr(layer, "activation", None) is layers.activations.get("linear")


def twin(layer, x, kernel):
    """The convolution of a layer without bias, by the oracle."""
    rank = len(layer.kernel_size)
    if kind_of(layer) == "Conv":
        function = getattr(oracle, f"conv{rank}d")
        return function(
            x, kernel, layer.strides, layer.padding, layer.data_format, layer.dilation_rate, groups=layer.groups
        )
    function = getattr(oracle, f"local_conv{rank}d")
    return function(x, kernel, layer.kernel_size, layer.strides, None, layer.data_format, padding=layer.padding)


def rows(layer, x):
    """The kernel as the functions take it."""
    if kind_of(layer) == "Conv" or layer.implementation == 1:
        return layer.kernel.value
    return layers.convert_implementation([layer.kernel.value], layer.get_config(), 1, (None, *x.shape[1:]))[0]


def check_output(seed, what, layer, x, y):
    if y.dtype != layer.dtype or y.shape != layer.compute_output_shape(x.shape):
        raise Finding(
            f"seed {seed}: {what}: {y.dtype}{y.shape}, not {layer.dtype}{layer.compute_output_shape(x.shape)}"
        )
    if kind_of(layer) not in ("Conv", "LocallyConnected") or layer.activation not in map(
        layers.activations.get, ("linear", "relu")
    ):
        return
    expected = twin(layer, x, rows(layer, x))
    if layer.use_bias:
        bias = layer.bias.value.astype(expected.dtype)
        if (
            layer.data_format == "channels_first"
        ):  # Keras reshapes the bias of an unshared kernel, and does not transpose it
            bias = bias.reshape(layer.filters, *(y.shape[2:] if bias.ndim > 1 else (1,) * len(layer.kernel_size)))
        expected = expected + bias
    expected = expected if linear(layer) else np.maximum(expected, 0)
    if not np.array_equal(y, expected.astype(y.dtype)):
        raise Finding(f"seed {seed}: {what}: wrong output of {x.shape}")


def check_backward(seed, what, rng, layer, x, y):
    g = np.random.default_rng(rng.randrange(2**32)).integers(-8, 9, y.shape).astype(y.dtype)
    spoiled = g.size > 0 and g.ndim > 0 and rng.random() < 0.2
    grad = guarded(
        seed,
        f"backward of {what}",
        not spoiled,
        lambda: layer.backward(spoil(rng, "g", g) if spoiled else dress(rng, g)),
    )
    if grad is None:
        return
    if grad.shape != x.shape or grad.dtype != layer.dtype:
        raise Finding(f"seed {seed}: backward of {what}: {grad.dtype}{grad.shape} for an input {x.shape}")
    if (
        spoiled
        or kind_of(layer) not in ("Conv", "LocallyConnected")
        or not linear(layer)
        or layer.activity_regularizer is not None
    ):
        return
    # Linear in the input: <backward(g), x> is <g, f(x)>, and all of it integers that float64 holds.
    product = np.vdot(g.astype(float), twin(layer, x, rows(layer, x)).astype(float))
    if np.vdot(grad.astype(float), x.astype(float)) != product:
        raise Finding(f"seed {seed}: backward of {what}: wrong gradient of the input")
    if (
        layer.trainable
        and layer.kernel.regularizer is None
        and np.vdot(layer.kernel.grad.astype(float), layer.kernel.value) != product
    ):
        raise Finding(f"seed {seed}: backward of {what}: wrong gradient of the kernel")


def part_round(rng, seed):
    """Activations, initializers, regularizers, constraints: by name, by config, and what they make of an array."""
    module = rng.choice(PARTS)
    name = rng.choice([name for name in module.__all__ if name not in NO_PARTS])
    part = getattr(module, name)
    if rng.random() < 0.5:
        argument = rng.choice(["l1", "seed", "value", "max_value", "axis", "gain"])
        config = {"class_name": name, "config": {argument: rng.choice([*ODD, *NUMBERS])}}
        part = guarded(
            seed, f"{module.__name__}.get({config})", False, lambda: module.get(rng.choice([config, name, *ODD]))
        )
    elif isinstance(part, type):
        part = guarded(seed, f"{name}()", False, part)
    if not callable(part):
        return "refused"
    x = (
        np.random.default_rng(seed % 2**32)
        .normal(size=[rng.randint(0, 4) for _ in range(rng.randint(0, 4))])
        .astype("float32")
    )
    given = rng.choice(
        [
            x,
            x,
            x.astype(float),
            x.shape,
            list(x.shape),
            np.full_like(x, np.inf),
            np.full_like(x, np.nan),
            *ODD,
            *NUMBERS,
        ]
    )
    if module is not layers.initializers and isinstance(given, tuple | list):
        given = x
    result = guarded(seed, f"{part!r}({given!r})", False, lambda: part(given))
    if result is None:
        return "refused"
    if module is layers.initializers and isinstance(given, tuple) and given == x.shape and np.shape(result) != given:
        raise Finding(f"seed {seed}: {part!r}({given!r}) has shape {np.shape(result)}")
    return "checked"


def config_round(rng, seed):
    """A model from a config of which one place is another value."""
    model = draw_model(rng)
    text = model.to_json()
    content = json.loads(text)
    place, key = damage.inside(rng, content)
    place[key] = rng.choice(
        [None, True, 2.5, "3", "", [], {}, -1, 0, 2**31, 2**63, 10**30, [[]], {"class_name": "Dense"}, "Dense"]
    )
    changed = json.dumps(content)
    result = guarded(seed, f"from_json({changed})", changed == text, lambda: layers.Sequential.from_json(changed))
    if result is None:
        return "refused"
    guarded(seed, f"to_json after from_json({changed})", True, result.to_json)
    return "checked"


def draw_model(rng):
    made = []
    for number in range(rng.randint(1, 3)):
        layer_class, arguments, _ = draw_layer(rng)
        made.append(
            layer_class(**{k: v for k, v in arguments.items() if k != "input_shape"} | {"name": f"layer_{number}"})
        )
    return layers.Sequential(made, name="model")


def file_round(rng, seed):
    """A file of any form, perhaps damaged, as weights or as a whole model: what is in it, or refused.

    Nothing half-loaded.
    """
    form = rng.choice(list(damage.FORMS))
    what = rng.choice(["weights", "model"]) if form in damage.MODELS else "weights"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{form}"
        if rng.random() < 0.15:
            path.write_bytes(damage.whole(form))
            given = {"by_name": False, "skip_mismatch": False}
            wrong = wrong_values(rng, given, 0.7)
            model = damage.model(form)
            loaded = guarded(
                seed,
                f"load_weights(a.{form}, {given | wrong})",
                not wrong,
                lambda: model.load_weights(path, **(given | wrong)) or model,
            )
            return "refused" if loaded is None else "checked"
        way = damage.damage(rng, form, path)
        call = f"{what} of a.{form} after {way}"
        loaded = guarded(
            seed,
            call,
            False,
            lambda: only_value_errors(damage.load, what, path, damage.model(form), by_name=rng.random() < 0.2),
        )
        if loaded is None:
            return "refused"
        # Whatever the file was, this is a model now.
        guarded(seed, f"{call}, then saving", True, lambda: loaded.save_weights(path.with_name("b.npz")) or True)
        guarded(seed, f"{call}, then loading", True, lambda: loaded.load_weights(path.with_name("b.npz")) or True)
    return "checked"


def only_value_errors(call, *arguments, **options):
    """A file has no types: what is wrong with it is a ValueError."""
    try:
        return call(*arguments, **options)
    except TypeError as error:
        raise RuntimeError(f"a TypeError for a file: {error}") from error


def model_round(rng, seed):
    """A model's own methods: predict in batches is the call, a summary is text, weights go in and out."""
    layer_class, arguments, x = draw_layer(rng)
    model = layers.Sequential([layer_class(**arguments), layers.Flatten()])
    model.build((None, *x.shape[1:]))
    given = {"batch_size": rng.randint(1, 4), "verbose": 0}
    wrong = wrong_values(rng, given, 0.3)
    result = guarded(
        seed, f"predict({given | wrong})", not wrong, lambda: model.predict(dress(rng, x), **(given | wrong))
    )
    if result is not None and not np.allclose(result, model(x), rtol=1e-5, atol=1e-5):
        raise Finding(f"seed {seed}: predict of {layer_class.__name__} is not the call")
    lines = {"line_length": 65, "positions": None, "show_trainable": False}
    wrong = wrong_values(rng, lines, 0.5)
    guarded(
        seed,
        f"summary({lines | wrong})",
        not wrong,
        lambda: model.summary(print_fn=io.StringIO().write, **(lines | wrong)),
    )
    weights = model.get_weights()
    if weights:
        weights[rng.randrange(len(weights))] = spoil(rng, "weights", weights[0])
    guarded(seed, "set_weights", False, lambda: model.set_weights(rng.choice([weights, *ODD])))
    return "refused" if result is None else "checked"


NAME_PARTS = [
    "a",
    "b",
    "",
    ".",
    "..",
    "a:0",
    "kernel:0",
    "top_level_model_weights",
    "model_weights",
    "vars",
    "\ud800",
    "\0",
]


def name_round(rng, seed):
    """Layers of hostile names: a file that holds them comes back, or nothing is written."""
    drawn = {"/".join(rng.choices(NAME_PARTS, k=rng.choice([1, 2, 3, 200]))) for _ in range(rng.randint(1, 4))}
    names = rng.sample(sorted(drawn), len(drawn))
    suffix, whole = rng.choice([("h5", False), ("npz", False), ("h5", True), ("keras", True)])
    what = f"save to .{suffix} as a {'model' if whole else 'file of weights'} of layers {names!r:.500}"
    model = layers.Sequential([layers.Dense(1, bias_initializer="ones", name=name) for name in names])
    model.build((None, 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file.{suffix}"
        save = model.save if whole else model.save_weights
        if guarded(seed, what, False, lambda: save(path) or True) is None:
            if os.listdir(folder):
                raise Finding(f"seed {seed}: {what} was refused and left {os.listdir(folder)}")
            return "refused"
        again = guarded(
            seed, what, True, lambda: layers.load_model(path) if whole else model.load_weights(path) or model
        )
    if not all(map(np.array_equal, again.get_weights(), model.get_weights())):
        raise Finding(f"seed {seed}: {what}: other weights")
    return "checked"


def function_round(rng, seed):
    """The functional conv1d: its weights by name, or refused."""
    _, arguments, x = draw_layer(rng)
    layers.clear_session()
    if x.ndim != 3 or "filters" not in arguments:
        return layer_round(rng, seed)
    names = ("filters", "kernel_size", "strides", "padding", "data_format", "activation", "use_bias", "name")
    given = {key: arguments[key] for key in names}
    wrong = wrong_values(rng, given | {"reuse": None, "dilation_rate": 1}, 0.5)
    what = f"conv1d({given | wrong})"
    inputs = dress(rng, x)
    y = guarded(seed, what, not wrong, lambda: layers.conv1d(inputs, **(given | wrong)))
    if y is None:
        return "refused"
    again = guarded(seed, what, True, lambda: layers.conv1d(inputs, **(given | wrong | {"reuse": True})))
    if "name" not in wrong and not np.array_equal(y, again, equal_nan=True):
        raise Finding(f"seed {seed}: {what}: another result with the same weights")
    return "checked"


def store_round(rng, seed):
    """The functional store's scopes and lists, scopes of custom objects, input layers, whole-model files,
    the printed configuration.
    """
    layers.clear_session()
    odd = rng.choice([*ODD, *NUMBERS, "scope", "a/b", {"name": len}, Path("none.h5"), "x" * 5000])
    what, call = rng.choice(
        [
            (
                "variable_scope",
                lambda: scoped(
                    rng.choice(["name_or_scope", "default_name", "initializer", "regularizer", "reuse"]), odd
                ),
            ),
            ("custom_object_scope", lambda: within(layers.custom_object_scope(odd))),
            ("InputLayer", lambda: layers.InputLayer(input_shape=odd, name="in")),
            ("load_model", lambda: layers.load_model(odd)),
            ("show_config", lambda: localconv.show_config(io.StringIO()) or True),
        ]
    )
    try:
        return "refused" if guarded(seed, f"{what}({odd!r:.200})", False, call) is None else "checked"
    except Finding as finding:
        if what == "load_model" and isinstance(finding.__cause__, OSError):
            return "refused"
        raise


def within(context):
    with context:
        return True


def scoped(argument, odd):
    """Every variable made in a scope is listed, under its name, and found when the scope is opened again."""
    given = {"name_or_scope": None if argument == "default_name" else "scope"} | {argument: odd}
    x = np.ones((1, 4, 1), np.float32)
    with layers.variable_scope(**given) as scope:
        y = layers.conv1d(x, 2, 2, kernel_regularizer="l2", name="c")
    with layers.variable_scope(scope, reuse=True):
        again = layers.conv1d(x, 2, 2, name="c")
    names = [variable.name for variable in layers.global_variables()]
    prefix = f"{scope.name}/" if scope.name else ""
    if (
        names != [f"{prefix}c/kernel:0", f"{prefix}c/bias:0"]
        or layers.trainable_variables() != scope.global_variables()
    ):
        raise AssertionError(f"variables {names} in scope {scope}")
    if not np.array_equal(y, again):
        raise AssertionError(f"other values in {scope}, opened again")
    return layers.get_regularization_losses()


ROUNDS = [layer_round] * 4 + [
    store_round,
    part_round,
    config_round,
    file_round,
    model_round,
    name_round,
    function_round,
]
