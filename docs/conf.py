"""Settings of Sphinx for the documentation as a site: `make docs`.

The sources are the Markdown files where they are, README.md first, so that their links lead to the same places in a
clone, on a code host and in the site. Links to files that are no page (programs, configurations) become downloads.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "projects" / "EventfulViTDet"))

import eventful_vitdet  # noqa: E402

NAVIGATION = {
    "Use a detector": ["installation", "python", "visualize", "live", "video", "models"],
    "Measure": ["evaluation", "metrics", "report", "results", "performance", "gpu", "claims"],
    "Adapt": ["datasets", "training", "runtime-control", "calibration", "action_recognition", "your-own-vit"],
    "Look up": ["configuration", "api", "design", "contributing", "changelog"],
}
"""Parts of the table of contents, in the order in which a newcomer needs them. A page in none of them is an error."""
ELSEWHERE = {"datasets": "datasets/README", "contributing": "CONTRIBUTING", "changelog": "CHANGELOG"}
"""Pages outside of docs/."""
FRONT_PAGE = "README"

project = "EventfulViTDet"
copyright = "the EventfulViTDet contributors"
release = version = eventful_vitdet.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "datasets/README.md", "docs/*.md"]
exclude_patterns = [".venv", "build", "dist", "output", "datasets/*/**"]
root_doc = FRONT_PAGE

myst_heading_anchors = 6
"""Anchors as code hosts make them, of headings down to this level."""

html_theme = "furo"
html_title = project
html_static_path = ["site"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False

napoleon_numpy_docstring = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
autoclass_content = "both"
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"
default_role = "literal"
pygments_style = "friendly"


def tables_of_contents() -> str:
    """The navigation, as MyST directives."""
    parts = []
    for caption, names in NAVIGATION.items():
        pages = "\n".join(f"/{ELSEWHERE.get(name, f'docs/{name}')}" for name in names)
        parts.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n")
    return "\n".join(parts)


def add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    """Put the navigation behind the front page, whose file has none: a code host would show it as text."""
    if name == FRONT_PAGE:
        source[0] += "\n" + tables_of_contents()


def keep_whole(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Let an attribute's docstring begin with an empty type: napoleon would take the words before a colon for it."""
    if what in ("attribute", "property") and lines:
        lines[0] = f": {lines[0]}"


class SiteBuilder(StandaloneHTMLBuilder):
    """HTML whose front page is index.html."""

    def get_target_uri(self, docname: str, typ: str | None = None) -> str:
        return super().get_target_uri("index" if docname == FRONT_PAGE else docname, typ)

    def get_output_path(self, page_name: str, /) -> Path:
        return super().get_output_path("index" if page_name == FRONT_PAGE else page_name)


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-docstring", keep_whole, priority=100)  # before napoleon
    app.add_builder(SiteBuilder, override=True)
