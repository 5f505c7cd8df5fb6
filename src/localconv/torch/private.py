"""The names that PyTorch keeps to itself and that are used here: all of them, each tried before it is used.

They may be gone, or mean something else, in any new version. Calls are then slower, and their results the same:

- without one of `QUESTIONS` it is not known who watches the operators, and every call goes through the dispatcher;
- without one of `TOOLS` the operators cannot have derivatives of their own. What goes through the dispatcher is then
  computed in PyTorch's operations (`fallback`), which have theirs; other calls, and training steps, run the kernels.
"""

from __future__ import annotations

import pkgutil
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def _as_context(made: Any) -> bool:
    """Whether something can be entered and left."""
    with made:
        return True


_EMPTY = torch.empty(0, device="cpu")

# Where each name is, and whether it is what is used below: it takes these arguments, and answers so.
QUESTIONS: dict[str, Callable[[Any], bool]] = {
    "torch._C:_are_functorch_transforms_active": lambda ask: isinstance(ask(), bool),
    "torch._C:_len_torch_dispatch_stack": lambda ask: isinstance(ask(), int),
    "torch._C:_get_tracing_state": lambda ask: ask() is None or bool(torch.jit.is_tracing()),
    "torch._C:_autograd._profiler_enabled": lambda ask: isinstance(ask(), bool),
    "torch._C:_functorch.is_legacy_batchedtensor": lambda ask: ask(_EMPTY) is False,
    "torch:Tensor._is_zerotensor": lambda ask: ask(_EMPTY) is False,
    "torch.autograd.forward_ad:_current_level": lambda level: isinstance(level, int),
}
TOOLS: dict[str, Callable[[Any], bool]] = {
    "torch._C:_AutoDispatchBelowAutograd": lambda tool: _as_context(tool()),
    "torch.autograd.forward_ad:_set_fwd_grad_enabled": lambda tool: _as_context(tool(True)),
    "torch._functorch.utils:enable_single_level_autograd_function": lambda tool: _as_context(tool()),
    "torch.autograd.function:_SingleLevelFunction": lambda base: base in torch.autograd.Function.__bases__,
}
# Of this one all versions have the meaning, and where it is gone, another name.
CHECK = "torch:_check"


def _found(name: str, fits: Callable[[Any], bool]) -> Any:
    """What a name stands for; None: nothing, or nothing that can be used as it is here."""
    try:
        value = pkgutil.resolve_name(name)
        return value if fits(value) else None
    except Exception:  # whatever it says: nobody knows what stands there now
        return None


_questions, _tools = ([_found(*row) for row in table.items()] for table in (QUESTIONS, TOOLS))
MISSING = [name for name, value in zip((*QUESTIONS, *TOOLS), (*_questions, *_tools), strict=True) if value is None]
_transforms_active, _modes_active, _tracing, _profiled, _is_legacy_batched, _is_zerotensor, _ = _questions
_below_autograd, _forward_mode, _single_level, _ = _tools

# Whether an operator can have derivatives of its own, of all kinds and under all transforms.
HAS_TOOLS = None not in _tools


def warn_of_missing_names() -> None:
    """A RuntimeWarning that names what this PyTorch has not, and what that costs."""
    if MISSING:
        warnings.warn(
            f"PyTorch {torch.__version__} has not all that localconv.torch uses of it ({', '.join(MISSING)}): results "
            "are right, but calls are slower. A newer localconv may know this version",
            RuntimeWarning,
            stacklevel=3,
        )


# ---------------------------------------------------------------------------------------------------------- questions

# Of these types a tensor is nothing but its memory.
PLAIN_TYPES = (Tensor, torch.nn.Parameter)
_DISPATCH = Tensor.__torch_dispatch__


def _is_plain(*tensors: Tensor | None) -> bool:
    """Whether the kernels may be called on the memory of tensors with nobody told of it.

    Not where a transform of `torch.func`, a mode, a tracer, the profiler or forward mode wants to see operators, nor
    with subclasses, other devices and other layouts, nor with the zeros without memory that autograd makes in places:
    the dispatcher fills them.
    """
    if (
        _transforms_active()
        or _modes_active()
        or _tracing() is not None
        or _profiled()
        or forward_ad._current_level >= 0
    ):
        return False
    for tensor in tensors:
        if tensor is not None and not (
            type(tensor) in PLAIN_TYPES
            and tensor.is_cpu
            and tensor.layout is torch.strided
            and not _is_legacy_batched(tensor)
            and not _is_zerotensor(tensor)
        ):
            return False
    return True


def _unknown(*tensors: Tensor | None) -> bool:
    """`is_plain` where not all questions can be asked."""
    return False


is_plain = _unknown if None in _questions else _is_plain


def as_memory(value: Any) -> Any:
    """A tensor as PyTorch itself sees it: attributes of subclasses may say other sizes than it has."""
    if not isinstance(value, Tensor) or type(value) in PLAIN_TYPES:
        return value
    # What a subclass overrides is not asked below this, which is the default that overrides call.
    return Tensor.__torch_function__(Tensor.as_subclass, (), (value, Tensor))


def as_operand(value: Any) -> Any:
    """`as_memory` but of tensors whose class says what operators do, as fake ones do."""
    return value if getattr(type(value), "__torch_dispatch__", _DISPATCH) is not _DISPATCH else as_memory(value)


# -------------------------------------------------------------------------------------------------------------- tools


def below_autograd(compute: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """What a function returns whose calls of operators go to the next dispatcher key after autograd's.

    `Function.apply` turns gradients off around a forward pass. Other transforms of `torch.func`, which wait below this
    one, must not see that: their derivatives would be 0 without a word.
    """
    with torch.enable_grad(), _forward_mode(True), _below_autograd():
        return compute(*arguments)


def once(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """A function's `apply` for an operator's implementation.

    `Function.apply` looks at the whole stack of `torch.func`'s transforms. Here the dispatcher has peeled off one of
    them already, and one level is left to differentiate.
    """
    apply_once: Any = super(torch.autograd.Function, function).apply

    def apply(*arguments: Any) -> Any:
        with _single_level():
            return apply_once(*arguments)

    return apply


# -------------------------------------------------------------------------------------------------------------- sizes


def _plain_check(condition: Any, message: Callable[[], str]) -> None:
    """RuntimeError unless a condition, which may be of symbols, holds."""
    if not condition:
        raise RuntimeError(message())


check = _found(CHECK, callable) or _plain_check
