"""Members of zip archives (.npz, .keras), as far as they may be trusted."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from typing import BinaryIO

from .stored import MIB, Refused, limit_of

SIGNATURE = b"PK\x03\x04"

# Of the header in front of a member: its size without name and extra field, whose sizes are its last four bytes.
LOCAL_HEADER = 30


class Window(io.RawIOBase):
    """A part of a binary file as a file of its own, for reading.

    Parameters
    ----------
    file : binary file
        Which nobody else reads meanwhile.
    start, size : int
        The first byte of the part, and how many there are.
    """

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._place = file, start, size, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the place in the part."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill the buffer, as far as the part goes.

        EOFError if the file ends before the part does: h5py takes any count for enough.
        """
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), max(0, self._size - self._place))
        self._file.seek(self._start + self._place)
        done = 0
        while done < wanted:
            count = self._file.readinto(view[done:wanted])  # type: ignore[attr-defined]
            if not count:
                raise EOFError(f"the file ends {wanted - done} bytes too soon")
            done += count
        self._place += done
        return done


def member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """A member that can be read within limits: neither encrypted nor packed by anything that unpacks without bounds."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise Refused(f"is an archive without {name}") from None
    if info.flag_bits & 1:
        raise Refused(f"holds {name} encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused(f"holds {name} packed by method {info.compress_type}, only stored and deflated members are read")
    return info


def unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> io.BytesIO:
    """A member in memory, of at most so many bytes; its checksum is right."""
    if info.file_size > limit:
        raise Refused(
            f"holds {info.filename} of {info.file_size} bytes in {info.compress_size}, at most {limit} are read"
        )
    content = io.BytesIO()
    # In blocks: at once, the library would unpack all that there is and then cut off what is more than declared.
    with archive.open(info) as stream:
        while block := stream.read(MIB):
            content.write(block)
    content.seek(0)
    return content


def seekable_member(archive: zipfile.ZipFile, file: BinaryIO, name: str) -> Window | io.BytesIO:
    """A member as a file: in its place in the archive's own file, or unpacked in memory if it is deflated.

    Its checksum is right.
    """
    info = member(archive, name)
    if info.compress_type == zipfile.ZIP_DEFLATED:
        return unpacked(archive, info, limit_of(info.compress_size))
    with archive.open(info) as stream:
        while stream.read(MIB):  # compares the checksum at the end
            pass
    file.seek(info.header_offset)
    name_size, extra_size = struct.unpack("<HH", file.read(LOCAL_HEADER)[-4:])
    return Window(file, info.header_offset + LOCAL_HEADER + name_size + extra_size, info.file_size)
