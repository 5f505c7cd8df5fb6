"""Every public operation once: its function, right arguments by name, and the shape of the result.

A new forward convolution is a case in `FORWARD`; its gradients and its transpose follow. What tests go over is taken
from `OPERATIONS`.
"""

import dataclasses

import numpy as np
from oracle import Case

import localconv
from localconv import grad

FORWARD = {
    case.function: case
    for case in (
        Case("local_conv1d", (7,), (3,), 2, 4, 6),
        Case("local_conv2d", (7, 6), (3, 2), 2, 4, 6),
        Case("conv1d", (7,), (3,), 2, 4, 6),
        Case("conv2d", (7, 6), (3, 2), 2, 4, 6),
    )
}


@dataclasses.dataclass(frozen=True)
class Operation:
    """One function. `right`: arguments by name.

    `kind`: forward, input, kernel, transpose (of a forward function) or columns.
    """

    name: str
    kind: str
    right: dict
    out: tuple
    rank: int

    @property
    def module(self):
        return grad if self.kind in ("input", "kernel") else localconv

    def call(self, **changes):
        """Call the function with some of its arguments changed."""
        return getattr(self.module, self.name)(**(self.right | changes))

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
    checked = sizes | ({"output_shape": case.out} if case.function == "local_conv2d" else {})

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


OPERATIONS = {operation.name: operation for case in FORWARD.values() for operation in of_case(case)}
OPERATIONS |= {operation.name: operation for operation in columns()}


def of_kind(*kinds):
    """The names of the operations of these kinds."""
    return tuple(name for name, operation in OPERATIONS.items() if operation.kind in kinds)
