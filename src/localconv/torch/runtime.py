"""One OpenMP runtime for PyTorch and localconv.

Each runtime keeps a pool of threads, and for a while after a parallel region they spin, waiting for the next one. With
two runtimes in a process the threads of one take the processors from the other: alternating calls of 0.15 ms took 8
times as long as the sum of both alone. On Linux there is one, whatever is imported first: PyTorch's wheels and
localconv's carry it under its plain name (``libgomp.so.1``), and the loader takes a library that is there already for
every other of that name. Then `torch.set_num_threads`, too, is a setting of both.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from pathlib import Path

import torch

from .. import _core

# What PyTorch's kernels are in, by platform.
_LIBRARIES = {"linux": "libtorch_cpu.so", "darwin": "libtorch_cpu.dylib"}

MESSAGE = (
    "PyTorch and localconv run on two OpenMP runtimes in this process, whose waiting threads take the processors from "
    "each other: alternating calls can be several times slower. {remedy}, or set OMP_WAIT_POLICY=passive in the "
    "environment"
)
REMEDIES = {
    "linux": "Import torch before localconv, or install a wheel of localconv that carries libgomp under its plain name",
    "darwin": "Build localconv against PyTorch's own libomp.dylib",
}


def torch_address() -> int:
    """Where the omp_get_max_threads is that PyTorch calls; 0: not to be found, or PyTorch has no OpenMP."""
    path = Path(torch.__file__).parent / "lib" / _LIBRARIES.get(sys.platform, "")
    if not path.is_file():
        return 0
    # What is global comes first where the loader binds names, and PyTorch makes its runtime global.
    for library in (ctypes.CDLL(None), ctypes.CDLL(str(path))):
        function = getattr(library, "omp_get_max_threads", None)
        if function is not None:
            return ctypes.cast(function, ctypes.c_void_p).value or 0
    return 0


def is_shared() -> bool:
    """Whether PyTorch and localconv are known to run on one runtime, or one of them on none."""
    theirs, ours = torch_address(), _core.openmp_address()
    return theirs == ours or 0 in (theirs, ours)


def warn_of_two_runtimes() -> None:
    """A RuntimeWarning, with the remedy, where PyTorch and localconv run on two."""
    if not is_shared():
        remedy = REMEDIES.get(sys.platform, REMEDIES["linux"])
        warnings.warn(MESSAGE.format(remedy=remedy), RuntimeWarning, stacklevel=3)
