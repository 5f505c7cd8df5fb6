"""What holds for the calls of this process until somebody changes it: the instruction set, and algorithms that tests
force.

A call asks for `current` once, and passes it down; it is replaced as a whole, never changed. A bridge whose calls know
nothing of Python has the settings' number instead.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from .._core import ALGORITHMS as COMPILED
from .._core import available_isas, use_settings
from .families import CONV, FAMILIES

# Shared convolution and its gradients through im2col and NumPy's BLAS: the one algorithm that is not compiled here.
COLUMNS = "columns"

# The algorithms of every operation that has some to choose from, as they can be forced.
ALGORITHMS: dict[str, tuple[str, ...]] = {}
for _name, _operation in COMPILED.items():
    ALGORITHMS[_operation] = (*ALGORITHMS.get(_operation, ()), _name)
for _operation in FAMILIES[CONV].operations.values():
    ALGORITHMS[_operation] = (*ALGORITHMS[_operation], COLUMNS)


class Settings(NamedTuple):
    """`isa`: the instruction set.

    `forced`: names of algorithms that their operations take, whatever policy.py would choose. `winograd`: whether
    shared convolution may take Winograd's.
    """

    isa: str
    forced: tuple[str, ...] = ()
    winograd: bool = False


_current = Settings(available_isas()[0])

# All that were ever in force, by their numbers, and the numbers by them.
_numbered: list[Settings] = [_current]
_numbers: dict[Settings, int] = {_current: 0}


def current() -> Settings:
    """The settings of the moment."""
    return _current


def numbered(number: int) -> Settings:
    """The settings that the core knows by this number."""
    return _numbered[number]


def _use(settings: Settings) -> None:
    global _current
    if settings not in _numbers:
        _numbered.append(settings)
        _numbers[settings] = len(_numbered) - 1
    _current = settings
    use_settings(_numbers[settings])


def set_isa(name: str) -> None:
    """Use the instruction set of that name for the calls that follow. TypeError or ValueError if it cannot run here."""
    if not isinstance(name, str):
        raise TypeError(f"isa must be a string, got {name!r}")
    if name not in available_isas():
        raise ValueError(
            f"instruction set {name!r} is unknown or cannot run here; available: {', '.join(available_isas())}"
        )
    _use(_current._replace(isa=name))


def get_isa() -> str:
    """The name of the instruction set in use."""
    return _current.isa


def allow_winograd(allowed: bool) -> None:
    """Whether the shared convolutions that follow may be computed by Winograd's algorithm."""
    _use(_current._replace(winograd=allowed))


@contextlib.contextmanager
def forced(*algorithms: str) -> Iterator[None]:
    """Force algorithms, for tests and measurements; each for the operations that have one of its name.

    The setting is the process's, not the thread's. Raises ValueError for an unknown name. Within it a call raises
    ValueError where the algorithm cannot do its geometry.
    """
    known = {name for names in ALGORITHMS.values() for name in names}
    for name in algorithms:
        if name not in known:
            raise ValueError(f"algorithms must be among {sorted(known)}, got {name!r}")
    before = _current.forced
    _use(_current._replace(forced=algorithms))
    try:
        yield
    finally:
        _use(_current._replace(forced=before))


def _read_environment() -> None:
    if "LOCALCONV_ISA" in os.environ:
        try:
            set_isa(os.environ["LOCALCONV_ISA"])
        except ValueError as error:
            raise ValueError(f"LOCALCONV_ISA: {error}") from None


_read_environment()
