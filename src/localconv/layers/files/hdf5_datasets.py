"""Datasets of HDF5 files: none of them in another file, and none that takes more memory than its values.

HDF5 can do more than hold arrays. What it reads from other files (external links, external storage, virtual datasets)
would make bytes of any file into weights, so a file is gone through before anything is read, and refused if it has such
a thing anywhere. Chunks and filters declare what they please, so they are looked at before HDF5 gets to them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ...core.arrays import Array
from ..arguments import shown
from .stored import LARGEST_RATIO, MIB, Header, Refused, StoredArray

MOST_LINKS = 100_000
DEEPEST = 256

# Weights are of float32 at least, whatever the file has for them; those of quantized layers are counted for more.
SMALLEST_WEIGHT = 4

# HDF5 holds whole chunks in memory, and a record of each: what datasets may be cut into.
LARGEST_CHUNK = 16 * MIB
MOST_CHUNKS = 65536
BYTES_PER_CHUNK = 4096
# Filters by their numbers in HDF5, in the order in which they pack. Of others the memory is not known, and HDF5 would
# look for plugins.
DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
FILTERS = (SHUFFLE, DEFLATE, FLETCHER32)
CHECKSUM_SIZE = 4
PACKED_MORE = 1024  # what cannot be packed grows a little


def h5py() -> Any:
    """The module, or an ImportError that says how to get it."""
    try:
        import h5py
    except ImportError:
        raise ImportError("files .h5 and .keras need h5py: pip install 'h5py>=3.11'") from None
    return h5py


# ----------------------------------------------------------------------------------------------------------- the survey


class Survey:
    """What there is in a file. Links are looked at before they are followed.

    ValueError if one, or a dataset, refers to another file: then no way through this file leads out of it, by soft
    links neither.

    Attributes
    ----------
    elements : int
        How many numbers all datasets together declare.
    size : int
        How many bytes, as weights at least.
    """

    def __init__(self, root: Any) -> None:
        self.elements = self.size = 0
        self._left = MOST_LINKS
        # A group may have many names, and be inside itself.
        self._seen = {h5py().h5o.get_info(root.id).addr}
        # From the root down to where we are: names, groups, and what is still to be looked at in them.
        self._stack = [("", root["/"].id, self._links(root["/"].id))]
        while self._stack:
            place, group, links = self._stack[-1]
            link = next(links, None)
            if link is None:
                self._stack.pop()
            else:
                self._look_at(place, group, *link)

    def _links(self, group: Any) -> Iterator[tuple[bytes, int, int]]:
        """Name, kind and, of hard ones, address of a group's links."""
        links: list[tuple[bytes, int, int]] = []

        def add(name: bytes, link: Any) -> bool:
            links.append((name, link.type, link.u))
            self._left -= 1
            return self._left < 0

        group.links.iterate(add, info=True, order=h5py().h5.ITER_NATIVE)
        if self._left < 0:
            raise Refused(f"has more than {MOST_LINKS} links")
        return iter(links)

    def _look_at(self, parent: str, group: Any, name: bytes, kind: int, address: int) -> None:
        module, place = h5py(), f"{parent}/{name.decode(errors='replace')}"
        if kind not in (module.h5l.TYPE_SOFT, module.h5l.TYPE_HARD):
            raise Refused(f"has a link {shown(place)} out of the file")
        if kind == module.h5l.TYPE_SOFT or address in self._seen:
            return
        self._seen.add(address)
        item = module.h5o.open(group, name)
        if isinstance(item, module.h5d.DatasetID):
            self._count(item, place)
        elif isinstance(item, module.h5g.GroupID):
            if len(self._stack) == DEEPEST:
                raise Refused(f"has groups in groups in groups, {DEEPEST} deep")
            self._stack.append((place, item, self._links(item)))

    def _count(self, dataset: Any, place: str) -> None:
        module, properties = h5py(), dataset.get_create_plist()
        # Before the shape, for which HDF5 would look into the other files.
        if properties.get_layout() == module.h5d.VIRTUAL:
            raise Refused(f"has a virtual dataset {shown(place)}, made of other files")
        if properties.get_external_count():
            raise Refused(f"has a dataset {shown(place)} whose values are in another file")
        stored, shape = dataset.get_type(), dataset.shape
        if shape is not None and stored.get_class() in _numeric():
            self.elements += prod(shape)
            self.size += prod(shape) * max(stored.get_size(), SMALLEST_WEIGHT)


