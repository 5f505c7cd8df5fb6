"""Pack an sdist anew so that equal files make equal archives: ``python tools/pack_sdist.py SDIST``.

An archive has every file's time, owner and rights, and gzip the time of the packing: two clones of one commit differ in
all of these. Here times are SOURCE_DATE_EPOCH, owners are numbers 0, and members in the order of their names.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import tarfile
from pathlib import Path


def pack(archive: Path, epoch: int) -> None:
    """Replace an archive by one of the same members."""
    packed = io.BytesIO()
    with tarfile.open(archive) as old, tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            plain = tarfile.TarInfo(member.name)
            plain.type, plain.size, plain.mtime = member.type, member.size, epoch
            plain.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(plain, old.extractfile(member) if member.isfile() else None)
    archive.write_bytes(gzip.compress(packed.getvalue(), mtime=epoch))


def main() -> None:
    """Pack one archive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sdist", type=Path)
    pack(parser.parse_args().sdist, int(os.environ["SOURCE_DATE_EPOCH"]))


if __name__ == "__main__":
    main()
