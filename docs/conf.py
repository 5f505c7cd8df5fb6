"""Configuration of the documentation: `make docs`."""

import json
import sys
from pathlib import Path

from sphinx import addnodes
from sphinx.ext.autodoc.mock import mock

sys.path.insert(0, str(Path(__file__).parent))

import pictures  # beside this file
from localconv import __version__

project = "localconv"
author = "The localconv developers"
copyright = "The localconv developers"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_copybutton",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
default_role = "py:obj"  # single backticks in docstrings are names
numpydoc_show_class_members = False
autodoc_typehints = "none"
autosummary_ignore_module_all = False
maximum_signature_line_length = 400  # flows over two or three lines, not one for each argument
toc_object_entries_show_parents = "hide"
templates_path = ["_templates"]
exclude_patterns = ["build", "_templates"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = "localconv"
html_static_path = ["_static"]
html_css_files = ["site.css"]
autosummary_filename_map = {"localconv.layers.conv1d": "localconv.layers.conv1d_function"}
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": True,
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 8,
    # Not on a function's page, which has nothing to list and the longest lines.
    "secondary_sidebar_items": {
        "*": ["page-toc"],
        "api/*": ["page-toc"],
        "api/generated/*.[A-Z]*": ["page-toc"],
    },
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": []}  # the front page has no section
html_context = {"default_mode": "auto"}

# The bridges' interfaces are described without their libraries, each of which is larger than all else here. What runs
# at import inside them, and needs more of a library than a name, is left out too.
MOCKED = ["torch", "keras", "jax", "tensorflow", "dask", "distributed"]
INSIDES = [
    "localconv.torch.autograd",
    "localconv.torch.flops",
    "localconv.torch.operators",
    "localconv.torch.private",
    "localconv.torch.runtime",
    "localconv.jax.primitives",
]


def import_bridges():
    """Import them on imitations of their libraries; autodoc finds them imported."""
    with mock([*MOCKED, *INSIDES]):
        import dask.array
        import jax
        import keras.layers
        import keras.saving
        import torch.nn
        import torch.nn.modules.lazy

        torch.Tensor = type("Tensor", (), {"__module__": "torch"})
        torch.nn.Module = type("Module", (), {"__module__": "torch.nn"})
        torch.nn.modules.lazy.LazyModuleMixin = type("LazyModuleMixin", (), {})
        jax.Array = type("Array", (), {"__module__": "jax"})
        dask.array.Array = type("Array", (), {"__module__": "dask.array"})
        keras.__version__ = "3.15"
        keras.layers.Layer = type("Layer", (), {"__module__": "keras.layers"})
        keras.saving.register_keras_serializable = lambda **_: lambda layer: layer
        import localconv.dask
        import localconv.jax
        import localconv.keras
        import localconv.torch  # noqa: F401


SEARCHED = json.loads((Path(__file__).parent / "searched.json").read_text(encoding="utf-8"))


def enter_into_index(app, doctree):
    """Give a page its words of searched.json as main entries of the index, which the search puts before all else:
    the names of functions and classes would fill the first results.
    """
    words = [word for word, page in SEARCHED.items() if page == app.env.docname]
    # No place in the page: its beginning.
    doctree.insert(
        0, addnodes.index(entries=[("single", word, "", "main", None) for word in words])
    )


def setup(app):
    app.connect("doctree-read", enter_into_index)


import_bridges()
pictures.draw_all(Path(__file__).parent / "build")
