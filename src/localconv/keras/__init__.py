"""Locally connected layers for Keras 3, which deleted them, on localconv's compiled kernels.

`LocallyConnected1D` and `LocallyConnected2D` are layers like Keras's own, with Keras 2's arguments and weights, for the
backends tensorflow, torch, jax and numpy; `install` puts them where Keras 2 had them, so that its files open again.
`LocallyConnected3D`, which Keras never had, follows the same rules for three axes. `LowRankLocallyConnected1D` and
`LowRankLocallyConnected2D` have a few filter banks, weighted at every position. `Involution2D` makes the filters of
every pixel's window of the pixel itself; `localconv.keras.ops` has the functions that it is made of. `set_engine` says
what computes in a model.

Needs Keras 3 and one of its backends: ``pip install 'localconv[keras]'``.
"""

try:
    import keras as _keras
except ImportError as error:
    raise ImportError(
        f"localconv.keras needs Keras 3 and its backend, of which something cannot be imported here ({error}): pip "
        "install 'keras>=3.15' installs Keras; the backend, one of tensorflow, torch, jax and numpy, is installed "
        "beside it and named in the environment, as KERAS_BACKEND=torch"
    ) from error

if int(_keras.__version__.partition(".")[0]) < 3:
    raise ImportError(
        f"localconv.keras needs Keras 3, and this is Keras {_keras.__version__}, which has these layers itself: pip "
        "install 'keras>=3.15' installs Keras 3"
    )

from . import ops
from .engines import set_engine
from .install import install
from .involution import Involution2D
from .layers import LocallyConnected1D, LocallyConnected2D, LocallyConnected3D
from .low_rank import LowRankLocallyConnected1D, LowRankLocallyConnected2D

__all__ = [
    "Involution2D",
    "LocallyConnected1D",
    "LocallyConnected2D",
    "LocallyConnected3D",
    "LowRankLocallyConnected1D",
    "LowRankLocallyConnected2D",
    "install",
    "ops",
    "set_engine",
]


def __dir__() -> list[str]:
    return list(__all__)
