"""Every public function and class, used once, for `mypy --strict`: what a caller's type checker sees. It also runs."""

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

import localconv
from localconv import grad, layers

Array = NDArray[np.float32]

x: Array = np.ones((2, 6, 2), np.float32)
kernel: Array = np.ones((4, 6, 3), np.float32)
shared: Array = np.ones((3, 2, 3), np.float32)
picture: Array = np.ones((1, 5, 6, 2), np.float32)
kernel2: Array = np.ones((3 * 4, 18, 3), np.float32)
shared2: Array = np.ones((3, 3, 2, 3), np.float32)
last = "channels_last"

y = localconv.local_conv1d(
    x, kernel, 3, 1, last, padding="valid", dilation_rate=1, groups=1, bias=np.zeros(3, np.float32)
)
y2 = localconv.local_conv2d(picture, kernel2, (3, 3), (1, 1), (3, 4), last)
z = localconv.conv1d(x, shared, 1, ((0, 0),), last, 1)
z2 = localconv.conv2d(picture, shared2, (1, 1), "same", last, (1, 1), groups=1)
localconv.local_conv1d(x, kernel, 3, 1, last, out=y)
localconv.local_conv1d(x, np.ones((6, 6, 3), np.float32), 3, 1, last, padding="same", padding_mode="reflect")

localconv.local_conv1d_transpose(y, kernel, 3, 1, (None, 6, 2), last)
localconv.local_conv2d_transpose(y2, kernel2, 3, 1, (1, 5, 6, 2), last)
localconv.conv1d_transpose(z, shared, (2, 6, 2), data_format=last)
volume, kernel3 = np.ones((1, 4, 5, 6, 2), np.float32), np.ones((24, 54, 4), np.float32)
shared3 = np.ones((3, 3, 3, 2, 4), np.float32)
y3 = localconv.local_conv3d(volume, kernel3, 3, data_format=last)
z3 = localconv.conv3d(volume, shared3, 1, "same", last, (1, 1, 1), groups=1)
localconv.local_conv3d_transpose(y3, kernel3, 3, 1, (1, 4, 5, 6, 2), last)
localconv.conv3d_transpose(z3, shared3, [None, 4, 5, 6, 2], padding="same", data_format=last)
grad.local_conv3d_input(volume.shape, kernel3, y3, 3, data_format=last)
grad.local_conv3d_kernel(volume, kernel3.shape, y3, 3, data_format=last)
grad.conv3d_input(volume.shape, shared3, z3, 1, "same", last)
grad.conv3d_kernel(volume, shared3.shape, z3, 1, "same", last)
filters: Array = np.ones((1, 5, 6, 9), np.float32)
f2 = localconv.local_filter2d(picture, filters, 3, 1, last, padding="inside", dilation_rate=1, groups=1)
localconv.local_filter2d(picture, filters.astype(np.float16), (3, 3), (1, 1), last, padding="same", out=f2)
c2 = localconv.local_correlation2d(picture, f2, 3, 1, last, padding="inside", dilation_rate=1, groups=1)
localconv.local_correlation2d(picture, f2, 3, 1, last, padding="inside", out=c2)
localconv.local_filter1d(x, np.ones((1, 4, 3), np.float32), 3, 1, last, padding_mode="circular", normalize=True)
localconv.local_correlation1d(x, np.ones((2, 4, 2), np.float32), 3, 1, last)
f3 = localconv.local_filter3d(volume, np.ones((1, 4, 5, 6, 27), np.float32), 3, 1, last, padding="same")
c3 = localconv.local_correlation3d(volume, f3, 3, 1, last, padding="same")
localconv.conv2d_transpose(z2, shared2, [None, 5, 6, 2], padding="same", data_format=last)

