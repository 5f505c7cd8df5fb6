"""Every public operation once: its function, right arguments, the shape of the result, and how to draw others.

A new forward convolution is a case in `FORWARD`; its gradients and its transpose follow. The functions of local filters
follow from the twin's `FILTER_ROLES`. Another operation is a row, with a kind of its own in `DRAWS`. Tests and the
fuzzer go over `OPERATIONS`; what an operation computes is said by the function of its name in oracle.py.
"""

import dataclasses

import numpy as np
import oracle
from oracle import FILTER_ROLES, Case, FilterCase, Gradient

import localconv
from localconv import grad

FORWARD = {
    case.function: case
    for case in (
        Case("local_conv1d", (7,), (3,), 2, 4, 6),
        Case("local_conv2d", (7, 6), (3, 2), 2, 4, 6),
        Case("conv1d", (7,), (3,), 2, 4, 6),
        Case("conv2d", (7, 6), (3, 2), 2, 4, 6),
        Case("local_conv3d", (5, 4, 3), (3, 2, 2), 2, 4, 6),
        Case("conv3d", (5, 4, 3), (3, 2, 2), 2, 4, 6),
    )
}
FILTERING = {
    case.function: case
    for kind in FILTER_ROLES
    for case in (FilterCase(kind, (7,), (3,)), FilterCase(kind, (7, 6), (3, 2)), FilterCase(kind, (5, 4, 3), (3, 2, 2)))
}


@dataclasses.dataclass(frozen=True)
class Operation:
    """One function. `right`: arguments by name.

    `kind`: forward, input, kernel, transpose (of a forward function), columns, or one of `FILTER_ROLES`.
    """

    name: str
    kind: str
    right: dict
    out: tuple
    rank: int

    @property
    def module(self):
        gradients = ("input", "kernel", *(kind for kind, role in FILTER_ROLES.items() if role.shape))
        return grad if self.kind in gradients else localconv

    @property
    def accumulates(self):
        """Whether it takes `accumulate`, as gradients for kernels do."""
        return self.kind in ("kernel", "local_filter_filters")

    def call(self, **changes):
        """Call the function with some of its arguments changed."""
        return getattr(self.module, self.name)(**(self.right | changes))

    def draw(self, rng):
        """Random right arguments. The data are integers that every sum holds exactly."""
        return DRAWS[self.kind](self, rng)

    @property
    def arrays(self):
        """The names of the arguments that are arrays."""
        return [name for name, value in self.right.items() if isinstance(value, np.ndarray)]


def zeros(shape):
    return np.zeros(shape, np.float32)


def of_case(case):
    """The forward function of a case, its two gradients and its transpose."""
    image, kernel, _ = case.shapes()
    output = case.layout(case.out, case.filters)
    x = "inputs" if case.local else "x"
    sizes = {"data_format": "channels_last"} | ({"kernel_size": case.kernel_size, "strides": 1} if case.local else {})
    checked = sizes | ({"output_shape": case.out} if case.local and case.rank > 1 else {})

    def operation(kind, right, out):
        name = case.function if kind == "forward" else f"{case.function}_{kind}"
        return Operation(name, kind, right, out, case.rank)

    return [
        operation("forward", {x: zeros(image), "kernel": zeros(kernel)} | checked, output),
        operation(
            "input", {"input_shape": image, "kernel": zeros(kernel), "grad_output": zeros(output)} | checked, image
        ),
        operation("kernel", {x: zeros(image), "kernel_shape": kernel, "grad_output": zeros(output)} | checked, kernel),
        operation("transpose", {x: zeros(output), "kernel": zeros(kernel)} | sizes | {"output_shape": image}, image),
    ]


def columns():
    """im2col and col2im, of the windows of conv2d."""
    case = FORWARD["conv2d"]
    image, rows = case.shapes()[0], (case.batch, int(np.prod(case.out)), case.depth)
    return [
        Operation("im2col", "columns", {"x": zeros(image), "kernel_size": case.kernel_size}, rows, case.rank),
        Operation(
            "col2im",
            "columns",
            {"cols": zeros(rows), "input_shape": image, "kernel_size": case.kernel_size},
            image,
            case.rank,
        ),
    ]


def of_filters(case):
    """One function of local filters."""
    sizes = {"kernel_size": case.kernel_size, "strides": 1, "data_format": "channels_last"}
    arrays = {argument: zeros(case.shapes()[name]) for argument, name in case.role.arrays.items()}
    chosen = {name: value for name, value in case.arguments(arrays).items() if name not in case.options()}
    return Operation(case.function, case.kind, chosen | sizes, case.shapes()[case.role.makes], case.rank)


OPERATIONS = {operation.name: operation for case in FORWARD.values() for operation in of_case(case)}
OPERATIONS |= {operation.name: operation for operation in columns()}
OPERATIONS |= {name: of_filters(case) for name, case in FILTERING.items()}


# ------------------------------------------------------------------------------------------------- random arguments


