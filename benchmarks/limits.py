"""The machine's own limits, measured by a small C probe that is compiled when it is needed."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from statistics import median

SOURCE = Path(__file__).with_name("roofline.c")
BUFFER_BYTES = 512 << 20  # far larger than a last-level cache


class ProbeUnavailable(Exception):
    """The probe cannot be built or started; the message says why in one line."""


class Probe:
    """Read bandwidth and multiply-add peak of this machine, on a fixed number of threads.

    Parameters
    ----------
    threads : int
        Threads that read, or multiply and add, at the same time; the attribute may be set between measurements.
    seconds : float
        How long one measurement takes.
    isa : str or None
        'avx2': nothing wider is used.
    """

    def __init__(self, threads: int, seconds: float, isa: str | None = None):
        self._library = _compile()
        if isa and self._library.probe_limit(isa.encode()) != 0:
            raise ProbeUnavailable(f"it has no {isa} here")
        self.threads = threads
        self._seconds = seconds
        self.isa = self._library.probe_isa().decode()
        self.seen: dict[str, list[float]] = {"bandwidth": [], "peak": []}
        if self._library.probe_open(BUFFER_BYTES) != 0:
            raise ProbeUnavailable(f"no memory for a buffer of {BUFFER_BYTES >> 20} MiB")
        if min(self.bandwidth(), self.peak()) <= 0:
            raise ProbeUnavailable(f"cannot measure on {threads} threads")

    def bandwidth(self) -> float:
        """Bytes read from memory a second."""
        self.seen["bandwidth"].append(self.bandwidth_of(BUFFER_BYTES))
        return self.seen["bandwidth"][-1]

    def bandwidth_of(self, nbytes: int) -> float:
        """Bytes read a second where so many are read again and again: a cache's bandwidth if they lie in one."""
        return self._library.probe_read(self.threads, self._seconds, nbytes)

    def peak(self) -> float:
        """Float32 operations a second; a multiply-add is two."""
        self.seen["peak"].append(self._library.probe_peak(self.threads, self._seconds))
        return self.seen["peak"][-1]

    def spread(self) -> list[str]:
        """Describe everything measured so far; a wide spread means that others were at work on the machine."""
        units = {"bandwidth": "GB/s read", "peak": f"GFLOP/s multiply-add ({self.isa})"}
        return [
            f"{median(values) / 1e9:.3g} {units[kind]}, from {min(values) / 1e9:.3g} to {max(values) / 1e9:.3g}"
            for kind, values in self.seen.items()
        ]

    def close(self) -> None:
        """Give the buffer back."""
        self._library.probe_close()


def _compiler() -> list[str]:
    """Return the command of the C compiler: $CC, or what POSIX calls it, or the two usual names."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    raise ProbeUnavailable("no C compiler found (cc, gcc, clang, or $CC)")


def _compile() -> ctypes.CDLL:
    """Build the probe as a shared library in a directory that is gone once it is loaded."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        target = Path(directory) / "roofline.so"
        command = [*_compiler(), "-std=c11", "-O3", "-shared", "-fPIC", "-pthread", str(SOURCE), "-o", str(target)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
            library = ctypes.CDLL(str(target))
        except subprocess.CalledProcessError as error:
            complaint = (error.stderr.strip().splitlines() or ["no message"])[0]
            raise ProbeUnavailable(f"{command[0]} cannot compile {SOURCE.name}: {complaint}") from error
        except OSError as error:
            raise ProbeUnavailable(f"cannot run the compiler or load its result: {error}") from error
    library.probe_isa.restype = ctypes.c_char_p
    library.probe_open.argtypes = [ctypes.c_longlong]
    library.probe_close.restype = None
    library.probe_limit.argtypes = [ctypes.c_char_p]
    library.probe_read.argtypes = [ctypes.c_int, ctypes.c_double, ctypes.c_longlong]
    library.probe_peak.argtypes = [ctypes.c_int, ctypes.c_double]
    library.probe_read.restype = library.probe_peak.restype = ctypes.c_double
    return library