grad.local_conv1d_input(x.shape, kernel, y, 3, 1, last)
for_kernel = grad.local_conv1d_kernel(x, kernel.shape, y, 3, 1, last)
grad.local_conv1d_kernel(x, kernel.shape, y, 3, 1, last, out=for_kernel, accumulate=True)
grad.local_conv2d_input(picture.shape, kernel2, y2, 3, 1, None, last)
grad.local_conv2d_kernel(picture, kernel2.shape, y2, 3, 1, (3, 4), last)
bank = localconv.KernelBank(kernel2[:2], indices=[0] * 12)
for_filters, for_weights = grad.local_conv2d_bank(picture, bank, y2, 3, 1, (3, 4), last)
localconv.local_conv2d(picture, bank, 3, 1, (3, 4), last)
grad.local_conv1d_bank(x, localconv.KernelBank(kernel[:2], indices=[0] * len(kernel)), y, 3, 1, last)
grad.local_conv3d_bank(volume, localconv.KernelBank(kernel3[:2], indices=[0] * 24), y3, 3, data_format=last)
grad.conv1d_input(x.shape, shared, z, data_format=last)
grad.conv1d_kernel(x, shared.shape, z, data_format=last)
grad.conv2d_input(picture.shape, shared2, z2, (1, 1), "same", last)
grad.conv2d_kernel(picture, shared2.shape, z2, (1, 1), "same", last)
grad.bias((3,), z, last)
ones1: Array = np.ones((2, 4, 3), np.float32)
result1: Array = np.ones((2, 4, 2), np.float32)
grad.local_filter1d_input(x.shape, ones1, result1, 3, 1, last)
grad.local_filter1d_filters(x, ones1.shape, result1, 3, 1, last, out=ones1, accumulate=True)
grad.local_correlation1d_input(x.shape, result1, ones1, 3, 1, last)
grad.local_correlation1d_queries(x, result1.shape, ones1, 3, 1, last, out=result1)
grad.local_filter2d_input(picture.shape, filters, f2, 3, 1, last, padding="inside")
grad.local_filter2d_filters(picture, filters.shape, f2, 3, 1, last, padding="same", padding_mode="replicate")
grad.local_correlation2d_input(picture.shape, f2, c2, 3, 1, last, padding="inside")
grad.local_correlation2d_queries(picture, f2.shape, c2, 3, 1, last, padding="inside")
grad.local_filter3d_input(volume.shape, c3, f3, 3, 1, last, padding="same")
grad.local_filter3d_filters(volume, c3.shape, f3, 3, 1, last, padding="same")
grad.local_correlation3d_input(volume.shape, f3, c3, 3, 1, last, padding="same")
grad.local_correlation3d_queries(volume, f3.shape, c3, 3, 1, last, padding="same")

small: localconv.QuantizedKernel = localconv.quantize(kernel, mode="int8")
again = localconv.QuantizedKernel(small.values, small.scales)
bytes_of_both: int = again.nbytes
widened: Array = again.dequantize()
half = kernel.astype(np.float16)
localconv.local_conv1d(x, half, 3, 1, last)
localconv.local_conv1d_transpose(y, half, 3, 1, (None, 6, 2), last)
grad.local_conv1d_input(x.shape, half, y, 3, 1, last)

columns = localconv.im2col(x, 3, 1, "valid", last)
localconv.col2im(columns, x.shape, 3, 1, "valid", last)

localconv.set_num_threads(1)
threads: int = localconv.get_num_threads()
localconv.set_num_threads(None)
data_format: str = localconv.image_data_format()
localconv.set_image_data_format(data_format)
floatx: str = localconv.floatx()
localconv.set_floatx(floatx)
winograd: bool = localconv.winograd()
localconv.set_winograd(winograd)
version: str = localconv.__version__
localconv.show_config(io.StringIO())

model = layers.Sequential(
    [
        layers.LocallyConnected1D(4, 3, activation="relu", kernel_regularizer="l2", input_shape=(6, 2)),
        layers.Conv1D(4, 2, padding="causal", kernel_initializer=layers.initializers.HeNormal(seed=1)),
        layers.MaxPooling1D(2),
        layers.Flatten(),
        layers.Dropout(0.1, seed=0),
        layers.Dense(3, kernel_constraint=layers.constraints.MaxNorm(2.0)),
        layers.Activation("softmax"),
    ]
)
answer = model(x, training=True)
back = model.backward(answer)
for variable in model.trainable_weights:
    if variable.grad is not None:
        variable.assign(variable.value - 0.1 * variable.grad)
model.apply_constraints()
copy = layers.Sequential.from_config(model.get_config())
copy.set_weights(model.get_weights())
text: str = model.to_json()
count: int = model.count_params()
wide = layers.LocallyConnected2D(2, 3, implementation=3, input_shape=(5, 6, 2))
wide.build((None, 5, 6, 2))
plain = layers.convert_implementation(wide.get_weights(), wide.get_config(), 1)
layers.Conv2D(2, 3, groups=1)(picture)
layers.LocallyConnected3D(2, 3, strides=(1, 2, 2), implementation=2)(volume)
low = layers.LowRankLocallyConnected2D(2, 3, rank=4, separable=True, normalize_weights="softmax")
low(picture)
expanded: layers.LocallyConnected1D | layers.LocallyConnected2D = low.to_local()
layers.LowRankLocallyConnected1D(2, 3, 4, weights_regularizer="l2")(x)
layers.Conv3D(2, 3, dilation_rate=1).convolution_op(volume, shared3)
layers.Convolution3D(2, 3)(volume)
layers.MaxPooling3D((1, 2, 2), padding="same")(volume)
small_model = layers.Sequential([layers.Conv1D(4, 3, input_shape=(6, 2))])
small_model.quantize("int8")
mode: str | None = small_model.layers[0].quantization_mode
layers.clear_session()
with layers.variable_scope(
    "scope", initializer="ones", regularizer=layers.regularizers.L2(0.1), reuse=layers.AUTO_REUSE
) as scope:
    layers.conv1d(x, 2, 3, name="c")
