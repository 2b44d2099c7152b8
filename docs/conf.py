"""Sphinx configuration."""

from __future__ import annotations

import depthflow

project = "depthflow"
author = "the depthflow developers"
copyright = "2026, the depthflow developers"
release = depthflow.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "matplotlib.sphinxext.plot_directive",
]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
numpydoc_show_class_members = False
autosummary_generate = True
html_theme = "furo"
html_title = "depthflow"
exclude_patterns = ["_build"]
