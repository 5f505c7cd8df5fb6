"""Types of the compiled floor, for type checkers; `_core.pyx` says what the functions do."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, final

from numpy.typing import NDArray

from .geometry import Geometry, Ints, Phase

_Array = NDArray[Any]

LOCAL_STRATEGIES: tuple[str, ...]
GRADIENT_STRATEGIES: tuple[str, ...]

def available_isas() -> tuple[str, ...]: ...
def set_isa(name: str) -> None: ...
def get_isa() -> str: ...
def lanes(double_precision: bool) -> int: ...
def rows_limit(double_precision: bool, vectors: int) -> int: ...
def set_num_threads(n: int) -> None: ...
def num_threads() -> int: ...
def openmp_version() -> int: ...
def last_run() -> dict[str, Any] | None: ...

@final
class LocalPlan:
    def __new__(
        cls,
        geometry: Geometry,
        double_precision: bool,
        strategy: str,
        vectors: int,
        panel_filters: int,
        block: Ints,
        batch_chunk: int,
        batch_tile: int,
        filter_parts: int,
        threads: int,
    ) -> Self: ...
    @property
    def workspace(self) -> int: ...
    @property
    def strategy(self) -> str: ...

@final
class ConvPlan:
    def __new__(
        cls, cuts: Sequence[tuple[Geometry | Phase, int, bool, int, int, int]], double_precision: bool, threads: int
    ) -> Self: ...
    @property
    def workspace(self) -> tuple[int, int]: ...

@final
class GradientPlan:
    def __new__(
        cls,
        geometry: Geometry,
        double_precision: bool,
        for_kernel: bool,
        strategy: str,
        vectors: int,
        panel_filters: int,
        block: Ints,
        segment: int,
        batch_chunk: int,
        batch_tile: int,
        filter_parts: int,
        threads: int,
    ) -> Self: ...
    @property
    def workspace(self) -> int: ...
    @property
    def strategy(self) -> str: ...

@final
class ReductionPlan:
    def __new__(
        cls,
        geometry: Geometry,
        double_precision: bool,
        vectors: int,
        pack: bool,
        position_parts: int,
        panel_parts: int,
        row_parts: int,
        threads: int,
    ) -> Self: ...
    @property
    def workspace(self) -> tuple[int, int]: ...

@final
class NarrowPlan:
    def __new__(cls, geometry: Geometry, double_precision: bool, vectors: int, block: Ints, threads: int) -> Self: ...
    @property
    def workspace(self) -> tuple[int, int]: ...

class _Forward(Protocol):
    def __call__(self, plan: Any, x: _Array, kernel: _Array, bias: _Array | None, out: _Array, relu: bool = False) -> None: ...

class _Im2col(Protocol):
    def __call__(self, geometry: Geometry, x: _Array, columns: _Array, first: int = 0, threads: int = 1) -> None: ...

class _Col2im(Protocol):
    def __call__(self, geometry: Geometry, columns: _Array, x: _Array, first: int = 0, threads: int = 1) -> None: ...

class _GradInput(Protocol):
    def __call__(self, plan: Any, kernel: _Array, grad_output: _Array, out: _Array) -> None: ...

class _GradKernel(Protocol):
    def __call__(self, plan: Any, x: _Array, grad_output: _Array, out: _Array, accumulate: bool = False) -> None: ...

# Functions of a fused element type: indexed by "float" or "double" they are the function of that type.
local_forward: Mapping[str, _Forward]
conv_forward: Mapping[str, _Forward]
im2col: Mapping[str, _Im2col]
col2im: Mapping[str, _Col2im]
local_grad_input: Mapping[str, _GradInput]
local_grad_kernel: Mapping[str, _GradKernel]
conv_grad_input: Mapping[str, _GradInput]
conv_grad_input_narrow: Mapping[str, _GradInput]
conv_grad_kernel: Mapping[str, _GradKernel]
