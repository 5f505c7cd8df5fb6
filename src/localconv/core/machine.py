"""What this process may use of the machine: caches, and threads by the user's word and the container's quota."""

from __future__ import annotations

import operator
import os
import platform
import sys
from collections.abc import Iterator
from typing import NamedTuple, TextIO

import numpy as np

from .._core import available_isas, cache_sizes, num_threads, openmp_version, set_thread_limits, use_threads
from ..version import __version__
from .settings import current, get_isa


class Caches(NamedTuple):
    """Bytes of the first-level data cache and of the second-level cache of a core, and of the last level."""

    first: int
    second: int
    last: int


# Where the system does not tell: what nearly every processor of the last ten years has at least.
SMALLEST = Caches(32 * 2**10, 256 * 2**10, 2 * 2**20)

caches = Caches(*[size or smallest for size, smallest in zip(cache_sizes(), SMALLEST, strict=True)])


# --------------------------------------------------------------------------------------------------------------- quotas


def cpu_quota(root: str = "/") -> float | None:
    """Processors that Linux grants this process's control group and those around it at most; None: as many as there
    are.

    Reads ``cpu.max`` (version 2) and ``cpu.cfs_quota_us`` (version 1) along the way up from the group that
    ``/proc/self/cgroup`` names.
    """
    try:
        groups = _text(os.path.join(root, "proc/self/cgroup")).splitlines()
        mounts = _text(os.path.join(root, "proc/self/mountinfo")).splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    quotas: list[float] = []
    for line in groups:
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            limits = [_quota_of_max(folder) for folder in _folders(root, mounts, group, "cgroup2", None)]
        elif "cpu" in controllers.split(","):
            limits = [_quota_of_cfs(folder) for folder in _folders(root, mounts, group, "cgroup", "cpu")]
        else:
            continue
        quotas += [quota for quota in limits if quota is not None]
    return min(quotas, default=None)


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _folders(root: str, mounts: list[str], group: str, kind: str, controller: str | None) -> Iterator[str]:
    """The folders of a control group and of those around it, as far as they can be seen from here."""
    for line in mounts:
        place, _, system = line.partition(" - ")
        places, systems = place.split(" "), system.split(" ")
        if len(places) < 5 or len(systems) < 3 or systems[0] != kind:
            continue
        if controller is not None and controller not in systems[2].split(","):
            continue
        mounted, top = places[3], os.path.join(root, places[4].lstrip("/"))
        # A container may be told of its group by a path that it does not see; then what it sees is its own.
        inside = group.removeprefix(mounted.rstrip("/")) if group.startswith(mounted) else ""
        steps = [step for step in inside.split("/") if step]
        if ".." in steps:
            steps = []
        yield from (os.path.join(top, *steps[:depth]) for depth in range(len(steps), -1, -1))


def _quota_of_max(folder: str) -> float | None:
    """The processors that a version 2 group's ``cpu.max``, 'QUOTA PERIOD' or 'max PERIOD', grants."""
    quota, *period = _numbers(os.path.join(folder, "cpu.max"), 2)
    return quota / period[0] if quota and period and period[0] else None


def _quota_of_cfs(folder: str) -> float | None:
    """The processors that a version 1 group's files grant."""
    quota, period = (
        _numbers(os.path.join(folder, "cpu.cfs_quota_us"), 1)[0],
        _numbers(os.path.join(folder, "cpu.cfs_period_us"), 1)[0],
    )
    return quota / period if quota and period else None


def _numbers(path: str, count: int) -> list[int | None]:
    """The numbers in a file; None for any that is missing or none above 0."""
    try:
        words = _text(path).split()[:count]
    except (OSError, UnicodeDecodeError):
        words = []
    numbers = [int(word) if word.isdecimal() and len(word) < 19 else 0 for word in words]
    return [number or None for number in numbers] + [None] * (count - len(words))


# -------------------------------------------------------------------------------------------------------------- threads


def set_num_threads(n: int | None) -> None:
    """Set how many threads a call may use.

    Parameters
    ----------
    n : int or None
        At least 1. None goes back to the environment: ``LOCALCONV_NUM_THREADS`` as it was at import, else what OpenMP
        says, which honours ``OMP_NUM_THREADS`` and threadpoolctl. A call never uses more threads than the processors
        this process may run on, and small work stays on one.

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is less than 1.

    Examples
    --------
    >>> import localconv
    >>> localconv.set_num_threads(1)
    >>> localconv.get_num_threads()
    1
    >>> localconv.set_num_threads(None)
    """
    if n is None:
        use_threads(0)
        return
    if isinstance(n, bool):
        raise TypeError("n must be an integer or None, got a bool")
    try:
        n = operator.index(n)
    except TypeError:
        raise TypeError(f"n must be an integer or None, got {type(n).__name__}") from None
    if not 1 <= n < 2**31:
        raise ValueError(f"n must be at least 1 and less than 2**31, got {n}")
    use_threads(n)


def get_num_threads() -> int:
    """Return how many threads a large call would use now.

    Returns
    -------
    int
    """
    return num_threads()


def show_config(file: TextIO | None = None) -> None:
    """Print the versions, the instruction sets, OpenMP and threads of this installation.

    Parameters
    ----------
    file : text file, optional
        Where to print; ``sys.stdout`` by default.
    """
    openmp = openmp_version()
    rows = {
        "localconv": __version__,
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": f"{platform.system()} {platform.machine()}",
        "NumPy": np.__version__,
        "instruction set": get_isa(),
        "available here": ", ".join(available_isas()),
        "Winograd": "allowed" if current().winograd else "off",
        "OpenMP": str(openmp) if openmp else "none: built without it, every call runs on one thread",
        "threads": str(get_num_threads()),
        "caches": ", ".join(f"{size // 1024} KiB" for size in caches) + " (L1, L2, last level)",
    }
    for name, value in rows.items():
        print(f"{name:16} {value}", file=file or sys.stdout)


def _threads_of_environment() -> int:
    """LOCALCONV_NUM_THREADS; 0: it is not there, -1: it is invalid; reported by the first call."""
    if "LOCALCONV_NUM_THREADS" not in os.environ:
        return 0
    digits = os.environ["LOCALCONV_NUM_THREADS"].strip().lstrip("0")
    # Short enough for int(), which refuses thousands of digits.
    return int(digits) if digits.isdecimal() and len(digits) <= 10 and 1 <= int(digits) < 2**31 else -1


set_thread_limits(_threads_of_environment(), max(1, int(quota)) if (quota := cpu_quota()) else 0)
