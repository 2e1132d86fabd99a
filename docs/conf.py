"""Sphinx: `sphinx-build -W docs site`. generate.py writes the pages that come from the package; all others are Markdown."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

import generate  # noqa: E402

from labelgen import __version__  # noqa: E402

project = "labelgen"
copyright = "the labelgen authors, Apache-2.0"  # noqa: A001
release = __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["ref.python"]  # two modules may use one name

html_theme = "furo"
html_title = f"labelgen {release}"
html_show_sphinx = False
html_copy_source = False

generate.write(DOCS / "generated")


def _links(app, docname, content):
    if not docname.startswith("generated/"):
        content[0] = generate.on_the_site(content[0], DOCS / f"{docname}.md", f"{docname}.md")


def setup(app):
    app.connect("source-read", _links)
