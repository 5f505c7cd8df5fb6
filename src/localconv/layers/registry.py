"""Names and config dicts of initializers, regularizers, constraints and layers, as Keras 2.15 writes them.

A config is ``{"module", "class_name", "config", "registered_name"}``; older files have only class_name and config, and those
are read too.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

_custom: ContextVar[Mapping[str, Any]] = ContextVar("localconv custom objects", default={})  # noqa: B039  # never mutated


@contextlib.contextmanager
def custom_object_scope(objects: Mapping[str, Any]) -> Iterator[None]:
    """Within this context, configs may name the functions and classes in `objects`.

    Parameters
    ----------
    objects : mapping of str to callable
        Users' own activations, initializers, regularizers, constraints and layers by the names that configs hold.

    Examples
    --------
    >>> from localconv import layers
    >>> def twice(x):
    ...     return 2 * x
    >>> config = layers.Conv1D(2, 3, activation=twice).get_config()
    >>> with layers.custom_object_scope({'twice': twice}):
    ...     layers.Conv1D.from_config(config).activation is twice
    True
    """
    if not isinstance(objects, Mapping):
        raise TypeError(f"objects must be a mapping of names to callables, got {type(objects).__name__}")
    token = _custom.set({**_custom.get(), **objects})
    try:
        yield
    finally:
        _custom.reset(token)


def custom_object(name: str) -> Any:
    """The user's object of this name in the present `custom_object_scope`, or None."""
    return _custom.get().get(name)


class Configurable:
    """An object that `get_config` describes by the arguments that make it anew; equal configs make equal objects."""

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as JSON can hold them."""
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """Make the object that `get_config` described."""
        return cls(**{key: value for key, value in config.items() if key != "dtype"})

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.get_config().items())})"


class Registry:
    """The built-in objects of one kind by name.

    Parameters
    ----------
    kind : str
        What error messages call them, 'initializer' for instance.
    module : str
        What configs give as their module, 'keras.initializers' for instance.
    """

    def __init__(self, kind: str, module: str) -> None:
        self.kind, self.module = kind, module
        self._makers: dict[str, Callable[..., Any]] = {}

    def add(self, maker: Callable[..., Any], *names: str) -> None:
        """Register a class (or a function that makes an object) under these names."""
        for name in names:
            self._makers[name] = maker

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._makers)

    def lookup(self, name: str) -> Any:
        """What is registered under this name, or None."""
        return self._makers.get(name)

    def values(self) -> list[Any]:
        """Everything registered."""
        return list(self._makers.values())

    def get(self, identifier: Any) -> Any:
        """The object for a name, a config dict, a class, or a callable, which is taken as it is; None for None.

        Raises ValueError for an unknown name or anything else.
        """
        if identifier is None:
            return None
        if isinstance(identifier, str):
            return self.make(identifier, {})
        if isinstance(identifier, Mapping):
            return self.deserialize(identifier)
        if inspect.isclass(identifier):
            return identifier()
        if callable(identifier):
            return identifier
        raise ValueError(f"Could not interpret {self.kind} identifier: {identifier!r}")

    def deserialize(self, config: Mapping[str, Any]) -> Any:
        """The object that a config dict describes."""
        name, arguments = config.get("class_name"), config.get("config", {})
        if name == "function" and isinstance(arguments, str):  # a user's function, stored by its name
            return self.make(arguments, None)
        if not isinstance(name, str) or not isinstance(arguments, Mapping):
            raise ValueError(f"Could not interpret {self.kind} config: class_name must be a string and config a dict, got {dict(config)!r}")
        return self.make(name, arguments)

    def make(self, name: str, arguments: Mapping[str, Any] | None) -> Any:
        """The object of a registered class with these arguments; None: the registered callable itself."""
        maker = custom_object(name.rsplit(">", 1)[-1]) or self._makers.get(name)
        if maker is None:
            raise ValueError(f"Unknown {self.kind}: {name!r}. Known are {', '.join(self.names())}; your own ones must be named in a "
                             "custom_object_scope or in custom_objects")
        if arguments is None or not (inspect.isclass(maker) or name in self._makers):
            return maker
        if hasattr(maker, "from_config"):
            return maker.from_config(arguments)
        return maker(**arguments)

    def serialize(self, value: Any) -> Any:
        """The config dict of an object, None for None."""
        if value is None:
            return None
        if hasattr(value, "get_config"):
            name = type(value).__name__
            builtin = name in self._makers and self._makers[name] is type(value)
            return {"module": self.module if builtin else type(value).__module__, "class_name": name, "config": value.get_config(),
                    "registered_name": None if builtin else name}
        return {"module": "builtins", "class_name": "function", "config": function_name(value, self.kind), "registered_name": "function"}


def function_name(value: Any, kind: str) -> str:
    """The name that a config can hold for a user's function. ValueError if it has none."""
    name = getattr(value, "__name__", None)
    if name is None or name == "<lambda>":
        raise ValueError(f"the {kind} {value!r} cannot be stored in a config: give it a name (a function by def), or get_config and "
                         "from_config")
    return str(name)
