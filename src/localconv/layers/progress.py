"""A progress bar: tqdm's, where that is installed."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self, TextIO

# Seconds of silence: shorter work shows no bar by itself.
PATIENCE = 2.0

# What `verbose` may be.
VERBOSE = ("auto", 0, 1, 2)


class ProgressBar:
    """The bar of the package tqdm, for work of so many steps.

    Parameters
    ----------
    total : int
        Steps.
    verbose : {'auto', 0, 1, 2}, optional
        'auto': on a terminal or in a notebook, once the work has taken two seconds; without tqdm, no bar. 0: never. 1:
        always. 2: one line at the end, which needs no tqdm.
    file : text file, optional
        Default: ``sys.stderr``; nothing is shown in a process that has none (``2>&-``, pythonw).

    Raises
    ------
    ValueError
        For another `verbose`.
    ImportError
        If `verbose` is 1 and tqdm is missing.

    Examples
    --------
    >>> import sys
    >>> from localconv.layers import ProgressBar
    >>> with ProgressBar(3, verbose=2, file=sys.stdout) as bar:
    ...     for step in range(3):
    ...         bar.update(step + 1, 'loss 0.1')  # doctest: +ELLIPSIS
    3/3, ... s, loss 0.1
    """

    def __init__(self, total: int, verbose: str | int = "auto", file: TextIO | None = None) -> None:
        if verbose not in VERBOSE:
            raise ValueError(f"verbose must be one of {VERBOSE}, got {verbose!r}")
        self.file = file or sys.stderr
        # Without a file, print and tqdm would write to the other stream.
        self.total, self.verbose = total, verbose if verbose == "auto" else int(verbose) if self.file else 0
        self.start = time.monotonic()
        self._waiting = verbose == "auto" and is_watched(self.file)
        self._bar: Any = None
        if self.verbose == 1:
            self._bar = _tqdm()(total=total, file=self.file)

    def update(self, done: int, note: str = "") -> None:
        """Say that so many steps are done; `note` is printed behind the bar."""
        seconds, last = time.monotonic() - self.start, done >= self.total
        if self._waiting and seconds > PATIENCE and not last:
            self._waiting = False
            try:
                self._bar = _tqdm()(total=self.total, initial=done, file=self.file)
            except ImportError:  # nobody asked for a bar
                return
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self._bar.n)
        if last:
            self.close()
            if self.verbose == 2:
                print(", ".join([f"{done}/{self.total}", f"{seconds:.1f} s", *filter(None, [note])]), file=self.file)

    def close(self) -> None:
        """Leave the bar as it is, and write no more; the last step does it too."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def is_watched(file: TextIO | None) -> bool:
    """Whether somebody sees what is written to a file at once: on a terminal, or in a notebook, whose file is of the
    package that runs it and says that it is no terminal.
    """
    return file is not None and (file.isatty() or type(file).__module__.partition(".")[0] == "ipykernel")


def _tqdm() -> Any:
    """The class of bars for where this runs. ImportError if there is none."""
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError(f"a progress bar needs tqdm, which cannot be imported ({error}): pip install tqdm") from error
    return tqdm
