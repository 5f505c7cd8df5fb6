"""Configuration of the documentation: `make docs`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pictures  # beside this file

from localconv import __version__

project = "localconv"
author = "The localconv developers"
copyright = "The localconv developers"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
default_role = "py:obj"  # single backticks in docstrings are names
numpydoc_show_class_members = False
autodoc_typehints = "none"
exclude_patterns = ["build"]

html_theme = "pydata_sphinx_theme"
html_title = "localconv"
html_theme_options = {"navigation_with_keys": False, "show_prev_next": False, "navbar_end": ["theme-switcher"]}
html_show_sourcelink = False

pictures.draw_all(Path(__file__).parent / "build")
