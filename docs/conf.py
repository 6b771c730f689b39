"""Sphinx's configuration."""

import flask_globalstate

project = "flask_globalstate"
release = version = flask_globalstate.__version__
copyright = "the authors of flask_globalstate"
extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {
    "description": "Module-level globals that are right in every worker",
    "page_width": "1200px",
    "sidebar_width": "260px",
}
html_show_sourcelink = False
# The docstrings say `SharedDict` for what is documented, and ``True`` for code.
default_role = "py:obj"
rst_prolog = ".. currentmodule:: flask_globalstate"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
# A signature that is longer has each parameter on a line of its own.
python_maximum_signature_line_length = 100
