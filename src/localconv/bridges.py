"""The packages for other libraries as attributes of `localconv`: seen at once, imported when first used."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

# What may be asked of a module that is not imported yet without its import: Python's tools ask every object that they
# meet for such names (inspect for __wrapped__, IPython for _repr_html_). These are of the module.
_OF_MODULES = ("__all__", "__file__", "__path__")


class Bridge(ModuleType):
    """A package that is imported when something in it is first asked for.

    So what walks through all attributes of `localconv` (help, inspect.getmembers, completion in a shell) neither waits
    for a library nor ends with the ImportError of one that is not installed; the user of the package gets that.

    Importing the package puts the package itself in this object's place.
    """

    def _package(self) -> ModuleType:
        return importlib.import_module(self.__name__)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and name not in _OF_MODULES:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self._package(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._package(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._package(), name)

    def __dir__(self) -> list[str]:
        return dir(self._package())

    def __repr__(self) -> str:
        return f"<module {self.__name__!r}, imported when it is first used>"
