"""localconv in JAX: locally connected convolution, and filters that come with the data, under jit, grad, vmap and
shard_map, on localconv's own kernels.

Needs JAX: ``pip install 'localconv[jax]'``.
"""

try:
    import jax.ffi as _ffi  # noqa: F401  # older versions of JAX have none
except ImportError as error:
    raise ImportError(f"localconv.jax needs JAX 0.5.0 or newer ({error}): pip install 'jax>=0.5'") from error

from . import platforms as _platforms  # noqa: F401  # gives the primitives their lowerings
from .bank import KernelBank
from .filters import (
    local_correlation1d,
    local_correlation2d,
    local_correlation3d,
    local_filter1d,
    local_filter2d,
    local_filter3d,
)
from .functional import (
    local_conv1d,
    local_conv1d_transpose,
    local_conv2d,
    local_conv2d_transpose,
    local_conv3d,
    local_conv3d_transpose,
)
from .platforms import TARGETS, register

__all__ = [
    "TARGETS",
    "KernelBank",
    "local_conv1d",
    "local_conv1d_transpose",
    "local_conv2d",
    "local_conv2d_transpose",
    "local_conv3d",
    "local_conv3d_transpose",
    "local_correlation1d",
    "local_correlation2d",
    "local_correlation3d",
    "local_filter1d",
    "local_filter2d",
    "local_filter3d",
    "register",
]


def __dir__() -> list[str]:
    return list(__all__)
