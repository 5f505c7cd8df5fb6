"""Strings of variable length in attributes of HDF5 files, read from the bytes of the file.

Keras stores names and configs as such strings. HDF5 (up to 2.0 at least) cannot read them from a file that may be
anybody's: it takes the memory that a reference declares, up to 4 GiB, before it looks whether the string is that long;
a list may refer to one long string a thousand times; and some damage to the heap that the strings are in makes it run
for ever. Here all lengths are added up before a string is read, and no byte of the file is gone through twice.

The names of fields are those of the HDF5 File Format Specification 3.0: III.E (global heap), IV.A.1 (object headers),
IV.A.2.m (attribute message), IV.A.2.q (continuation message).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from .stored import Refused, Source

ATTRIBUTE, CONTINUATION = 0x0C, 0x10

# Flags of object headers of version 2, and of messages.
CREATION_ORDER, PHASE_CHANGE, TIMES = 0x04, 0x10, 0x20
SHARED = 0x02

# Length, address of the collection, number of the string in it.
REFERENCE = struct.Struct("<IQI")
COLLECTION_HEADER = struct.Struct("<4sB3xQ")
STRING_HEADER = struct.Struct("<H6xQ")


class Strings:
    """The strings that attributes of an HDF5 file refer to.

    Parameters
    ----------
    content : binary file
        Whose addresses and sizes are of 8 bytes.
    base : int
        Where in it address 0 is.
    """

    def __init__(self, content: Source, base: int) -> None:
        self._content, self._base = content, base
        self._left = content.seek(0, 2)
        self._collections: dict[int, tuple[bytes, dict[int, slice]]] = {}
        self._attributes: dict[int, dict[bytes, bytes]] = {}

    def of(self, address: int, attribute: str, count: int, take: Callable[[int], None]) -> list[str]:
        """The `count` strings of an attribute.

        Parameters
        ----------
        address : int
            Of the header of the object that has the attribute.
        attribute : str
        count : int
        take : callable
            Gets the length of all strings together before the first is read, and raises if that is too much.
        """
        if address not in self._attributes:
            self._attributes[address] = dict(self._attributes_of(address))
        data = self._attributes[address].get(attribute.encode())
        if data is None:
            raise Refused(
                f"keeps its attribute {attribute}, of strings of variable length, not in an object's header: that is "
                "not read"
            )
        if len(data) < count * REFERENCE.size:
            raise Refused(f"is damaged: its attribute {attribute} is too short")
        references = list(REFERENCE.iter_unpack(data[: count * REFERENCE.size]))
        take(sum(length for length, _, _ in references))
        return [
            self._string(*reference).partition(b"\0")[0].decode() if reference[0] else "" for reference in references
        ]

    def _string(self, length: int, address: int, number: int) -> bytes:
        if address not in self._collections:
            self._collections[address] = self._collection(address)
        block, places = self._collections[address]
        text = block[places[number]] if number in places else b""
        if len(text) < length:
            raise Refused("is damaged: it refers to a text that it does not hold")
        return text[:length]

    def _collection(self, address: int) -> tuple[bytes, dict[int, slice]]:
        """A collection of the global heap, and where in it its strings are."""
        signature, version, size = COLLECTION_HEADER.unpack(self._read(address, COLLECTION_HEADER.size))
        if signature != b"GCOL" or version != 1:
            raise Refused("is damaged: it has no texts where it refers to some")
        block = self._read(address, size)
        places, place = {}, COLLECTION_HEADER.size
        while place + STRING_HEADER.size <= size:
            number, length = STRING_HEADER.unpack_from(block, place)
            if number:
                places[number] = slice(place + STRING_HEADER.size, place + STRING_HEADER.size + length)
                place += STRING_HEADER.size + -(-length // 8) * 8
            else:  # free space, whose size is that of all of it
                place += max(STRING_HEADER.size, length)
        return block, places

    def _attributes_of(self, address: int) -> Iterator[tuple[bytes, bytes]]:
        """Names and data of the attributes of the object with a header at this address, as far as they are in it."""
        for kind, flags, body in self._messages(address):
            if kind == ATTRIBUTE and not flags & SHARED:
                version, *sizes = struct.unpack_from("<Bx3H", body)
                unit = 8 if version == 1 else 1
                start = place = 9 if version == 3 else 8  # a byte for the encoding of the name
                for size in sizes:  # of name, datatype, dataspace
                    place += -(-size // unit) * unit
                yield body[start : start + sizes[0]].partition(b"\0")[0], body[place:]

    def _messages(self, address: int) -> Iterator[tuple[int, int, bytes]]:
        """Type, flags and body of the messages in an object's header and in the blocks that continue it."""
        new = self._read(address, 4) == b"OHDR"
        flags, start, size = self._new_header(address) if new else self._old_header(address)
        header = struct.Struct("<BHBxx" if flags & CREATION_ORDER else "<BHB") if new else struct.Struct("<HHB3x")
        blocks = [(start, size)]
        for start, size in blocks:
            block, place = self._read(start, size), 0
            while place + header.size <= size:
                kind, length, message_flags = header.unpack_from(block, place)
                place += header.size
                body = block[place : place + length]
                place += length
                if kind == CONTINUATION:
                    more, extent = struct.unpack_from("<QQ", body)
                    # The newer ones have a signature in front and a checksum behind.
                    blocks.append((more + 4, extent - 8) if new else (more, extent))
                yield kind, message_flags, body

    def _old_header(self, address: int) -> tuple[int, int, int]:
        """Flags, and start and size of the messages."""
        (version, size) = struct.unpack("<B7xI4x", self._read(address, 16))
        if version != 1:
            raise Refused("is damaged: it has no object where it refers to one")
        return 0, address + 16, size

    def _new_header(self, address: int) -> tuple[int, int, int]:
        flags = self._read(address + 5, 1)[0]
        start = address + 6 + (16 if flags & TIMES else 0) + (4 if flags & PHASE_CHANGE else 0)
        width = 1 << (flags & 3)
        return flags, start + width, int.from_bytes(self._read(start, width), "little")

    def _read(self, address: int, size: int) -> bytes:
        """Bytes of the file; nothing behind its end, and of all calls together not more than there are in it,
        small ones aside.
        """
        if size > COLLECTION_HEADER.size:
            self._left -= size
        if size < 0 or self._left < 0:
            raise Refused("is damaged: parts of it overlap")
        self._content.seek(self._base + address)
        content = self._content.read(size) or b""
        if len(content) < size:
            raise Refused("is damaged: it refers to what is behind its end")
        return content
