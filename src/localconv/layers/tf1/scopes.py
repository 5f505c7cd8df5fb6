"""Variables by name: the store that `conv1d` keeps them in, the scopes that name them, and what lists them, as in
tf.compat.v1.

In a thread, a scope is open from the entry of its `variable_scope` to the exit. Automatic names avoid those of the
scopes (a layer's variables have one too) that were opened since the surrounding scope was; so the same calls get the
same names whenever a scope is opened by its name again.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from .. import naming
from ..keras_objects import initializers, regularizers
from ..variables import Variable

__all__ = [
    "AUTO_REUSE",
    "VariableScope",
    "clear_session",
    "get_regularization_losses",
    "get_variable_scope",
    "global_variables",
    "trainable_variables",
    "variable_scope",
]

# TensorFlow's: variables can have the same names there.
_OUTERMOST_NAME = re.compile(r"([A-Za-z0-9.][A-Za-z0-9_.\\/>-]*)?")
_INNER_NAME = re.compile(r"[A-Za-z0-9_.\\/>-]*")


class _Reuse(enum.Enum):
    """A value for `reuse`: layers take the variables that exist, and make the others."""

    AUTO_REUSE = "AUTO_REUSE"

    def __repr__(self) -> str:
        return self.name


AUTO_REUSE = _Reuse.AUTO_REUSE
Reuse = bool | _Reuse
# Called with a getter, and by name with what that takes.
Getter = Callable[..., Any]


def checked_reuse(reuse: Reuse | None) -> Reuse:
    """False for None. ValueError for anything but True, False, None and AUTO_REUSE."""
    if reuse is None or reuse is False:
        return False
    if reuse is True or reuse is AUTO_REUSE:
        return reuse
    raise ValueError(f"reuse must be True, False, None or AUTO_REUSE, got {reuse!r}")


class VariableScope:
    """What holds for the variables that are made in a scope; `variable_scope` and `get_variable_scope` return it.

    It can be given where a scope or a layer is named: that stands for just this scope, wherever the name is used.

    Parameters
    ----------
    reuse : bool or AUTO_REUSE
        Whether layers take the variables that exist.
    name : str, optional
        What the variables' names begin with, followed by '/'; empty outside all scopes.
    initializer : str, dict or callable, optional
        For variables without an initializer of their own.
    regularizer : str, dict or callable, optional
        A penalty on every new variable, beside that of its own.
    custom_getter : callable, optional
        What gives layers their variables, see `variable_scope`.

    Raises
    ------
    ValueError
        For another `reuse`, or an initializer or regularizer that is none.
    TypeError
        If `name` is not a string, or `custom_getter` not callable.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv import layers
    >>> layers.clear_session()
    >>> x = np.ones((1, 5, 2), np.float32)
    >>> with layers.variable_scope('encoder') as scope:
    ...     y = layers.conv1d(x, 4, 3, name='c')
    ...     scope.reuse_variables()
    ...     z = layers.conv1d(x, 4, 3, name='c')
    >>> [v.name for v in scope.global_variables()], bool((y == z).all())
    (['encoder/c/kernel:0', 'encoder/c/bias:0'], True)
    """

    def __init__(
        self,
        reuse: Reuse | None,
        name: str = "",
        initializer: Any = None,
        regularizer: Any = None,
        *,
        custom_getter: Getter | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, got {name!r}")
        self._name = name
        self._reuse = checked_reuse(reuse)
        self.set_initializer(initializer)
        self.set_regularizer(regularizer)
        self.set_custom_getter(custom_getter)

    @property
    def name(self) -> str:
        """The full name, that of the surrounding scopes before it."""
        return self._name

    @property
    def reuse(self) -> Reuse:
        """True, False or AUTO_REUSE."""
        return self._reuse

    @property
    def initializer(self) -> Any:
        """For variables without one of their own; None: glorot_uniform."""
        return self._initializer

    @property
    def regularizer(self) -> Any:
        """The penalty on every new variable, or None."""
        return self._regularizer

    @property
    def custom_getter(self) -> Getter | None:
        """What gives layers their variables, those of the surrounding scopes included, or None."""
        return self._custom_getter

    def reuse_variables(self) -> None:
        """From now on, layers in this scope and in scopes opened inside it take the variables that exist."""
        self._reuse = True

    def set_initializer(self, initializer: Any) -> None:
        """Change `initializer`."""
        self._initializer = initializers.get(initializer)

    def set_regularizer(self, regularizer: Any) -> None:
        """Change `regularizer`."""
        self._regularizer = regularizers.get(regularizer)

    def set_custom_getter(self, custom_getter: Getter | None) -> None:
        """Change `custom_getter`: those of the surrounding scopes are not called any more."""
        if custom_getter is not None and not callable(custom_getter):
            raise TypeError(f"custom_getter must be callable or None, got {custom_getter!r}")
        self._custom_getter = custom_getter

    def global_variables(self) -> list[Variable]:
        """Return the stored variables of this scope and the scopes inside it, in the order of their creation."""
        return [variable for variable in global_variables() if variable.name.startswith(self.full_name(""))]

    def trainable_variables(self) -> list[Variable]:
        """Return those of them that training changes."""
        return [variable for variable in self.global_variables() if variable.trainable]

    def full_name(self, name: str) -> str:
        """Return what a variable or scope of this name in this scope is called."""
        return f"{self._name}/{name}" if self._name else name

    def __repr__(self) -> str:
        return f"<VariableScope {self._name!r} reuse={self._reuse!r}>"


@dataclass
class _Place:
    """Where a thread is: the scope that is open, and the full names of scopes that automatic names avoid."""

    scope: VariableScope = field(default_factory=lambda: VariableScope(False))
    opened: frozenset[str] = frozenset()
    thread: threading.Thread = field(default_factory=threading.current_thread)

    def close(self, name: str) -> None:
        """Free the names inside a scope."""
        self.opened = frozenset(other for other in self.opened if not other.startswith(f"{name}/"))


class _Root(threading.local):
    """Each thread's place outside all scopes."""

    def __init__(self) -> None:
        self.place = _Place()


