"""localconv on dask: locally connected convolution whose kernel is larger than a machine, and never moves.

Needs dask: ``pip install 'localconv[dask]'``.
"""

try:
    import dask.array as _array  # noqa: F401
except ImportError as error:
    raise ImportError(f"localconv.dask needs dask.array ({error}): pip install 'dask[array]>=2024.8'") from error

from . import grad
from .files import KernelFile
from .functional import local_conv1d, local_conv2d, local_conv3d

__all__ = ["KernelFile", "grad", "local_conv1d", "local_conv2d", "local_conv3d"]


def __dir__() -> list[str]:
    return list(__all__)
