"""A progress bar in one line of text."""

from __future__ import annotations

import sys
import time
from typing import TextIO

WIDTH = 30
# Seconds of silence: short work shows no bar by itself, and a bar is not drawn more often than this.
PATIENCE = 1.0
INTERVAL = 0.1

# What `verbose` means: whether the bar may appear, how many seconds late, and whether only its last line is printed.
VERBOSE = ("auto", 0, 1, 2)


class ProgressBar:
    """Prints ``12/40 [=====>......] 3 s left``, on one line that is overwritten.

    Parameters
    ----------
    total : int
        Steps.
    verbose : {'auto', 0, 1, 2}, optional
        'auto': on a terminal, once the work has taken a second. 0: never. 1: always. 2: one line at the end.
    file : text file, optional
        Default: ``sys.stderr``.

    Raises
    ------
    ValueError
        For another `verbose`.
    """

    def __init__(self, total: int, verbose: str | int = "auto", file: TextIO | None = None) -> None:
        if verbose not in VERBOSE:
            raise ValueError(f"verbose must be one of {VERBOSE}, got {verbose!r}")
        self.total, self.verbose, self.file = total, int(verbose) if verbose != "auto" else verbose, file or sys.stderr
        self.start = time.monotonic()
        self._drawn = 0.0

    def update(self, done: int, note: str = "") -> None:
        """Say that so many steps are done; `note` is printed behind the bar."""
        now = time.monotonic()
        last = done >= self.total
        if not self._wanted(now, last) or (not last and now - self._drawn < INTERVAL):
            return
        self._drawn = now
        print(
            f"{'' if self.verbose == 2 else chr(13)}{self._line(done, now - self.start, note)}",
            end="\n" if last else "",
            file=self.file,
            flush=True,
        )

    def _wanted(self, now: float, last: bool) -> bool:
        if self.verbose == "auto":
            return self.file.isatty() and (now - self.start > PATIENCE or self._drawn > 0)
        return self.verbose == 1 or (self.verbose == 2 and last)

    def _line(self, done: int, seconds: float, note: str) -> str:
        filled = WIDTH * done // max(1, self.total)
        bar = "=" * filled + (">" + "." * (WIDTH - filled - 1) if filled < WIDTH else "")
        clock = (
            f"{seconds / max(1, done) * (self.total - done):.0f} s left" if done < self.total else f"{seconds:.1f} s"
        )
        width = len(str(self.total))
        return f"{done:{width}}/{self.total} [{bar}] {clock:10}{' ' + note if note else ''}"
