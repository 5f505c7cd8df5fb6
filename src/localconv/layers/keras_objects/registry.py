"""Names and config dicts of initializers, regularizers, constraints and layers, as Keras 2.15 writes them.

A config is ``{"module", "class_name", "config", "registered_name"}``; older files have only class_name and config, and
those are read too. The module, and a registered name ``PACKAGE>NAME``, tell a class of somebody's own from Keras's
class of that name.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from ...core.arguments import LONGEST_SHOWN
from ..arguments import shown

# Where Keras has what it has; in these and all inside them.
KERAS_MODULES = ("keras", "tf_keras", "tensorflow.keras", "tensorflow.python.keras")

# What says nothing about where something is: older files have no module, and functions were written as those of
# builtins.
NO_MODULES = (None, "builtins")

_custom: ContextVar[Mapping[str, Any]] = ContextVar("localconv custom objects", default={})  # noqa: B039  # never mutated


@contextlib.contextmanager
def custom_object_scope(objects: Mapping[str, Any]) -> Iterator[None]:
    """Within this context, configs may name the functions and classes in `objects`.

    Parameters
    ----------
    objects : mapping of str to callable
        Users' own activations, initializers, regularizers, constraints and layers by the names that configs hold:
        registered names as ``mypkg>Scale``, or class names alone. A config that names Keras's own module, as newer ones
        do, means Keras's class all the same.

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


def custom_object(*names: Any) -> Any:
    """The user's object of the first of these names that the present `custom_object_scope` knows, or None.

    A name ``PACKAGE>NAME`` may also be known without the package.
    """
    objects = _custom.get()
    for name in names:
        if not isinstance(name, str):
            continue
        for known in (name, name.rpartition(">")[2]):
            if objects.get(known) is not None:
                return objects[known]
    return None


class Configurable:
    """An object that `get_config` describes by the arguments that make it anew; equal configs make equal objects."""

    # The constructor's arguments, each of which is an attribute too.
    _config_names: tuple[str, ...] = ()

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as JSON can hold them."""
        values = ((name, getattr(self, name)) for name in self._config_names)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values}

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
    makers : mapping of callable to sequence of str, optional
        Classes, and functions that make an object, each with the names that it has beside its own.
    unknown : str, optional
        How Keras's message about an unknown name begins, with {} for the name.
    elsewhere : str, optional
        How that message ends: where there are more.
    """

    def __init__(
        self,
        kind: str,
        module: str,
        makers: Mapping[Callable[..., Any], Sequence[str]] | None = None,
        unknown: str | None = None,
        elsewhere: str = "",
    ) -> None:
        self.kind, self.module, self.unknown = kind, module, unknown or f"Unknown {kind}: {{}}"
        self.elsewhere = elsewhere
        self._makers: dict[str, Callable[..., Any]] = {}
        for maker, others in (makers or {}).items():
            self.add(maker, maker.__name__, *others)

    def add(self, maker: Callable[..., Any], *names: str) -> None:
        """Register a class (or a function that makes an object) under these names."""
        for name in names:
            self._makers[name] = maker

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._makers)

    def values(self) -> list[Any]:
        """Everything registered."""
        return list(self._makers.values())

    def get(self, identifier: Any) -> Any:
        """Return the object for a name, a config dict, a class, or any callable; None for None.

        Parameters
        ----------
        identifier : str, mapping, class, callable or None
            A callable is returned as it is, a class is called without arguments.

        Returns
        -------
        callable or None

        Raises
        ------
        ValueError
            For an unknown name or anything else.

        Examples
        --------
        >>> from localconv.layers import constraints, initializers, regularizers
        >>> initializers.get('he_normal'), regularizers.get('l2'), constraints.get('max_norm')
        (HeNormal(seed=None), L2(l2=0.01), MaxNorm(max_value=2, axis=0))
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
        raise ValueError(f"Could not interpret {self.kind} identifier: {shown(identifier)}")

    def deserialize(self, config: Mapping[str, Any]) -> Any:
        """The object that a config dict describes."""
        name, arguments = config.get("class_name"), config.get("config", {})
        if name == "function" and isinstance(arguments, str):  # stored by its name
            return self.made(self.find(arguments, config), {})
        if not isinstance(name, str) or not isinstance(arguments, Mapping):
            raise ValueError(
                f"Could not interpret {self.kind} config: class_name must be a string and config a dict, got "
                f"{shown(config)}"
            )
        return self.made(self.find(name, config), arguments)

    def make(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """The object of a class or function of this name with these arguments."""
        return self.made(self.find(name, {}), arguments)

    def find(self, name: str, config: Mapping[str, Any]) -> Any:
        """The class or function of this name that a config dict means. ValueError if there is none.

        What the config says is Keras's is that; otherwise the user's own go first, by their registered name, then by
        `name`.
        """
        own = is_of_keras(name, config)
        builtin = self._makers.get(name) if own else None
        if builtin is not None and config.get("module") not in NO_MODULES:
            return builtin
        custom = custom_object(config.get("registered_name"), name)
        if custom is not None or builtin is not None:
            return builtin if custom is None else custom
        module, registered = shown(config.get("module")), shown(config.get("registered_name"))
        whose = "" if own else f" of module {module}, registered as {registered}"
        raise ValueError(
            f"{self.unknown.format(shown(name))}{whose}. Known are those of Keras, {', '.join(self.names())}; "
            f"your own ones must be named in a custom_object_scope or in custom_objects{self.elsewhere}"
        )

    def made(self, maker: Any, arguments: Mapping[str, Any]) -> Any:
        """What a class or a built-in function makes of these arguments.

        A function of the user's is the object itself.
        """
        for name in arguments:  # Python would repeat all of it
            if isinstance(name, str) and len(name) > LONGEST_SHOWN:
                raise TypeError(f"{shown(name)} is no argument of this {self.kind}")
        if not inspect.isclass(maker) and not any(maker is own for own in self._makers.values()):
            return maker
        return maker.from_config(arguments) if hasattr(maker, "from_config") else maker(**arguments)

    def serialize(self, value: Any) -> Any:
        """The config dict of an object, None for None."""
        if value is None:
            return None
        if hasattr(value, "get_config"):
            name = type(value).__name__
            builtin = name in self._makers and self._makers[name] is type(value)
            return {
                "module": self.module if builtin else type(value).__module__,
                "class_name": name,
                "config": value.get_config(),
                "registered_name": None if builtin else name,
            }
        return self.serialize_function(value)

    def serialize_function(self, function: Any) -> dict[str, Any]:
        """The config dict of a user's function, as Keras 2.15 writes it.

        One that is called as a built-in one says where it is from.
        """
        name = _function_name(function, self.kind)
        if name in self._makers:
            module = getattr(function, "__module__", None) or type(function).__module__
            return {"module": module, "class_name": "function", "config": name, "registered_name": name}
        return {"module": "builtins", "class_name": "function", "config": name, "registered_name": "function"}


def is_of_keras(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a config dict means what Keras has under this name, and nothing of somebody's own."""
    module, registered = config.get("module"), config.get("registered_name")
    if registered not in (None, "function", name):
        return False
    return module in NO_MODULES or (
        isinstance(module, str) and any(f"{module}.".startswith(f"{own}.") for own in KERAS_MODULES)
    )


def _function_name(value: Any, kind: str) -> str:
    """The name that a config can hold for a user's function. ValueError if it has none."""
    name = getattr(value, "__name__", None)
    if name is None or name == "<lambda>":
        raise ValueError(
            f"the {kind} {value!r} cannot be stored in a config: give it a name (a function by def), or get_config and "
            "from_config"
        )
    return str(name)
