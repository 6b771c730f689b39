"""Sphinx's configuration."""

import flask_globalstate

project = "flask_globalstate"
release = version = flask_globalstate.__version__
copyright = "the authors of flask_globalstate"
extensions = ["sphinx.ext.autodoc", "pallets_sphinx_themes", "myst_parser"]
exclude_patterns = ["_build"]
html_theme = "flask"
html_title = f"flask_globalstate {version}"
html_show_sourcelink = False
# The docstrings say `SharedDict` for what is documented, and ``True`` for code.
default_role = "py:obj"
rst_prolog = ".. currentmodule:: flask_globalstate"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
# A signature that is longer has each parameter on a line of its own.
python_maximum_signature_line_length = 100
