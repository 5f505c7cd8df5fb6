"""Configs of models that Keras 2 wrote, as Keras 3 reads them.

Keras 3 reads most of them, and stumbles over what has another place, another name or no use there any more: each
function here repairs one kind of these.
"""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["compile_config_of_h5", "upgraded", "upgraded_compile_config"]

Config = dict[str, Any]

# Where Keras 3 has what stands under a key, for entries without a module: those of .h5 files, and all of Keras < 2.12.
LAYERS, METRICS, OPTIMIZERS = "keras.layers", "keras.metrics", "keras.optimizers"
PLACES = {
    **dict.fromkeys(("layers", "layer", "forward_layer", "backward_layer", "cell", "cells"), LAYERS),
    **dict.fromkeys(("metrics", "weighted_metrics"), METRICS),
    "loss": "keras.losses",
    "optimizer": OPTIMIZERS,
    "learning_rate": "keras.optimizers.schedules",
}
MODELS = ("Functional", "Model", "Sequential")

RECURRENT = ("RNN", "SimpleRNN", "GRU", "LSTM", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
SEPARABLE = ("SeparableConv1D", "SeparableConv2D")
SPATIAL_DROPOUT = ("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")
# What layers no longer take and what never changed what they compute, ...
UNUSED = {
    **dict.fromkeys(SEPARABLE, ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint")),
    **dict.fromkeys(SPATIAL_DROPOUT, ("noise_shape", "trainable")),
    "Discretization": ("trainable",),
    "Embedding": ("input_length",),
    "Lambda": ("function_type", "module", "output_shape_type", "output_shape_module"),
    "MultiHeadAttention": ("query_shape", "key_shape", "value_shape"),
}
# ... and what changes nothing as long as it has this value.
DEFAULTS = {
    **dict.fromkeys((*TRANSPOSED, "DepthwiseConv1D", "DepthwiseConv2D"), ("groups", 1)),
    **dict.fromkeys(RECURRENT, ("time_major", False)),
}
# Names for which Keras takes the metric that fits the output and its loss.
BY_OUTPUT = ("accuracy", "acc", "crossentropy", "ce")
OPERATORS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
GONE = (*OPERATORS, "ThresholdedReLU", "RandomHeight", "RandomWidth", "AbstractRNNCell", "DenseFeatures")


def upgraded(value: Any, place: str = LAYERS) -> Any:
    """A config that Keras 2 wrote, of a model or a part of one, as Keras 3 reads it.

    Parameters
    ----------
    value : dict, list or a part of one
    place : str, optional
        The module of Keras that has the classes in it whose own module the config does not say.

    Raises
    ------
    ValueError
        For a layer that Keras 3 has no counterpart of.
    """
    if isinstance(value, list):
        return [upgraded(part, place) for part in value]
    if not isinstance(value, dict):
        return value
    if "class_name" not in value or "config" not in value:
        return {key: upgraded(part, PLACES.get(key, place)) for key, part in value.items()}
    if value["class_name"] in ("Policy", "PolicyV1"):
        return value["config"]["name"]
    inner = _with_input(value["config"]) if value["class_name"] == "Sequential" else value["config"]
    result = {key: upgraded(part, "") for key, part in (value | {"config": inner}).items()}
    _put_in_place(result, place)
    if isinstance(result["config"], dict):
        _repair(result, result["config"])
    if isinstance(result.get("compile_config"), dict):
        result["compile_config"] = upgraded_compile_config(result["compile_config"])
    return result


def upgraded_compile_config(config: Config) -> Config:
    """The same of what `compile_from_config` takes: without what Keras 2 left open, as Keras 3 has other defaults, and
    takes no None for them.
    """
    return {key: part for key, part in upgraded(config).items() if part is not None}


def _with_input(sequential: Any) -> Config:
    """The config of a sequential model, which was a list in Keras < 2.3, with the InputLayer that it had no need of."""
    config: Config = {"layers": sequential} if isinstance(sequential, list) else sequential
    config = {"name": "sequential", **config}
    layers = config.get("layers") or [{"class_name": "InputLayer"}]
    first: Any = layers[0].get("config")
    if layers[0]["class_name"] == "InputLayer" or not isinstance(first, dict) or "batch_input_shape" not in first:
        return config
    made = {"batch_input_shape": first["batch_input_shape"], "name": f"{first.get('name', 'first')}_input"}
    return {**config, "layers": [{"class_name": "InputLayer", "config": made}, *layers]}


def _put_in_place(entry: Config, place: str) -> None:
    """Give an entry the module and name by which Keras 3 finds its class; classes of users' own stay as they are."""
    module, name = str(entry.get("module") or ""), str(entry["class_name"])
    if module.startswith(("keras.src.engine.", "keras.engine.")) and name in MODELS:
        module = ""
    if module.startswith(f"{OPTIMIZERS}.") and not module.endswith("schedules"):
        # keras.optimizers.experimental, keras.optimizers.legacy
        entry["module"] = OPTIMIZERS
    if module or (place == "" and name not in MODELS):
        return
    if name in MODELS:
        entry |= _place_of_sequential_models() if name == "Sequential" else _place_of_functional_models()
        return
    # As .h5 files have the optimizers of Keras itself.
    name = name.removeprefix("Custom>") if place == OPTIMIZERS else name
    if hasattr(_module_of_keras(place), name) and keras.saving.get_registered_object(name) is None:
        entry |= {"module": place, "class_name": name, "registered_name": None}


def _module_of_keras(path: str) -> Any:
    module: Any = keras
    for part in path.split(".")[1:]:
        module = getattr(module, part)
    return module


def _place_of_sequential_models() -> Config:
    return {"module": "keras", "class_name": "Sequential", "registered_name": None}


def _place_of_functional_models() -> Config:
    """Where the Keras at hand has the class of functional models: what it writes itself."""
    x = keras.Input((1,))
    config = keras.saving.serialize_keras_object(keras.Model(x, x))
    return {key: config[key] for key in ("module", "class_name", "registered_name")}


def _repair(entry: Config, config: Config) -> None:
    """What is written otherwise in the config of one class, of which the parts are upgraded."""
    name, module = str(entry["class_name"]), str(entry.get("module") or "")
    if name in GONE and (module == "" or module.startswith("keras.")):
        _refuse_unless_registered(entry, config)
    if name != "InputLayer":
        config.pop("batch_input_shape", None)
    if "layers" in config and "input_layers" in config:
        _repair_nodes(config)
    if module == LAYERS:
        # The model's call of the layer builds it; Keras 3 wants other shapes of layers with several inputs.
        entry.pop("build_config", None)
        _repair_layer(name, config)
    elif module == PLACES["loss"]:
        config.pop("fn", None)
        if config.get("reduction") == "auto":
            config["reduction"] = "sum_over_batch_size"
    elif module == PLACES["learning_rate"] and config.get("name") is None:
        config.pop("name", None)
    elif module == OPTIMIZERS:
        for key in ("is_legacy_optimizer", "jit_compile", *(() if config.get("decay") else ("decay",))):
            config.pop(key, None)


def _repair_layer(name: str, config: Config) -> None:
    for key in UNUSED.get(name, ()):
        config.pop(key, None)
    key, default = DEFAULTS.get(name, ("", None))
    if key in config and config[key] == default:
        del config[key]
    if name == "LeakyReLU" and "alpha" in config:
        config["negative_slope"] = config.pop("alpha")
    if name == "BatchNormalization":
        _repair_axis(config)
    if name == "Lambda":
        for key in ("function", "output_shape"):
            config[key] = _lambda(config.get(key))


def _refuse_unless_registered(entry: Config, config: Config) -> None:
    """ValueError for a layer that Keras 2 had and Keras 3 has not, unless its user has made one of this name."""
    name = str(entry["class_name"])
    if keras.saving.get_registered_object(name) is not None:
        return
    what = "an operation of TensorFlow's, written as a layer" if name in OPERATORS else "a layer of Keras 2"
    raise ValueError(
        f"layer {entry.get('name') or config.get('name')!r} is of class {name!r}, {what}, which Keras 3 does not have: "
        f"pass custom_objects with a layer {name!r}, or build the model in code, with another layer in its place, and "
        "call its load_weights"
    )


def _lambda(function: Any) -> Any:
    """A function of a Lambda layer, which is a list of its code, defaults and closure where it had no name."""
    if not isinstance(function, list) or not function or not isinstance(function[0], str):
        return function
    code, defaults, closure = function
    return {"class_name": "__lambda__", "config": {"code": code, "defaults": defaults, "closure": closure}}


def _repair_axis(config: Config) -> None:
    """Keras 2 wrote a list."""
    axis = config.get("axis")
    if isinstance(axis, list):
        if len(axis) != 1:
            raise ValueError(
                f"layer {config.get('name')!r} must normalize along one axis, which is all that Keras 3's "
                f"BatchNormalization does, got axis={axis}"
            )
        (config["axis"],) = axis


def _repair_nodes(config: Config) -> None:
    """Write the calls in a functional model as Keras 3 does, and count those of models in it from 0.

    Keras 2 counted from 1 where a model is made with its input: making it was call 0. Keras 3 counts from 0, but at the
    outputs of a functional model, which it reads as Keras 2 wrote them.
    """
    models = {layer["name"]: layer for layer in config["layers"] if layer["class_name"] in MODELS}
    calls = _references([layer.get("inbound_nodes", []) for layer in config["layers"]])
    ends = _references([config["input_layers"], config["output_layers"]])
    counted_from_1 = {
        call[0] for call in calls + ends if call[0] in models and call[1] >= len(models[call[0]]["inbound_nodes"])
    }
    for call in calls:
        call[1] -= call[0] in counted_from_1
    for call in ends:
        call[1] -= call[0] in counted_from_1 and models[call[0]]["class_name"] == "Sequential"
    for key in ("input_layers", "output_layers"):
        if isinstance(config[key], list) and len(config[key]) == 1 and isinstance(config[key][0], list):
            # One tensor, and not a list of one, for Keras 3.
            (config[key],) = config[key]
    for layer in config["layers"]:
        layer["inbound_nodes"] = [_call(layer, node) for node in layer.get("inbound_nodes", [])]


def _call(layer: Config, node: Any) -> Any:
    """A call of a layer, in Keras 3's form if tensors are among its arguments by name.

    Of them Keras 2 wrote the states of a recurrent layer beside its input.
    """
    if not isinstance(node, list) or not all(isinstance(tensor, list) and len(tensor) == 4 for tensor in node):
        return node
    inputs, named = [_tensor(tensor) for tensor in node], dict(node[-1][3])
    if layer["class_name"] in (*RECURRENT, "Bidirectional") and len(inputs) > 1:
        named["initial_state"] = inputs[1:]
        del inputs[1:]
    elif not _references(list(named.values())):
        return node
    named = {key: _tensor(part) if _references([part]) == [part] else part for key, part in named.items()}
    return {"args": inputs if len(inputs) == 1 else [inputs], "kwargs": named}


def _tensor(call: list[Any]) -> Config:
    """Keras 3's form of an output of a call; it looks at nothing but the history."""
    history = {"shape": [], "dtype": "float32", "keras_history": call[:3]}
    return {"class_name": "__keras_tensor__", "config": history}


def _references(value: Any) -> list[Any]:
    """All [layer, call, output, ...] in lists and dicts of them."""
    if isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int):
        return [value, *_references(value[3:])]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [reference for part in parts for reference in _references(part)]


def compile_config_of_h5(training: Config, outputs: list[str]) -> Config:
    """What the attribute training_config of a .h5 file holds, as .keras files of Keras 2 have it.

    `outputs` are the names of the model's outputs.
    """
    config = {name: training.get(name) for name in ("loss", "loss_weights")}
    config["optimizer"] = training.get("optimizer_config")
    for kind in ("metrics", "weighted_metrics"):
        config[kind] = _metrics_of_h5(training.get(kind), outputs)
    return config


def _metrics_of_h5(metrics: Any, outputs: list[str]) -> Any:
    if isinstance(metrics, dict) and "class_name" not in metrics:
        return {output: _metrics_of_h5(part, [output]) for output, part in metrics.items()}
    if isinstance(metrics, list) and all(part is None or isinstance(part, list) for part in metrics):
        # A list for each output.
        return [
            [_metric_of_h5(metric, output) for metric in part or () if metric is not None]
            for output, part in zip(outputs, metrics, strict=False)
        ]
    if isinstance(metrics, list):
        return [_metric_of_h5(metric, outputs[0]) for metric in metrics]
    return _metric_of_h5(metrics, outputs[0])


def _metric_of_h5(metric: Any, output: str) -> Any:
    """A metric of one output, whose name stands before the metric's own where there are several."""
    if not isinstance(metric, dict) or not isinstance(metric.get("config"), dict):
        return metric
    config = dict(metric["config"])
    config["name"] = str(config.get("name", "")).removeprefix(f"{output}_")
    if metric["class_name"] == "MeanMetricWrapper":
        if config["name"] in BY_OUTPUT:
            return config["name"]
        function = config["fn"]
        config["fn"] = {"module": "builtins", "class_name": "function", "config": function, "registered_name": function}
    return metric | {"config": config}