def draw_case(rng, function):
    """A small right geometry of a forward convolution."""
    rank, local = int(function[-2]), function.startswith("local")
    largest, more = {1: (4, 6), 2: (4, 6), 3: (3, 2)}[rank]
    kernel = tuple(rng.randint(1, largest) for _ in range(rank))
    strides = tuple(rng.randint(1, 4) for _ in range(rank))
    dilation = tuple(rng.randint(1, 3) for _ in range(rank))
    if not local and max(strides) > 1:
        dilation = (1,) * rank
    names = ["valid", "same", "causal"] if rank == 1 else ["valid", "same"]
    padding = rng.choice([*names, tuple((rng.randint(0, more), rng.randint(0, more)) for _ in range(rank))])
    groups = rng.choice([1, 1, 2])
    return Case(
        function,
        tuple((k - 1) * d + 1 + rng.randint(0, more) for k, d in zip(kernel, dilation, strict=True)),
        kernel,
        batch=rng.choice([1, 2, 5, 17]),
        channels=groups * rng.randint(1, 4),
        filters=groups * rng.choice([1, 3, 8, 17]),
        strides=strides,
        dilation_rate=dilation,
        groups=groups,
        padding=padding,
        data_format=rng.choice(oracle.FORMATS),
        bias=rng.choice([None, "filters", "full" if local else None]),
        dtype=rng.choice(["float32", "float64"]),
        seed=rng.randrange(2**32),
    )


def with_padding_mode(rng, case):
    """The case with a padding_mode that its padding allows."""
    if not isinstance(case.padding, str):
        pads = [max(pair) for pair in case.padding]
    else:
        pads = [max(-t.min(), t.max() + 1 - n) for t, n in zip(case.taps, case.spatial, strict=True)]
    least = min(n - pad for n, pad in zip(case.spatial, pads, strict=True))
    modes = ["replicate", *(["circular"] if least >= 0 else []), *(["reflect"] if least > 0 else [])]
    mode = rng.choice(["zeros", "zeros", rng.choice(modes)])
    return case if case.padding == "inside" else dataclasses.replace(case, padding_mode=mode)


def draw_forward(operation, rng):
    case = draw_case(rng, operation.name)
    if case.local:
        case = with_padding_mode(rng, case)
    inputs, kernel, bias = case.arrays()
    return {"inputs" if case.local else "x": inputs, "kernel": kernel, "bias": bias} | case.options()


def draw_gradient(operation, rng):
    """Of the forward convolution whose name the operation's begins with."""
    case = draw_case(rng, operation.name.removesuffix(f"_{operation.kind}"))
    if case.local and operation.kind != "transpose":
        case = with_padding_mode(rng, case)
    gradient = Gradient(case, "kernel" if operation.kind == "kernel" else "input")
    first, grad_output = gradient.arrays()
    x = "inputs" if case.local else "x"
    if operation.kind == "kernel":
        arguments = {x: first, "kernel_shape": gradient.shape, "grad_output": grad_output}
    elif operation.kind == "input":
        arguments = {"input_shape": gradient.shape, "kernel": first, "grad_output": grad_output}
    else:
        return {x: grad_output, "kernel": first} | case.options() | {"output_shape": gradient.shape}
    return arguments | case.options()


def draw_columns(operation, rng):
    """im2col, or col2im of as many rows as that has."""
    case = draw_case(rng, rng.choice([name for name in FORWARD if name.startswith("conv")]))
    inputs, _, _ = case.arrays()
    names = ("kernel_size", "strides", "padding", "dilation_rate", "data_format")
    options = {name: getattr(case, name) for name in names}
    if operation.name == "im2col":
        return {"x": inputs} | options
    shape = oracle.im2col(inputs, **options).shape
    columns = np.random.default_rng(case.seed).integers(-8, 9, shape).astype(case.dtype)
    return {"cols": columns, "input_shape": inputs.shape} | options


def draw_filter_case(rng, kind, rank):
    """A small right geometry of a function of local filters: some lines, and some windows, are longer than a vector."""
    sizes, more = {
        1: ([1, 2, 3, 4, 7, 21], [0, 1, 5, 40]),
        2: ([1, 2, 3, 5], [0, 1, 5, 19]),
        3: ([1, 2, 3], [0, 1, 2]),
    }[rank]
    size = tuple(rng.choice(sizes) for _ in range(rank))
    dilation = tuple(rng.choice([1, 1, 2, 3]) for _ in range(rank))
    names = ["valid", "same", "causal"] if rank == 1 else ["valid", "same"]
    pairs = tuple((rng.randint(0, 6), rng.randint(0, 6)) for _ in range(rank))
    padding = rng.choice([*names, pairs, "inside", "inside"])
    # Where a stride is larger than a dilated window, some pixels are in none.
    strides = (1,) * rank if padding == "inside" else tuple(rng.choice([1, 1, 2, 5]) for _ in range(rank))
    least = [k * d if padding == "inside" else (k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    groups = rng.choice([1, 1, 2, 3])
    return FilterCase(
        kind,
        tuple(n + rng.choice(more) for n in least),
        size,
        batch=rng.choice([1, 1, 2, 5]),
        channels=groups * rng.choice([1, 2, 3, 4, 8, 16, 17, 33]),
        groups=groups,
        strides=strides,
        dilation_rate=dilation,
        padding=padding,
        data_format=rng.choice(oracle.FORMATS),
        one=rng.random() < 0.3,
        dtype=rng.choice(["float32", "float64"]),
        seed=rng.randrange(2**32),
    )


def draw_filters(operation, rng):
    case = draw_filter_case(rng, operation.kind, operation.rank)
    if operation.kind.startswith("local_correlation"):
        return case.arguments()
    return with_padding_mode(rng, case).arguments()


DRAWS = {
    "forward": draw_forward,
    "input": draw_gradient,
    "kernel": draw_gradient,
    "transpose": draw_gradient,
    "columns": draw_columns,
} | dict.fromkeys(FILTER_ROLES, draw_filters)


def of_kind(*kinds):
    """The names of the operations of these kinds."""
    return tuple(name for name, operation in OPERATIONS.items() if operation.kind in kinds)