class _Store:
    """All variables, by name and in the order of creation, and their penalties. Whoever adds to it holds the lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.variables: dict[str, Variable] = {}
        # By the name of a variable or layer, and what the penalty is on.
        self.penalties: dict[tuple[str, str], Callable[[], Any]] = {}
        self.root = _Root()

    def renew_lock(self) -> None:
        self.lock = threading.RLock()

    def clear(self) -> None:
        with self.lock:
            self.variables.clear()
            self.penalties.clear()
            self.root = _Root()


store = _Store()
if hasattr(os, "register_at_fork"):
    # A child that is born while another thread holds the lock would wait for that thread, which it does not have.
    os.register_at_fork(after_in_child=store.renew_lock)
_open: ContextVar[_Place | None] = ContextVar("localconv variable scope", default=None)


def here() -> _Place:
    """The place of this thread.

    Some Pythons hand the context of a thread to those that it starts; their place is outside all scopes.
    """
    place = _open.get()
    return place if place is not None and place.thread is threading.current_thread() else store.root.place


def get_variable_scope() -> VariableScope:
    """Return the scope that is open in this thread.

    Returns
    -------
    VariableScope
        Outside all scopes one without a name: ``get_variable_scope().reuse_variables()`` holds for the whole thread
        until `clear_session`.

    Examples
    --------
    >>> from localconv import layers
    >>> with layers.variable_scope('encoder'):
    ...     layers.get_variable_scope().name
    'encoder'
    """
    return here().scope


@contextlib.contextmanager
def variable_scope(
    name_or_scope: str | VariableScope | None,
    default_name: str | None = None,
    values: Any = None,
    initializer: Any = None,
    regularizer: Any = None,
    *,
    custom_getter: Getter | None = None,
    reuse: Reuse | None = None,
) -> Iterator[VariableScope]:
    """Within this context, variables are called ``NAME/...``.

    Parameters
    ----------
    name_or_scope : str, VariableScope or None
        A string is joined to the names of the surrounding scopes by '/'. A `VariableScope` is opened again, whatever
        surrounds it.
    default_name : str, optional
        The name if `name_or_scope` is None: ``NAME_1``, ``NAME_2``, ... where it is in use.
    values : object, optional
        Not used; TensorFlow finds a graph by it.
    initializer : str, dict or callable, optional
        For variables whose own initializer is None. Default: that of the surrounding scope, or of the one that is
        opened again.
    regularizer : str, dict or callable, optional
        A penalty on every new variable, kernels and biases, beside that of its own. Default: as for `initializer`.
    custom_getter : callable, optional
        Called as ``custom_getter(getter, name=..., shape=..., dtype=..., initializer=..., regularizer=..., reuse=...,
        trainable=..., constraint=...)`` for each weight of a layer; returns what the layer computes with: a `Variable`,
        or an array of the weight's shape and dtype. ``getter(name, ...)`` takes the same arguments and returns the
        stored variable of that name, or makes it. `name` is the full one, without ':0'; `regularizer` is the scope's.
        If the surrounding scope has one too, or the one that is opened again, `getter` calls that.
    reuse : bool or AUTO_REUSE, optional
        True: layers in this scope take the variables that exist. AUTO_REUSE: they take those that exist and make the
        others. None and False: as for `initializer`, and False outside all scopes.

    Yields
    ------
    VariableScope

    Raises
    ------
    TypeError
        If `name_or_scope` or `default_name` is of another type, or both are None; if `custom_getter` is not callable.
    ValueError
        If a name has other characters than letters of English, digits and ``_ . \\ / > -``, or begins with one of these
        but '.' outside all scopes; for another `reuse`, or one without `name_or_scope`; for an initializer or
        regularizer that is none.

    Notes
    -----
    Follows tf.compat.v1.variable_scope of TensorFlow 2.15. Its other arguments are about devices, kinds of variables
    and the names of operations, which do not exist here, or, as dtype and constraint, do nothing to the variables of
    tf.layers there.

    The getter's arguments are those of TensorFlow's that exist here, ``reuse=None`` being AUTO_REUSE. A layer's own
    regularizer is a penalty on what the custom getter returns, unless that is a variable that was there before the
    call; of an array, which does not change any more, the penalty does not change either.

    Each thread is outside all scopes when it starts.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv import layers
    >>> layers.clear_session()
    >>> x = np.ones((1, 5, 2), np.float32)
    >>> with layers.variable_scope('encoder', initializer='ones') as scope:
    ...     y = layers.conv1d(x, 4, 3)
    >>> with layers.variable_scope(scope, reuse=True):
    ...     z = layers.conv1d(x, 4, 3)
    >>> [v.name for v in layers.global_variables()], bool((y == z).all())
    (['encoder/conv1d/kernel:0', 'encoder/conv1d/bias:0'], True)

    Weights of half their size:

    >>> def halved(getter, name, *args, **kwargs):
    ...     return getter(name, *args, **kwargs).value / 2
    >>> with layers.variable_scope(scope, custom_getter=halved, reuse=True):
    ...     half = layers.conv1d(x, 4, 3)
    >>> bool((2 * half == y).all())
    True
    """
    if name_or_scope is None and checked_reuse(reuse):
        raise ValueError(f"reuse={reuse!r} needs name_or_scope: a scope with an automatic name is a new one")
    scope = inner_scope(name_or_scope, default_name, initializer, regularizer, custom_getter, reuse)
    outer = here()
    outer.opened |= {scope.name}
    inner = _Place(scope, outer.opened)
    token = _open.set(inner)
    try:
        yield scope
    finally:
        _open.reset(token)
        # What is done in a scope that was opened again leaves no trace in the automatic names.
        if not isinstance(name_or_scope, VariableScope):
            outer.opened = inner.opened
            outer.close(scope.name)


def trainable_variables(scope: str | None = None) -> list[Variable]:
    """Return the stored variables that training changes, in the order of their creation.

    Parameters
    ----------
    scope : str, optional
        A regular expression: only variables whose names begin with a match.

    Returns
    -------
    list of Variable

    Raises
    ------
    TypeError
        If `scope` is not a string.
    ValueError
        If it is not a regular expression.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv import layers
    >>> layers.clear_session()
    >>> for name in 'encoder', 'decoder':
    ...     y = layers.conv1d(np.ones((1, 5, 2), np.float32), 4, 3, name=name)
    >>> [v.name for v in layers.trainable_variables('encoder/')]
    ['encoder/kernel:0', 'encoder/bias:0']
    """
    return [variable for variable in global_variables(scope) if variable.trainable]


def global_variables(scope: str | None = None) -> list[Variable]:
    """Return all stored variables, in the order of their creation; `scope` as in `trainable_variables`."""
    matches = _matcher(scope)
    return [variable for variable in list(store.variables.values()) if matches(variable.name)]


def get_regularization_losses(scope: str | None = None) -> list[Any]:
    """Return the penalties, layer by layer in the order of creation.

    Parameters
    ----------
    scope : str, optional
        As in `trainable_variables`: only penalties on variables and outputs of layers with such names.

    Returns
    -------
    list of numbers
        Of each variable, for the value that it has now: by the regularizer of the scope and the one of its own with
        which it was made. Then of the layer's last output, if that call had an activity_regularizer. No number for a
        regularizer that returns None.

    Raises
    ------
    TypeError, ValueError
        As `trainable_variables`.
    """
    matches = _matcher(scope)
    losses = [penalty() for (name, _), penalty in list(store.penalties.items()) if matches(name)]
    return [loss for loss in losses if loss is not None]


def clear_session() -> None:
    """Forget all stored variables and start all automatic names anew.

    Raises
    ------
    RuntimeError
        Inside a `variable_scope`.
    """
    place = here()
    if place is not store.root.place:
        raise RuntimeError(f"clear_session must not be called inside a variable_scope; {place.scope.name!r} is open")
    store.clear()
    naming.restart()


def inner_scope(
    name_or_scope: str | VariableScope | None,
    default_name: str | None,
    initializer: Any = None,
    regularizer: Any = None,
    custom_getter: Getter | None = None,
    reuse: Reuse | None = None,
    argument: str = "name_or_scope",
) -> VariableScope:
    """The scope that `variable_scope` would open here; `argument` is what messages call the first one."""
    place = here()
    if isinstance(name_or_scope, VariableScope):
        outer, name = name_or_scope, name_or_scope.name
    else:
        outer = place.scope
        if name_or_scope is not None:
            name = outer.full_name(checked_name(name_or_scope, argument, outer))
        elif default_name is not None:
            name = _unused(outer.full_name(checked_name(default_name, "default_name", outer)), place.opened)
        else:
            raise TypeError(f"{argument} must be a string or a VariableScope if there is no default_name, got None")
    return VariableScope(
        checked_reuse(reuse) or outer.reuse,
        name,
        outer.initializer if initializer is None else initializer,
        outer.regularizer if regularizer is None else regularizer,
        custom_getter=_composed(custom_getter, outer.custom_getter),
    )


def _composed(custom_getter: Getter | None, outer: Getter | None) -> Getter | None:
    """The custom getter of a scope inside one that may have its own, which then is the getter of the inner one."""
    if custom_getter is None or not callable(custom_getter) or outer is None:
        return outer if custom_getter is None else custom_getter
    inner = custom_getter  # a name that stays bound to a callable

    def composed(getter: Getter, *args: Any, **kwargs: Any) -> Any:
        return inner(functools.partial(outer, getter), *args, **kwargs)

    return composed


def checked_name(name: str, argument: str, outer: VariableScope | None = None) -> str:
    """The name of a scope or variable in a scope, None being outside all scopes, as TensorFlow allows it."""
    if not isinstance(name, str):
        or_scope = " or a VariableScope" if argument != "default_name" and outer is not None else ""
        raise TypeError(f"{argument} must be a string{or_scope}, got {name!r}")
    allowed = _INNER_NAME if outer is not None and outer.name else _OUTERMOST_NAME
    if not allowed.fullmatch(name):
        raise ValueError(f"{argument} must match the pattern {allowed.pattern}, got {name!r}")
    return name


def _unused(name: str, opened: frozenset[str]) -> str:
    """The name, numbered if it is in use."""
    if name not in opened:
        return name
    number = 1
    while f"{name}_{number}" in opened:
        number += 1
    return f"{name}_{number}"


def _matcher(scope: str | None) -> Callable[[str], Any]:
    """Whether a name begins with a match of the regular expression."""
    if scope is None:
        return lambda name: True
    if not isinstance(scope, str):
        raise TypeError(f"scope must be a string, got {scope!r}")
    try:
        return re.compile(scope).match
    except re.error as error:
        raise ValueError(f"scope must be a regular expression, got {scope!r}: {error}") from None
