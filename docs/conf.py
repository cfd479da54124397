"""Sphinx: `make docs`."""

import stmoe

project = "stmoe"
author = "the stmoe authors"
copyright = "2026, the stmoe authors"
version = release = stmoe.__version__

extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "stmoe"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
