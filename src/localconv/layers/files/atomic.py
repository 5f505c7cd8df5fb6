"""Files that are written whole or not at all.

What is written goes to a new file beside the target, whose name nobody can foresee, and which is renamed once all of it
is on the disk. So

- whoever opens the target finds the old file or the new one, never a part of one, whatever happens meanwhile: an
  exception, a full disk, the end of the process or of the system, another thread or process that saves to the same name
  (the last one to finish wins);
- after an exception no temporary file is left behind. Only what ends the process at once can leave a ``.*.partial``,
  and a signal handler that raises while the file is removed after the exception of another;
- an error until the new file has the name leaves the old one. After that there are only an error of writing the
  directory to the disk, and exceptions from signal handlers: the new one is then in place, whole;
- where there are no hard links, without `overwrite`, a signal handler that raises just when the name has been taken may
  leave an empty file of it: whether that is this process's own is not known then;
- a symbolic link stays one, and what it points to is replaced; other hard links of the old file keep the old content;
- the new file has the permissions of the one it replaces, or, if there was none, those that the process gives to new
  files;
- without `overwrite` exactly one of several processes that save to one new name gets it.

The directory is written to the disk too where systems have that: not on Windows, and not where it cannot be opened for
reading.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import secrets
import stat
from collections.abc import Callable
from os import PathLike
from typing import BinaryIO

POSIX = os.name == "posix"

# What link() says on file systems without hard links; which of these depends on the system.
NO_HARD_LINKS = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
# What fsync() says where there is no such thing, of directories above all.
NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def write_whole(filepath: str | PathLike[str], write: Callable[[BinaryIO], object], overwrite: bool = True) -> None:
    """Make a file that has all that a function writes, or none.

    Parameters
    ----------
    filepath : path
    write : callable
        Called with a binary file. (Not the body of a with statement: an exception from a signal handler could come
        between the file's creation and the statement that it is removed by.)
    overwrite : bool, optional
        Whether a file of that name may be replaced.

    Raises
    ------
    ValueError
        If `filepath` is there and is no regular file.
    TypeError
        If `overwrite` is no bool.
    FileExistsError
        Without `overwrite`, if the name is taken, be it by a symbolic link to nowhere: at once, or at the end if it was
        taken meanwhile.
    OSError
        If the file cannot be written.
    """
    if type(overwrite) is not bool:
        raise TypeError(f"overwrite must be True or False, got {overwrite!r}")
    if not overwrite and os.path.lexists(filepath):
        raise _taken(filepath)
    target = os.path.realpath(filepath)
    folder = os.path.dirname(target)
    partial = os.path.join(folder, f".{secrets.token_hex(16)}.partial")
    if os.path.lexists(partial):  # not ours to remove
        raise FileExistsError(errno.EEXIST, "a temporary file of this name is there", partial)
    # Twice, so that what interrupts the inner removal finds the outer one.
    try:
        try:
            _write(partial, _mode_of(target), write)
            if overwrite:
                os.replace(partial, target)
            else:
                _rename_to_new(partial, target)
        finally:
            _remove(partial)
    except OSError as error:
        if error.filename not in (partial, target):
            raise
        # The caller knows neither name.
        raise OSError(error.errno, error.strerror, os.fspath(filepath)) from None
    finally:
        _remove(partial)
    if POSIX:
        _sync_directory(folder)


def _write(partial: str, mode: int | None, write: Callable[[BinaryIO], object]) -> None:
    """Write a new file, down to the disk, with these permissions or those of new files."""
    # Nobody else may read what replaces a private file, not even before it has that file's permissions.
    permissions = 0o666 if mode is None else 0o600
    # All in C, so that no exception comes between the descriptor and the file that closes it.
    with open(partial, "xb", opener=functools.partial(os.open, mode=permissions)) as file:
        write(file)
        file.flush()
        if POSIX and mode is not None and mode != stat.S_IMODE(os.fstat(file.fileno()).st_mode):
            os.fchmod(file.fileno(), mode)
        _sync(file.fileno())


def _remove(partial: str) -> None:
    """Remove what has not been renamed."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(partial)


def _taken(filepath: str | PathLike[str]) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "filepath exists, and overwrite is False", os.fspath(filepath))


def _mode_of(target: str) -> int | None:
    """The permissions of a file, None if there is none. ValueError if it is no regular file."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        raise ValueError(f"filepath must be a file or a new name, it is a directory or a device: {target!r}")
    return stat.S_IMODE(mode)


def _rename_to_new(partial: str, target: str) -> None:
    """Rename, unless the name is taken: both in one step of the system's."""
    try:
        if not POSIX:
            os.rename(partial, target)  # Windows never replaces a file by it
            return
        try:
            os.link(partial, target)
            return
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
        # The name is taken by an empty file first, which only one process can do.
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        raise _taken(target) from None
    try:
        os.close(descriptor)
        os.replace(partial, target)
    except BaseException:
        if os.path.lexists(partial):  # and the target is the empty file still
            os.unlink(target)
        raise


def _sync_directory(folder: str) -> None:
    """Write the new name to the disk."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # names may be changed in it, but not read
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    """Write to the disk, where the file system can do that."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
