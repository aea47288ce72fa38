"""What the documents name exists: links, headings, files, commands with their options, configuration keys."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "datasets/README.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
KEY = re.compile(r"\b((?:MODEL|INPUT|DATASETS|DATALOADER|SOLVER|TEST)(?:\.[A-Z][A-Z0-9_]*)+)(\*?)")
PACKAGES = REPOSITORY / "projects" / "EventfulViTDet"

of_every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))


def prose(text: str) -> str:
    """A page without its blocks of code, whose `#` begin no headings and whose brackets no links."""
    return re.sub(r"^    .*$", "", FENCED.sub("", text), flags=re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        copies = sum(1 for other in found if re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", other))
        found.add(f"{anchor}-{copies}" if copies else anchor)
    return found


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in LINK.findall(re.sub(r"`[^`]*`", "", prose(page.read_text(encoding="utf-8")))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    return broken


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command line in a page's blocks of code."""
    fenced = [code for language, code in FENCED.findall(text) if language in ("", "bash", "sh")]
    indented = re.findall(r"(?:^ {4}.*\n)+", FENCED.sub("", text), re.MULTILINE)
    for block in [*fenced, *(textwrap.dedent(code) for code in indented)]:
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"(\w+=\S+ )*(python|make|torchrun|srun|eventful-vitdet) ", line):
                yield shlex.split(line, comments=True)


def source_of(script: str) -> str:
    """The text of a script and what it imports from its folder, of the command that it opens, and of the options that
    all commands have."""
    text = (REPOSITORY / script).read_text(encoding="utf-8")
    for module in re.findall(r"^from (\w+) import", text, re.MULTILINE):
        beside = (REPOSITORY / script).with_name(f"{module}.py")
        text += beside.read_text(encoding="utf-8") if beside.exists() else ""
    for command in re.findall(r'Door\("(\w+)"\)', text):
        text += (PACKAGES / "eventful_vitdet" / "cli" / f"{command}.py").read_text(encoding="utf-8")
    return text + (PACKAGES / "eventful_vitdet" / "cli" / "arguments.py").read_text(encoding="utf-8")


def every_command() -> str:
    """The text of all commands."""
    folder = PACKAGES / "eventful_vitdet" / "cli"
    return "".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py")))


def test_links_and_anchors_are_understood(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A *b* `c`: d\n\n[1](#a-b-c-d) [2](#e) [3](other.md)\n\n    [4](code.md)\n\n# E\n# E\n[5](#e-1)\n"
    )
    assert broken_links(page) == ["other.md"]
    page.write_text("# A\n[1](#b) [2](https://nowhere.invalid/) ![3](images/none.png) `[4](code.md)`\n")
    assert broken_links(page) == ["#b", "images/none.png"]


@of_every_page
def test_links_lead_somewhere(page):
    assert broken_links(page) == []


@of_every_page
def test_commands_have_their_scripts_and_options(page):
    targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for words in commands(page.read_text(encoding="utf-8")):
        script = next((word for word in words if word.endswith(".py") and word.split("/")[0] != "tests"), None)
        if words[0] == "make":
            assert words[1] in targets, words
        elif script is not None or words[0] == "eventful-vitdet":
            given = words[words.index(script or words[0]) :]
            source = source_of(script) if script else every_command()
            for option in [word for word in given if re.match(r"--[a-z]", word)]:
                assert f'"{option}"' in source, f"{given[0]} has no option {option}"


@of_every_page
def test_files_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"(?<![\w/.])(?:tools|configs|tests|examples)/[\w/*.-]*\w", text):
        assert any(REPOSITORY.glob(f"{path}*")), path
    for path in re.findall(r"(?<![\w/])weights/\w+\.safetensors", text):
        assert (REPOSITORY / path).exists(), path
    ours = {path.name for path in REPOSITORY.rglob("*.py") if ".venv" not in path.parts}
    for name in re.findall(r"\b(\w+\.py)\b", text):
        assert name in ours, f"{name} is no file of this project"


@of_every_page
def test_keys_exist(page, all_keys):
    text = page.read_text(encoding="utf-8")
    for key, star in KEY.findall(text):
        assert key in all_keys or (star and any(name.startswith(key) for name in all_keys)), key


@pytest.fixture(scope="module")
def all_keys() -> set[str]:
    from detectron2.config import get_cfg
    from eventful_vitdet import add_eventful_vitdet_config

    cfg = get_cfg()
    add_eventful_vitdet_config(cfg)

    def names(node: dict, prefix: str) -> Iterator[str]:
        for name, value in node.items():
            yield prefix + name
            if isinstance(value, dict):
                yield from names(value, f"{prefix}{name}.")

    return set(names(cfg, ""))


@of_every_page
def test_python_is_python(page):
    for language, code in FENCED.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            ast.parse(code)


def test_the_design_names_every_folder():
    """Of the packages, and of the repository."""
    text = (REPOSITORY / "docs" / "design.md").read_text(encoding="utf-8")
    packages = [PACKAGES / "eventful_vit", PACKAGES / "eventful_vitdet"]
    folders = [path.parent.name for package in packages for path in package.rglob("*.py") if path.parent != package]
    top = ["configs", "datasets", "docs", "examples", "tests", "tools", "weights"]
    assert [name for name in sorted({*folders, *top}) if f"{name}/" not in text] == []


def test_the_readme_leads_to_every_page():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    linked = {link.partition("#")[0] for link in LINK.findall(text)}
    assert {str(page.relative_to(REPOSITORY)) for page in PAGES} - {"README.md"} <= linked
