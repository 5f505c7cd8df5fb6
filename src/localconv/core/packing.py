"""A shared kernel as the compiled floor packs it, kept from call to call.

A call packs the kernel before it convolves. That is a small part of a large call, but half of one that computes few
output pixels from a large kernel, as the last layers of a network do for one image.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import Job
from .arrays import Array

# Output pixels of a call, in all its images, from where on packing is a hundredth of it: keeping costs memory.
KEPT_BELOW = 2048


class KeptPacking:
    """The packed form of one kernel, whose changes have versions: of the last version, if it was used twice.

    A kernel in training is another one in every step, and nothing is kept of it.
    """

    def __init__(self) -> None:
        self._kept: tuple[Any, Any, Array | None] = None, None, None

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptPacking, ()

    def find(self, version: object, job: Any, pixels: int, elements: Array) -> Array | None:
        """The kernel of this version, with these elements, as the job packs it; None: it is to do that itself."""
        # Read and replaced as a whole: another thread may be here.
        kept_version, kept_packing, packed = self._kept
        if pixels >= KEPT_BELOW or type(job) is not Job or not job.packed_bytes:
            if kept_version is not version:
                self._kept = None, None, None
            return None
        packing = job.packing
        if kept_version is not version or kept_packing != packing:
            self._kept = version, packing, None
            return None
        if packed is None:
            packed = np.empty(job.packed_bytes, np.uint8)
            job.pack(elements.ravel().view(np.uint8), packed)
            self._kept = version, packing, packed
        return packed
