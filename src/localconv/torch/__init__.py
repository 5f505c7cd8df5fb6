"""Locally connected layers for PyTorch: modules, functions and operators on localconv's compiled kernels.

Needs PyTorch, which ``pip install 'localconv[torch]'`` brings.
"""

try:
    import torch as _torch  # first of all: `runtime` says why
except ImportError as error:
    raise ImportError(f"localconv.torch needs PyTorch 2.7 or newer ({error}): pip install 'torch>=2.7'") from error

if not hasattr(_torch.library, "register_autocast"):  # before the operators are registered, which is done once
    raise ImportError(f"localconv.torch needs PyTorch 2.7 or newer, got {_torch.__version__}")

from . import flops as _flops  # noqa: F401  # tells PyTorch's counter of the operators
from . import private as _private
from . import runtime as _runtime
from .banks import LowRankLocalConv1d, LowRankLocalConv2d
from .fallback import use_triton
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
    local_conv2d,
    local_conv3d,
    local_conv_transpose1d,
    local_conv_transpose2d,
    local_conv_transpose3d,
)
from .interop import from_keras, from_snippet, to_keras, to_snippet
from .modules import (
    LazyLocalConv1d,
    LazyLocalConv2d,
    LazyLocalConv3d,
    LocalConv1d,
    LocalConv2d,
    LocalConv3d,
    LocalConvTranspose1d,
    LocalConvTranspose2d,
    LocalConvTranspose3d,
)
from .portable import decompositions, portable

__all__ = [
    "LazyLocalConv1d",
    "LazyLocalConv2d",
    "LazyLocalConv3d",
    "LocalConv1d",
    "LocalConv2d",
    "LocalConv3d",
    "LocalConvTranspose1d",
    "LocalConvTranspose2d",
    "LocalConvTranspose3d",
    "LowRankLocalConv1d",
    "LowRankLocalConv2d",
    "decompositions",
    "from_keras",
    "from_snippet",
    "local_conv1d",
    "local_conv2d",
    "local_conv3d",
    "local_conv_transpose1d",
    "local_conv_transpose2d",
    "local_conv_transpose3d",
    "local_correlation1d",
    "local_correlation2d",
    "local_correlation3d",
    "local_filter1d",
    "local_filter2d",
    "local_filter3d",
    "portable",
    "to_keras",
    "to_snippet",
    "use_triton",
]


def __dir__() -> list[str]:
    return list(__all__)


_runtime.warn_of_two_runtimes()
_private.warn_of_missing_names()
