"""The documentation as a site: every page has its place, and the strict build leads nowhere wrong."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest


class Links(HTMLParser):
    """What a page of the site leads to, and the places in it that can be led to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.places: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value and not re.match(r"[a-z]+:|//", value):
                self.targets.append(unquote(value))
            elif name == "id" and value:
                self.places.add(value)


def settings(repository: Path) -> dict[str, object]:
    """The plain values of docs/conf.py."""
    tree = ast.parse((repository / "docs" / "conf.py").read_text(encoding="utf-8"))
    values = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            try:
                values[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue  # computed
    return values


def test_every_page_has_its_place_in_the_navigation(repository):
    """A new page belongs into NAVIGATION of docs/conf.py; the strict build refuses it otherwise."""
    known = settings(repository)
    pages = {path.relative_to(repository) for pattern in known["include_patterns"] for path in repository.glob(pattern)}
    names = [name for part in known["NAVIGATION"].values() for name in part]
    shown = [Path(known["ELSEWHERE"].get(name, f"docs/{name}") + ".md") for name in names]
    assert sorted(shown) == sorted(pages - {Path("README.md")})


def test_the_python_reference_has_every_public_name(repository):
    import eventful_vit
    import eventful_vitdet
    import eventful_vitdet.video

    text = (repository / "docs" / "api.md").read_text(encoding="utf-8")
    shown = {name.rpartition(".")[2] for name in re.findall(r"^\.\. auto\w+:: (\S+)$", text, re.MULTILINE)}
    assert {*eventful_vit.__all__, *eventful_vitdet.__all__} <= shown


@pytest.mark.long  # seven seconds
def test_the_site_is_built_without_a_warning_and_all_its_links_lead_somewhere(tmp_path, repository):
    for package in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(package, reason=f"{package} is not installed (extra 'docs')")
    site = tmp_path / "site"
    strict = ["--fail-on-warning", "--keep-going", "--quiet"]
    folders = ["-c", "docs", "-d", str(tmp_path / "trees"), ".", str(site)]
    command = [sys.executable, "-m", "sphinx", "-b", "html", *strict, *folders]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    pages = {path: Links(path) for path in site.rglob("*.html")}
    assert {"index.html", "docs/api.html", "datasets/README.html"} <= {str(path.relative_to(site)) for path in pages}
    broken = []
    for page, links in pages.items():
        for target in links.targets:
            path, _, place = target.partition("#")
            led = (page.parent / path.partition("?")[0]).resolve() if path else page
            if not led.is_file() or (place and led in pages and place not in pages[led].places):
                broken.append(f"{page.relative_to(site)}: {target}")
    assert broken == []
