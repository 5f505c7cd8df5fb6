"""Models as ONNX files: what ONNX Runtime makes of them in a process without this package, and what they hold."""

import sys

import numpy as np
import pytest
from exported import assert_same, run_exported, save_inputs
from layer_cases import GOLDEN

from localconv import layers
from localconv.layers import activations

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'localconv[onnx]'")
pytest.importorskip("onnxruntime", reason="needs onnxruntime, which runs what is written")

rng = np.random.default_rng(41)
LAST, FIRST = "channels_last", "channels_first"
SIZES = (9, 7, 6)
LOW_RANK = (layers.LowRankLocallyConnected1D, layers.LowRankLocallyConnected2D)
LOCAL = (layers.LocallyConnected1D, layers.LocallyConnected2D, layers.LocallyConnected3D)
CONV = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
POOL = (layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D)
OTHERS = {
    "relu of parameters": activations.relu.with_parameters(alpha=0.1, max_value=1.0, threshold=0.2),
    "leaky relu of 0.4": activations.leaky_relu.with_parameters(alpha=0.4),
    "elu of 0.5": activations.elu.with_parameters(alpha=0.5),
    "gelu by tanh": activations.gelu.with_parameters(approximate=True),
    "softmax of axis 1": activations.softmax.with_parameters(axis=1),
}
NAMES = [
    *("elu", "exponential", "gelu", "hard_sigmoid", "leaky_relu", "linear", "mish", "relu", "relu6", "selu"),
    *("sigmoid", "softmax", "softplus", "softsign", "swish", "tanh"),
]


def shape_of(rank, data_format, channels=2):
    return (*SIZES[:rank], channels) if data_format == LAST else (channels, *SIZES[:rank])


def sequential(*stack, quantize=None):
    """A model with weights that initializers would leave at 0, too."""
    model = layers.Sequential(list(stack))
    for variable in model.weights:
        variable.assign(0.3 * rng.standard_normal(variable.shape))
    for layer in model.layers if quantize else ():
        if isinstance(layer, (*LOCAL, *CONV)):
            layer.quantize(quantize)
    return model


def local_model(rank, data_format, padding, implementation=1, quantize=None, **more):
    first = LOCAL[rank - 1](
        *(3, (3, 2, 4)[:rank], (2, 1, 2)[:rank], padding, data_format),
        implementation=implementation,
        input_shape=shape_of(rank, data_format),
        **more,
    )
    return sequential(first, layers.Flatten(data_format), layers.Dense(3), quantize=quantize)


def conv_model(rank, data_format, padding, strides, dilation, groups, quantize=None):
    first = CONV[rank - 1](
        *(4, 3, strides, padding, data_format, dilation, groups), input_shape=shape_of(rank, data_format)
    )
    return sequential(first, POOL[rank - 1](2, padding=padding, data_format=data_format), quantize=quantize)


def low_rank_model(rank, data_format, padding, **more):
    window = ((3, 2)[:rank], 2, (2, 1)[:rank])
    shape = shape_of(rank, data_format)
    return sequential(LOW_RANK[rank - 1](3, *window, padding, data_format, "softmax", input_shape=shape, **more))


def cases():
    for data_format in (LAST, FIRST):
        for padding in ("valid", "same"):
            for rank in (1, 2, 3):
                where = f"{rank}d-{data_format}-{padding}"
                for implementation in (1, 2, 3):
                    yield f"local-{where}-{implementation}", local_model(rank, data_format, padding, implementation)
                yield f"local-{where}-int8", local_model(rank, data_format, padding, quantize="int8")
                yield f"conv-{where}-strided", conv_model(rank, data_format, padding, 2, 1, 1)
                yield f"conv-{where}-dilated", conv_model(rank, data_format, padding, 1, 2, 2)
            yield f"conv-{where}-int8", conv_model(2, data_format, padding, 1, 1, 2, "int8")
            for normalize in (None, "softmax", "norm"):
                words = {"normalize_weights": normalize}
                yield (
                    f"low-rank-1d-{data_format}-{padding}-{normalize}",
                    low_rank_model(1, data_format, padding, **words),
                )
                words |= {"separable": True, "use_bias": normalize is not None}
                yield (
                    f"low-rank-2d-{data_format}-{padding}-{normalize}",
                    low_rank_model(2, data_format, padding, **words),
                )
            for mode in ("float16", "bfloat16"):
                yield f"local-2d-{data_format}-{padding}-{mode}", local_model(2, data_format, padding, quantize=mode)
    for name, activation in ({name: name for name in NAMES} | OTHERS).items():
        yield f"activation-{name}", sequential(layers.Activation(activation, input_shape=(5, 7)))
    yield "softmax of filters", local_model(2, FIRST, "same", activation="softmax", use_bias=False)
    yield (
        "many batch axes",
        sequential(
            layers.Conv1D(4, 3, padding="causal", dilation_rate=2, input_shape=(5, 9, 2)),
            layers.Dense(4, activation="relu"),
            layers.Dropout(0.5),
            layers.Sequential([layers.Dense(3, use_bias=False, input_shape=(5, 9, 4))]),
        ),
    )
    yield (
        "sizes that are not known",
        sequential(
            layers.Conv2D(4, 3, 2, "same", LAST, input_shape=(None, None, 2)), layers.MaxPooling2D(2, padding="same")
        ),
    )
    yield "large windows", sequential(layers.LocallyConnected1D(4, 70, 3, input_shape=(200, 2)))
    yield "nothing", sequential(layers.Dropout(0.1, input_shape=(3,)))


