"""Types of XLA's side of the core, for type checkers; `_xla.pyx` says what the functions do."""

from collections.abc import Callable
from typing import Any

from ._core import Job

OPERATIONS: tuple[str, ...]
KEPT_BYTES: int

_Made = tuple[Job | None, int, tuple[int, int, int], int]

def use_maker(maker: Callable[[str, int, int, int, tuple[int, ...], list[tuple[int, ...]]], _Made]) -> None: ...
def handlers() -> dict[str, Any]: ...
def announce(major: int = ..., minor: int = ...) -> None: ...
def kept() -> tuple[int, int, int]: ...
def forget() -> None: ...