with layers.variable_scope(scope, reuse=True), layers.variable_scope(None, default_name="inner") as inner:
    layers.conv1d(x, 2, 3, name=scope, reuse=layers.AUTO_REUSE)
    current: layers.VariableScope = layers.get_variable_scope()
names = [variable.name for variable in layers.global_variables() + layers.trainable_variables()]
losses = layers.get_regularization_losses()


class Doubled(layers.Layer):
    """A layer of one's own."""

    def _forward(self, x: Array, training: bool) -> tuple[Array, None]:
        return 2 * x, None


first: layers.Variable = layers.Convolution1D(2, 3, input_shape=(6, 2)).add_weight("w", (2, 3))
layers.Convolution2D(2, 3)(picture)
layers.MaxPooling2D(2)(picture)
taken = layers.InputLayer(input_shape=(6, 2))
taken.input_spec = layers.InputSpec(ndim=3)
square = layers.ActivationFunction(lambda z: z * z, lambda g, z, result: 2 * g * z)
layers.Activation(square)(x)
layers.activations.get("relu")
penalty = layers.regularizers.l1_l2(0.1, 0.1)(kernel)
bounded = layers.constraints.NonNeg()(kernel)
made: list[layers.initializers.Initializer] = [
    layers.initializers.Constant(2.0),
    layers.initializers.GlorotNormal(),
    layers.initializers.GlorotUniform(fans="position"),
    layers.initializers.HeUniform(),
    layers.initializers.Identity(),
    layers.initializers.LecunNormal(),
    layers.initializers.LecunUniform(seed=1),
    layers.initializers.Ones(),
    layers.initializers.Orthogonal(),
    layers.initializers.RandomNormal(),
    layers.initializers.RandomUniform(),
    layers.initializers.TruncatedNormal(),
    layers.initializers.VarianceScaling(),
    layers.initializers.Zeros(),
]
layers.initializers.serialize(layers.initializers.get("zeros"))
fans: tuple[int, int] = layers.initializers.compute_fans((3, 2, 4))
first_values = made[0]((2, 3), "float32", np.random.default_rng(0))
penalties: list[layers.regularizers.Regularizer] = [
    layers.regularizers.L1(0.1),
    layers.regularizers.L2(0.1),
    layers.regularizers.L1L2(0.1, 0.1),
    layers.regularizers.OrthogonalRegularizer(0.1),
    layers.regularizers.l1(0.1),
    layers.regularizers.l2(0.1),
    layers.regularizers.orthogonal_regularizer(0.1),
]
layers.regularizers.serialize(layers.regularizers.get("l2"))
slope = penalties[0].gradient(kernel)
bounds: list[layers.constraints.Constraint] = [
    layers.constraints.MinMaxNorm(),
    layers.constraints.UnitNorm(),
    layers.constraints.max_norm(),
    layers.constraints.min_max_norm(),
    layers.constraints.non_neg(),
    layers.constraints.unit_norm(),
]
layers.constraints.serialize(layers.constraints.get("non_neg"))
functions: list[layers.ActivationFunction] = [
    layers.activations.elu,
    layers.activations.exponential,
    layers.activations.gelu,
    layers.activations.hard_sigmoid,
    layers.activations.leaky_relu,
    layers.activations.linear,
    layers.activations.mish,
    layers.activations.relu,
    layers.activations.relu6,
    layers.activations.selu,
    layers.activations.sigmoid,
    layers.activations.silu,
    layers.activations.softmax,
    layers.activations.softplus,
    layers.activations.softsign,
    layers.activations.swish,
    layers.activations.tanh,
]
steep = functions[0].gradient(x, x, functions[0](x))
layers.activations.serialize(functions[0])
model.summary(print_fn=lambda line: None)
answers: NDArray[np.float32] = model.predict(x, batch_size=2, verbose=0)
model.add(layers.Dense(2, name="more"))
top: layers.Layer = model.pop()
model.get_layer(index=0)
with layers.custom_object_scope({"Doubled": Doubled}):
    twice = Doubled.from_config(Doubled(name="twice").get_config())(x)
progress = layers.ProgressBar(3, verbose=0)
progress.update(1, "one")


def round_trip(folder: Path) -> layers.Sequential:
    """Files: of weights, and of the whole model."""
    model.save_weights(folder / "weights.npz")
    model.load_weights(folder / "weights.npz")
    model.save(folder / "model.keras")
    return layers.load_model(folder / "model.keras")


with TemporaryDirectory() as name:
    read_back = round_trip(Path(name))
depth: int = len(read_back)
bottom: layers.Layer = read_back[0]
upper: list[layers.Layer] = read_back[1:]
names_of_layers: list[str] = [layer.name for layer in read_back]
for variable in read_back.trainable_variables:
    variable.assign_add(variable.value)
    variable.assign_sub(variable.value)
every: list[layers.Variable] = read_back.variables + read_back.non_trainable_variables
