"""Sphinx configuration; warnings are errors in .ci/run."""

import sampleweights

project = "sampleweights"
author = "The sampleweights authors"
copyright = author
release = version = sampleweights.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "sampleweights"
autodoc_typehints = "none"  # the signature shows them
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Shape"]
myst_heading_anchors = 3
