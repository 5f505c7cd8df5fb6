"""What this process may use of the machine: the sizes of its caches, and how many threads,
by the user's word and the container's quota.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from . import _core


class Caches(NamedTuple):
    """Bytes of the first-level data cache and of the second-level cache of a core, and of the last level."""

    first: int
    second: int
    last: int


# Where the system does not tell: what nearly every processor of the last ten years has at least.
SMALLEST = Caches(32 * 2**10, 256 * 2**10, 2 * 2**20)

caches = Caches(*[found or smallest for found, smallest in zip(_core.cache_sizes(), SMALLEST, strict=True)])


# --------------------------------------------------------------------------------------------------------------- quotas


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Processors that Linux grants this process's control group and those around it at most; None: as many as there
    are.

    Reads ``cpu.max`` (version 2) and ``cpu.cfs_quota_us`` (version 1) along the way up from the group that
    ``/proc/self/cgroup`` names.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    quotas: list[float] = []
    for line in groups:
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            found = [_quota_of_max(folder) for folder in _folders(root, mounts, group, "cgroup2", None)]
        elif "cpu" in controllers.split(","):
            found = [_quota_of_cfs(folder) for folder in _folders(root, mounts, group, "cgroup", "cpu")]
        else:
            continue
        quotas += [quota for quota in found if quota is not None]
    return min(quotas, default=None)


def _folders(root: Path, mounts: list[str], group: str, kind: str, controller: str | None) -> Iterator[Path]:
    """The folders of a control group and of those around it, as far as they can be seen from here."""
    for line in mounts:
        place, _, system = line.partition(" - ")
        places, systems = place.split(" "), system.split(" ")
        if len(places) < 5 or len(systems) < 3 or systems[0] != kind:
            continue
        if controller is not None and controller not in systems[2].split(","):
            continue
        mounted, top = places[3], root / places[4].lstrip("/")
        # A container may be told of its group by a path that it does not see; then what it sees is its own.
        inside = group.removeprefix(mounted.rstrip("/")) if group.startswith(mounted) else ""
        folder = top / inside.strip("/") if ".." not in inside.split("/") else top
        yield from (folder, *[parent for parent in folder.parents if parent.is_relative_to(top)])


def _quota_of_max(folder: Path) -> float | None:
    """The processors that a version 2 group's ``cpu.max``, 'QUOTA PERIOD' or 'max PERIOD', grants."""
    quota, *period = _numbers(folder / "cpu.max", 2)
    return quota / period[0] if quota and period and period[0] else None


def _quota_of_cfs(folder: Path) -> float | None:
    """The processors that a version 1 group's files grant."""
    quota, period = _numbers(folder / "cpu.cfs_quota_us", 1)[0], _numbers(folder / "cpu.cfs_period_us", 1)[0]
    return quota / period if quota and period else None


def _numbers(path: Path, count: int) -> list[int | None]:
    """The numbers in a file; None for any that is missing or none above 0."""
    try:
        words = path.read_text().split()[:count]
    except (OSError, UnicodeDecodeError):
        words = []
    found = [int(word) if word.isdecimal() and len(word) < 19 else 0 for word in words]
    return [number or None for number in found] + [None] * (count - len(words))


# -------------------------------------------------------------------------------------------------------------- threads


def _threads_of_environment() -> int:
    """LOCALCONV_NUM_THREADS; 0: it is not there, -1: it is none that can be, which the first call will say."""
    if "LOCALCONV_NUM_THREADS" not in os.environ:
        return 0
    digits = os.environ["LOCALCONV_NUM_THREADS"].strip().lstrip("0")
    # Short enough for int(), which refuses thousands of digits.
    return int(digits) if digits.isdecimal() and len(digits) <= 10 and 1 <= int(digits) < 2**31 else -1


_core.set_thread_limits(_threads_of_environment(), max(1, int(quota)) if (quota := cpu_quota()) else 0)
