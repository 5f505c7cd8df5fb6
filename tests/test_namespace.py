"""What `localconv` shows, and what it imports when it is looked at."""

import copy
import importlib
import pickle
import pydoc
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

import localconv
from localconv.core.arrays import BRIDGES

ROOT = Path(__file__).parent.parent
FRAMEWORKS = (*BRIDGES, "distributed", "jaxlib", "tensorflow")

# Each of these is a look at the package, not a use of a bridge.
LOOKS = {
    "import": "",
    "star": "from localconv import *",
    "dir": "dir(localconv)",
    "hasattr": f"assert all(hasattr(localconv, name) for name in {(*BRIDGES,)})",
    "repr": "[repr(getattr(localconv, name)) for name in dir(localconv)]",
    "members": "import inspect; [inspect.unwrap(value) for _, value in inspect.getmembers(localconv)]",
    "doctest": "import doctest; doctest.DocTestFinder().find(localconv)",
    "help": "import io, pydoc; pydoc.Helper(output=io.StringIO()).help(localconv)",
    "completion": (
        "import rlcompleter\n"
        "assert 'localconv.torch' in rlcompleter.Completer({'localconv': localconv}).attr_matches('localconv.to')"
    ),
    "jupyter": "[hasattr(localconv.torch, name) for name in ('_repr_html_', '_ipython_display_', '__wrapped__')]",
    "copy": "import copy\ntry: copy.copy(localconv)\nexcept TypeError: pass",
    "deepcopy": "import copy\ntry: copy.deepcopy(localconv)\nexcept TypeError: pass",
    "pickle": "import pickle\ntry: pickle.dumps(localconv)\nexcept TypeError: pass",
    "pickle a bridge": "import pickle\ntry: pickle.dumps(localconv.torch)\nexcept TypeError: pass",
}


def test_dir_shows_what_is_public():
    assert dir(localconv) == sorted({*localconv.__all__, *BRIDGES, "convert"})
    assert {"conv2d", "local_conv2d", "layers", "grad", *BRIDGES} <= set(dir(localconv))
    assert not {"Any", "TYPE_CHECKING", "backend"} & set(dir(localconv))


@pytest.mark.parametrize("module", [localconv.grad, localconv.layers], ids=lambda module: module.__name__)
def test_dir_of_parts(module):
    assert dir(module) == sorted(module.__all__)


PARTS_OF_LAYERS = ["activations", "constraints", "initializers", "regularizers"]


@pytest.mark.parametrize("name", PARTS_OF_LAYERS)
def test_public_modules_show_what_is_inside(name):
    """Nothing but that, under its own docstring: the code is in layers.keras_objects."""
    public = importlib.import_module(f"localconv.layers.{name}")
    inside = importlib.import_module(f"localconv.layers.keras_objects.{name}")
    assert public is getattr(localconv.layers, name)
    assert (public.__all__, public.__doc__) == (inside.__all__, inside.__doc__)
    assert {key for key in vars(public) if not key.startswith("__")} == set(public.__all__)
    assert all(getattr(public, key) is getattr(inside, key) for key in public.__all__)


@pytest.mark.parametrize("name", PARTS_OF_LAYERS)
def test_pickles_name_public_modules_and_load(name):
    """Those of earlier versions do: a global by its module and name."""
    public = importlib.import_module(f"localconv.layers.{name}")
    for key in public.__all__:
        assert pickle.loads(f"clocalconv.layers.{name}\n{key}\n.".encode()) is getattr(public, key)


def test_bridges_are_in_every_list():
    """What does not follow from the one in the sources: tests, extras, packages, and the reference."""
    project = ROOT / "pyproject.toml"
    if not (project.exists() and (ROOT / "docs").exists()):
        pytest.skip("a test of a checkout; this is not one")
    assert {"dask", "jax", "keras", "torch"} <= set(BRIDGES)
    assert {path.parent.name for path in (ROOT / "tests" / "bridges").glob("*/conftest.py")} == set(BRIDGES)
    settings = tomllib.loads(project.read_text(encoding="utf-8"))
    assert set(BRIDGES) <= set(settings["project"]["optional-dependencies"])
    assert {f"localconv.{name}" for name in BRIDGES} <= set(settings["tool"]["setuptools"]["packages"])
    index = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert all(f"(api/{name}.md)" in index and (ROOT / "docs" / "api" / f"{name}.md").exists() for name in BRIDGES)


def test_help_says_first_what_the_package_is_for():
    """And names its parts, before it lists the modules that are inside."""
    page = pydoc.plain(pydoc.render_doc(localconv))
    about, _, internals = page.partition("PACKAGE CONTENTS")
    assert "core" in internals
    assert all(
        word in about for word in ("local_conv2d", "layers.LocallyConnected2D", "localconv.grad", "localconv.torch")
    )
    assert "arguments" not in about


