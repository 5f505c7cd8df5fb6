"""What an AttributeError of a module says beside the name: where that is, or what is meant."""

from __future__ import annotations

import importlib
import sys

# Modules with public names, by what they are called in messages.
_PLACES = ("localconv", "localconv.layers", "localconv.grad", "localconv.convert")
# What PyTorch calls what is here, in torch.nn.grad.
_OTHER_NAMES = {"weight": "kernel"}
_OTHER_LAYERS = (
    "the layers here are those around locally connected ones, in Sequential models; Keras 3 has all others, and "
    "Model, and localconv.keras has LocallyConnected1D to 3D for it"
)


class MissingName(AttributeError):
    """A module has no such name. Only who reads the message waits for the search: hasattr does not, nor the import of a
    module inside the package, which asks the package for its name first.
    """

    def __init__(self, module: str, name: str) -> None:
        super().__init__(module, name, name=name, obj=sys.modules[module])

    def __str__(self) -> str:
        module, name = self.args
        text, hint = f"module {module!r} has no attribute {name!r}", "" if name.startswith("_") else _hint(module, name)
        return f"{text}: {hint}" if hint else text


def _hint(module: str, name: str) -> str:
    """Where a name is that somebody looked for in a module; empty where nothing is known of it."""
    word, _, last = name.rpartition("_")
    wanted = (name, f"{word}_{_OTHER_NAMES[last]}") if last in _OTHER_NAMES else (name,)
    # First the name itself, then the one that differs in capitals: layers.conv2d is a function, layers.Conv2D a layer.
    for same in (str, str.lower):
        matches = [
            f"{place}.{public}"
            for place in _PLACES
            for public in importlib.import_module(place).__all__
            if same(public) in map(same, wanted)
        ]
        if matches:
            return f"it is {' or '.join(matches)}"
    return _OTHER_LAYERS if module == "localconv.layers" and name[:1].isupper() else ""
