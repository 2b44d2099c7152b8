"""Sphinx configuration. Pages are built offline and read offline: formulas are MathML, nothing is fetched."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

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
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "matplotlib.sphinxext.plot_directive",
    "mathml",
]
exclude_patterns = [
    "_build",
    "tutorials/GALLERY_HEADER.rst",
    "sg_execution_times.rst",
    "tutorials/sg_execution_times.rst",
]
templates_path = ["_templates"]
nitpick_ignore_regex = [(r"py:.*", r"(torch|sklearn|huggingface_hub|xarray|numpy|matplotlib)\..*|map")]  # not ours
suppress_warnings = ["config.cache"]  # the gallery's settings hold what cannot be pickled, and are the same each time

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say more of a type than its annotation does: dims, units, range
numpydoc_show_class_members = False
python_maximum_signature_line_length = 88

doctest_default_flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE  # and so the texts of errors count
doctest_test_doctest_blocks = ""  # docstrings are tested by `make test`; here only the pages' own blocks are
doctest_global_setup = "import matplotlib\nmatplotlib.use('agg')"

plot_formats = [("png", 144)]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_rcparams = {"figure.constrained_layout.use": True}
plot_apply_rcparams = True

sphinx_gallery_conf = {
    "examples_dirs": "../tutorials",
    "gallery_dirs": "tutorials",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"^(?!plot_)",
    "image_srcset": ["2x"],
    "nested_sections": False,
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "backreferences_dir": "api/tutorials",
    "doc_module": ("depthflow",),
    "reference_url": {"depthflow": None},
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = "depthflow"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5394", "color-brand-content": "#0b5394"},
    "dark_css_variables": {"color-brand-primary": "#7fb8ee", "color-brand-content": "#7fb8ee"},
}