CASES = dict(cases())


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What ONNX Runtime makes of all cases: (x, y) for a batch of 2, by name."""
    folder = tmp_path_factory.mktemp("onnx")
    inputs = {}
    for name, model in CASES.items():
        inputs[name] = rng.standard_normal((2, *[n or 9 for n in model.input_shape[1:]])).astype("f")
        model.export(folder / f"{name}.onnx")
        save_inputs(folder / f"{name}.onnx", inputs[name])
    outputs = run_exported(folder, ".onnx")
    return {name: (x, outputs[name][0]) for name, x in inputs.items()}


@pytest.mark.parametrize("name", CASES)
def test_values(name, found):
    x, y = found[name]
    assert y.dtype == np.float32
    assert_same(y, CASES[name](x))


def test_all_activations_are_written():
    from localconv.layers.onnx import ACTIVATIONS, WRITERS
    from localconv.layers.sequential import LAYERS

    assert set(ACTIVATIONS) == {getattr(activations, name).function for name in NAMES}
    assert set(WRITERS) == set(LAYERS.values()) - {layers.Sequential, layers.InputLayer}


@pytest.mark.parametrize("mode", [None, "int8", "float16", "bfloat16"])
def test_contents(mode, tmp_path):
    """The weights' bytes in their own dtypes and little more, standard operators, any batch."""
    model = sequential(
        layers.LocallyConnected2D(16, 5, padding="same", input_shape=(20, 20, 8), name="local"), quantize=mode
    )
    model.export(tmp_path / "model.onnx")
    file = onnx.load(tmp_path / "model.onnx")
    weights = sum(variable.value.nbytes for variable in model.weights)
    assert weights < (tmp_path / "model.onnx").stat().st_size < weights + 2**14
    kinds = {onnx.helper.tensor_dtype_to_np_dtype(constant.data_type).name for constant in file.graph.initializer}
    assert kinds == {"int64", "float32", mode or "float32"}
    assert {node.domain for node in file.graph.node} == {""}
    assert [(opset.domain, opset.version) for opset in file.opset_import] == [("", 17)]
    for value in (*file.graph.input, *file.graph.output):
        batch, *others = value.type.tensor_type.shape.dim
        assert batch.dim_param == "batch"
        assert all(size.dim_value for size in others)


def test_memory_is_bounded(tmp_path):
    """Nothing between the nodes is larger, for one image, than what all positions see of it, which the kernel has for
    each filter.
    """
    sequential(layers.LocallyConnected2D(2, 7, padding="same", input_shape=(20, 20, 8))).export(tmp_path / "a.onnx")
    graph = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "a.onnx")).graph
    shapes = [[dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim] for value in graph.value_info]
    assert len(shapes) == len(graph.node) - 1  # the last one is the output
    assert max(map(np.prod, shapes)) == 20 * 20 * 7 * 7 * 8


def test_what_meets_padding_is_left_out(tmp_path):
    """Whatever a kernel of implementation 1 has there."""
    model = sequential(layers.LocallyConnected1D(2, 3, padding="same", input_shape=(5, 2)))
    kernel = model.layers[0].kernel.numpy()
    kernel[0, :2] = np.nan
    kernel[-1, 4:] = np.inf
    model.layers[0].kernel.assign(kernel)
    x = rng.standard_normal((3, 5, 2)).astype("f")
    model.export(tmp_path / "model.onnx")
    save_inputs(tmp_path / "model.onnx", x)
    assert_same(run_exported(tmp_path, ".onnx")["model"][0], model(x))


@pytest.mark.parametrize("name", ["deepface.model.h5", "line_3.keras"])
def test_files_of_keras(name, tmp_path):
    """What the command line makes of files of Keras 2."""
    from localconv.command_line import main

    pytest.importorskip("h5py")
    model = layers.load_model(GOLDEN / name)
    x = rng.standard_normal((4, *model.input_shape[1:])).astype("f")
    assert main(["convert", str(GOLDEN / name), str(tmp_path / "model.onnx")]) == 0
    save_inputs(tmp_path / "model.onnx", x)
    assert_same(run_exported(tmp_path, ".onnx")["model"][0], model(x))


# --- refused ----------------------------------------------------------------------------------------------------------


class Own(layers.Dense):
    """A subclass may compute anything."""


def twice(x):
    return 2 * x


REFUSED = {
    "must be of float32": lambda: layers.Dense(2, dtype="float64", input_shape=(3,)),
    "'own' is of class Own": lambda: Own(2, name="own", input_shape=(3,)),
    "'own' has twice": lambda: layers.Dense(2, twice, name="own", input_shape=(3,)),
    "sizes must be known for an ONNX file of layer 'many'": lambda: layers.Conv1D(
        2, 3, name="many", input_shape=(5, None, 2)
    ),
}


@pytest.mark.parametrize("words", REFUSED)
def test_layers_that_cannot_be_written(words, tmp_path):
    with pytest.raises(ValueError, match=words):
        layers.Sequential([REFUSED[words]()]).export(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_wrong_calls(tmp_path, monkeypatch):
    model = sequential(layers.Dense(2, input_shape=(3,)))
    with pytest.raises(ValueError, match=r"filepath must end in \.onnx, got .*model\.pb"):
        model.export(tmp_path / "model.pb")
    with pytest.raises(ValueError, match="must be built before it is exported"):
        layers.Sequential([layers.Dense(2)]).export(tmp_path / "model.onnx")
    model.export(tmp_path / "model.onnx")
    with pytest.raises(FileExistsError):
        model.export(tmp_path / "model.onnx", overwrite=False)
    monkeypatch.setattr("localconv.layers.onnx.LARGEST_WEIGHTS", 20)
    with pytest.raises(ValueError, match="weights must be at most 20 bytes for an ONNX file, got 32"):
        model.export(tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "localconv.layers.onnx")
    with pytest.raises(ImportError, match="pip install 'onnx>="):
        model.export(tmp_path / "model.onnx")