def _numeric() -> tuple[int, ...]:
    """HDF5's classes of types that real numbers have; truth values are of an enumeration."""
    types = h5py().h5t
    return types.INTEGER, types.FLOAT, types.ENUM


# ------------------------------------------------------------------------------------------------------------- datasets


class Dataset(StoredArray):
    """A dataset in a group."""

    def __init__(self, path: Path, name: str, group: Any, key: str) -> None:
        super().__init__(path, name)
        self._group, self._key = group, key

    def _header(self) -> Header:
        module, dataset = h5py(), self._group[self._key]
        if not isinstance(dataset, module.Dataset) or dataset.shape is None:
            raise Refused(f"is damaged: {self.name!r} is not an array")
        if dataset.id.get_type().get_class() not in _numeric() or module.check_enum_dtype(dataset.dtype) is not None:
            raise Refused(f"holds {self.name} as something else than real numbers")
        return dataset.shape, dataset.dtype

    def _values(self) -> Array:
        dataset = self._group[self._key]
        if dataset.chunks is not None:
            self._check_chunks(dataset)
        return np.asarray(dataset[()])

    def _check_chunks(self, dataset: Any) -> None:
        """Raise ValueError if reading a dataset would take much more memory or time than its values."""
        itemsize = dataset.id.get_type().get_size()
        size, chunk = dataset.size * itemsize, prod(dataset.chunks) * itemsize
        count = prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        if chunk > max(LARGEST_CHUNK, size) or chunk * count > max(LARGEST_CHUNK, LARGEST_RATIO * size):
            raise Refused(f"holds {self.name} of {size} bytes in chunks of {chunk} bytes each, too large for it")
        if count > max(MOST_CHUNKS, size // BYTES_PER_CHUNK):
            raise Refused(f"holds {self.name} of {size} bytes in {count} chunks, too many")
        properties = dataset.id.get_create_plist()
        filters = [properties.get_filter(number)[0] for number in range(properties.get_nfilters())]
        if filters != [known for known in FILTERS if known in filters]:
            raise Refused(
                f"holds {self.name} packed by the HDF5 filters {filters}: only shuffle, gzip and fletcher32 are read, "
                "in this order (h5repack -f NONE unpacks a file)"
            )
        seen: set[tuple[int, ...]] = set()

        def check(stored: Any) -> None:
            if stored.chunk_offset in seen or len(seen) == count:
                raise Refused(f"is damaged: {self.name} has more chunks than there is room for")
            seen.add(stored.chunk_offset)
            self._check_chunk(dataset, filters, stored, chunk)

        dataset.id.chunk_iter(check)

    def _check_chunk(self, dataset: Any, filters: list[int], stored: Any, chunk: int) -> None:
        """Raise ValueError if a chunk is of another size than declared: HDF5 unpacks whatever there is,
        and reads on behind its end.
        """
        applied = [number for place, number in enumerate(filters) if not stored.filter_mask & 1 << place]
        size = stored.size - (CHECKSUM_SIZE if FLETCHER32 in applied else 0)
        if DEFLATE in applied and size <= 2 * chunk + PACKED_MORE:
            _, packed = dataset.id.read_direct_chunk(stored.chunk_offset)
            size = len(zlib.decompressobj().decompress(packed, chunk + 1))
        if size != chunk:
            raise Refused(f"is damaged: {self.name} has a chunk of another size than {chunk} bytes")
