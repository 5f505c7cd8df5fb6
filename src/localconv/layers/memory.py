"""Memory that is used again: of a large array that is made anew in every step, the first touch of its pages costs as
much as the arithmetic that fills it.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from ..core.arrays import Array

# Smaller arrays get memory that the allocator has at hand: from this size on the C library asks the system for pages.
LEAST_BYTES = 2**17


class _Loan:
    """What an array is made on. The array is its only holder, and holds it as long as it or any view of it lives,
    wherever: then the memory goes back.
    """

    __slots__ = ("__array_interface__", "_free", "_memory")

    def __init__(self, memory: Array, free: deque[Array]) -> None:
        self.__array_interface__ = memory.__array_interface__
        self._memory, self._free = memory, free

    def __del__(self) -> None:
        self._free.append(self._memory)


class ReusedMemory:
    """Arrays one after the other on the same memory, each of them nobody else's.

    Memory is given out again only when no array on it is left. Taking it and giving it back are one step each, so that
    threads never get the same. One piece is kept, and none goes into copies and pickles.
    """

    def __init__(self) -> None:
        self._free: deque[Array] = deque(maxlen=1)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a C-contiguous array of any values."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = None
        if memory is None or memory.shape != shape or memory.dtype != dtype:
            memory = np.empty(shape, dtype)
        return memory if memory.nbytes < LEAST_BYTES else np.asarray(_Loan(memory, self._free))

    def clear(self) -> None:
        """Give the memory back to the system, as far as no array is on it."""
        self._free.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return ReusedMemory, ()
