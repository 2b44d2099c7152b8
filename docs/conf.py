"""Sphinx configuration."""

from __future__ import annotations

import depthflow

project = "depthflow"
author = "the depthflow developers"
copyright = "2026, the depthflow developers"
release = depthflow.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax", "numpydoc"]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
numpydoc_show_class_members = False
autosummary_generate = True
html_theme = "furo"
html_title = "depthflow"
exclude_patterns = ["_build"]
