"""A layer of a dask graph: keys, tasks, and what they take of other arrays.

Tasks are written one by one, not by blockwise, whose concatenation copies single chunks too; and of a neighbouring
chunk only the rows travel that a window reaches.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from operator import getitem
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from ..core.arguments import Ints
from ..core.arrays import Array
from ..core.windows import Range

Chunks = tuple[Ints, ...]


class Layer:
    """The tasks of one array that is being made of others.

    `name`: the array's; `tasks`: what computes its blocks, by key. `arguments` beside the arrays give it its name.
    """

    def __init__(self, prefix: str, sources: list[da.Array], *arguments: Any) -> None:
        token = tokenize(prefix, [source.name for source in sources], *arguments)
        self.name, self.pieces_name = f"{prefix}-{token}", f"{prefix}_rows-{token}"
        self.sources = sources
        self.tasks: dict[Any, Any] = {}
        self._pieces: dict[Any, Any] = {}
        self._starts: dict[Ints, Ints] = {}

    def piece(self, array: da.Array, wanted: tuple[Range, ...]) -> Any:
        """What computes the values of an array in a range along every axis: a key, or a task that joins several."""
        axes = [self._blocks(sizes, *part) for sizes, part in zip(array.chunks, wanted, strict=True)]

        def nested(blocks: tuple[Any, ...], axes: list[Any]) -> Any:
            if not axes:
                return self._part(array, blocks)
            return [nested((*blocks, block), axes[1:]) for block in axes[0]]

        if all(len(blocks) == 1 for blocks in axes):
            return self._part(array, tuple(blocks[0] for blocks in axes))
        return (np.block, nested((), axes))

    def _blocks(self, sizes: Ints, low: int, high: int) -> list[tuple[int, Range | None]]:
        """The blocks of an axis that a range meets, and the part of each, None for all of it."""
        starts = self._starts.get(sizes)
        if starts is None:
            starts = self._starts[sizes] = tuple(accumulate(sizes, initial=0))
        number = min(bisect_right(starts, low) - 1, len(sizes) - 1)
        blocks: list[tuple[int, Range | None]] = []
        while not blocks or (number < len(sizes) and starts[number] < high):
            part = (max(low - starts[number], 0), min(high, starts[number + 1]) - starts[number])
            blocks.append((number, None if part == (0, sizes[number]) else part))
            number += 1
        return blocks

    def _part(self, array: da.Array, blocks: tuple[tuple[int, Range | None], ...]) -> Any:
        """The key of a part of one block: cut where the block is, so that no more of it travels."""
        key = (array.name, *[number for number, _ in blocks])
        cuts = tuple(part for _, part in blocks)
        return self.cut_out(key, cuts) if any(cuts) else key

    def cut_out(self, key: Any, cuts: tuple[Range | None, ...]) -> Any:
        """The key of a part of what a task computes; None: a whole axis."""
        piece = self._pieces.get((key, cuts))
        if piece is None:
            piece = self._pieces[key, cuts] = (self.pieces_name, len(self._pieces))
            self.tasks[piece] = (getitem, key, tuple(slice(None) if cut is None else slice(*cut) for cut in cuts))
        return piece

    def array(self, chunks: Chunks, dtype: np.dtype[Any]) -> da.Array:
        """The array that the tasks make, with blocks of these sizes."""
        graph = HighLevelGraph.from_collections(self.name, self.tasks, dependencies=self.sources)
        meta: Array = np.empty((0,) * len(chunks), dtype)
        return da.Array(graph, self.name, chunks, meta=meta)