def test_whatever_dir_shows_is_there():
    for name in dir(localconv):
        assert hasattr(localconv, name)


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_imports_no_framework(python, look):
    code = f"import sys, localconv\n{LOOKS[look]}\nprint(*sorted({{*{FRAMEWORKS}}} & {{*sys.modules}}))"
    assert python(code) == "\n"


def test_import_waits_for_nothing_that_is_asked_for_later(python):
    code = "import sys, localconv; print([m for m in sys.modules if m.startswith('localconv.')])"
    assert not {"bridges", *BRIDGES, "layers"} & {name.split(".")[1] for name in eval(python(code))}


def test_import_opens_no_connection(python):
    """The hook hears of every socket, whatever opens it: one of its own is the proof."""
    code = """
import sys
heard = []
sys.addaudithook(lambda event, arguments: heard.append(event) if event.startswith("socket.") else None)
import localconv, localconv.layers, localconv.convert, localconv.command_line
print(heard)
import socket
socket.socket().close()
print(heard)
"""
    assert python(code) == "[]\n['socket.__new__']\n"


@pytest.mark.parametrize("bridge", BRIDGES)
@pytest.mark.parametrize(
    "use", ["LocallyConnected1D", "local_conv1d", "__all__", "dir"], ids=["class", "function", "all", "dir"]
)
def test_use_of_an_absent_framework_says_what_to_install(python, bridge, use):
    """sys.modules holds None for a module that cannot be imported."""
    used = f"dir(localconv.{bridge})" if use == "dir" else f"localconv.{bridge}.{use}"
    code = (
        f"import sys, localconv\nsys.modules[{bridge!r}] = None\ntry: {used}\nexcept ImportError as error: print(error)"
    )
    assert f"pip install '{bridge}" in python(code)


@pytest.mark.parametrize("bridge", BRIDGES)
def test_a_bridge_shows_what_is_public(python, bridge):
    """To dir, and so to completion: not the modules inside."""
    if find_spec(bridge) is None:
        pytest.skip(f"needs {bridge}, which is not installed")
    code = f"import localconv.{bridge} as m; print({{*dir(m)}} ^ {{*m.__all__}}, all(hasattr(m, n) for n in dir(m)))"
    assert python(code) == "set() True\n"


def test_a_bridge_becomes_its_package(python):
    """A package in place of localconv.torch, so that the test needs no library."""
    code = """
import sys, types, localconv
early = localconv.torch
package = types.ModuleType("localconv.torch")
package.__all__, package.answer = ["answer"], 42
sys.modules["localconv.torch"] = package
print(early.answer, dir(early) == dir(package), early.__all__)
early.answer = 43
print(package.answer, early)
del early.answer
print(hasattr(package, "answer"), hasattr(early, "answer"), hasattr(early, "_private"))
"""
    assert python(code).splitlines() == [
        "42 True ['answer']",
        "43 <module 'localconv.torch', imported when it is first used>",
        "False False False",
    ]


@pytest.mark.parametrize("function", [copy.copy, pickle.dumps])
def test_the_package_itself_is_no_copy(function):
    """As of every module."""
    with pytest.raises(TypeError, match="cannot pickle 'module' object"):
        function(localconv)


def missing(module, name):
    """What the error says of a name that a module has not."""
    assert not hasattr(module, name)
    with pytest.raises(AttributeError) as caught:
        getattr(module, name)
    assert caught.value.name == name
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["cupy", "__wrapped__", "_private"])
def test_unknown_names(name):
    assert missing(localconv, name) == f"module 'localconv' has no attribute {name!r}"


@pytest.mark.parametrize(
    ("module", "name", "place"),
    [
        (localconv, "LocallyConnected2D", "localconv.layers.LocallyConnected2D"),
        (localconv, "load_model", "localconv.layers.load_model"),
        (localconv, "conv2d_input", "localconv.grad.conv2d_input"),
        (localconv, "convert_bias", "localconv.convert.convert_bias"),
        (localconv, "Local_Conv2d", "localconv.local_conv2d"),
        (localconv.layers, "local_conv2d", "localconv.local_conv2d"),
        (localconv.layers, "locallyconnected2d", "localconv.layers.LocallyConnected2D"),
        (localconv.grad, "conv2d", "localconv.conv2d"),
        (localconv.grad, "conv2d_weight", "localconv.grad.conv2d_kernel"),
    ],
)
def test_names_that_are_elsewhere(module, name, place):
    assert missing(module, name).endswith(f"has no attribute {name!r}: it is {place}")


@pytest.mark.parametrize("name", ["BatchNormalization", "Model", "LSTM"])
def test_layers_that_only_keras_has(name):
    said = missing(localconv.layers, name)
    assert said.startswith(f"module 'localconv.layers' has no attribute {name!r}: ")
    assert "localconv.keras" in said


def test_nothing_is_searched_for_before_the_message_is_read(python):
    code = """
import sys, localconv
from localconv import bridges
print(hasattr(localconv, "LocallyConnected2D"), "localconv.layers" in sys.modules)
"""
    assert python(code) == "False False\n"
