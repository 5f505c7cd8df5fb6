"""What the machine grants: quotas of control groups, read from a tree like that of /proc and /sys/fs/cgroup; caches."""

from pathlib import Path

import pytest

from localconv import _core
from localconv.core import machine

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")

MOUNT_2 = "31 23 0:28 {root} /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
MOUNT_1 = "33 31 0:30 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"


@pytest.fixture
def tree(tmp_path):
    """Writes files under a root of their own, and returns the quota that they grant."""

    def quota(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return machine.cpu_quota(tmp_path)

    return quota


def version_2(group, mounted="/", **groups):
    files = {"proc/self/cgroup": f"0::{group}\n", "proc/self/mountinfo": MOUNT_2.format(root=mounted)}
    return files | {f"sys/fs/cgroup/{name}/cpu.max": text for name, text in groups.items()}


def version_1(group, mounted="/", **groups):
    files = {
        "proc/self/cgroup": f"5:memory:/elsewhere\n4:cpu,cpuacct:{group}\n",
        "proc/self/mountinfo": MOUNT_1.format(root=mounted),
    }
    for name, (quota, period) in groups.items():
        files[f"sys/fs/cgroup/cpu,cpuacct/{name}/cpu.cfs_quota_us"] = f"{quota}\n"
        files[f"sys/fs/cgroup/cpu,cpuacct/{name}/cpu.cfs_period_us"] = f"{period}\n"
    return files


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("150000 100000\n", 1.5),
        ("400000 100000", 4),
        ("50000 100000", 0.5),
        ("max 100000\n", None),
        ("max", None),
        ("", None),
        ("0 100000", None),
        ("100000 0", None),
        ("-1 100000", None),
        ("many few", None),
        ("1" * 5000 + " 1", None),
    ],
)
def test_version_2(tree, text, expected):
    assert tree(version_2("/", **{"": text})) == expected


def test_the_narrowest_group_counts(tree):
    """The process's own, one of those around it, or the root of what is mounted."""
    assert tree(version_2("/a/b", **{"a/b": "300000 100000", "a": "200000 100000"})) == 2
    assert tree(version_2("/a/b", **{"a/b": "100000 100000"})) == 1
    assert tree(version_2("/a/b", **{"": "50000 100000"})) == 0.5
    assert tree(version_2("/c", c="max 100000")) == 0.5


@pytest.mark.parametrize(
    ("mounted", "group"), [("/docker/x", "/docker/x/y"), ("/", "/y"), ("/docker/x", "/docker/x/y/")]
)
def test_what_is_mounted_is_a_part(tree, mounted, group):
    """As in a container: the group's path begins above what can be seen."""
    assert tree(version_2(group, mounted, y="200000 100000")) == 2


@pytest.mark.parametrize("group", ["/../..", "/somewhere/else", "/docker/xy"])
def test_a_path_that_cannot_be_seen(tree, group):
    """What can be seen is the container's own."""
    assert tree(version_2(group, "/docker/x", **{"": "200000 100000"})) == 2


@pytest.mark.parametrize(
    ("quota", "period", "expected"), [(250_000, 100_000, 2.5), (-1, 100_000, None), (100_000, "", None)]
)
def test_version_1(tree, quota, period, expected):
    assert tree(version_1("/pod/one", **{"pod/one": (quota, period)})) == expected


def test_both_versions(tree):
    """A hybrid machine: the memory by one, the processors by the other."""
    files = version_1("/p", p=(300_000, 100_000)) | version_2("/q", q="200000 100000")
    files["proc/self/cgroup"] = "4:cpu,cpuacct:/p\n0::/q\n"
    files["proc/self/mountinfo"] = MOUNT_1.format(root="/") + MOUNT_2.format(root="/")
    assert tree(files) == 2


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/\n"},
        {"proc/self/cgroup": "nonsense", "proc/self/mountinfo": "more\n1 2 3 - \n - cgroup2 c rw\n"},
        {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"},
    ],
)
def test_nothing_to_read(tree, files):
    assert tree(files) is None


@pytest.mark.skipif(not CACHES.is_dir(), reason="this system does not describe its caches in files")
def test_cache_sizes():
    """Of the first level that for data; of the last level, the largest one."""
    sizes = {}
    for cache in CACHES.glob("index*"):
        kind, level, size = ((cache / name).read_text().strip() for name in ("type", "level", "size"))
        if kind != "Instruction":
            sizes[int(level)] = int(size[:-1]) * {"K": 2**10, "M": 2**20}[size[-1]]
    last = max((size for level, size in sizes.items() if level > 1), default=0)
    assert _core.cache_sizes() == (sizes.get(1, 0), sizes.get(2, 0), last)


LIMITED = """
from localconv import _core
from localconv.core import machine
import localconv
_core.set_thread_limits(0, {quota})
print(localconv.get_num_threads())
localconv.set_num_threads(1000)
print(localconv.get_num_threads())
"""


def test_a_quota_limits_every_wish(python):
    """The user's too: more threads than the container grants would only be throttled."""
    assert python(LIMITED.format(quota=1)).split() == ["1", "1"]
    without = python(LIMITED.format(quota=0)).split()
    assert python(LIMITED.format(quota=10_000)).split() == without
