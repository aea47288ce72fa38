"""Write docs/configuration.md: every key that the project adds, its default, and the comment above it in the code.

    python docs/make_configuration.py

It reads the sources and imports nothing of the project. tests/docs/test_configuration.py fails if the page is stale.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PAGE = Path(__file__).with_name("configuration.md")
PACKAGE = PAGE.parents[1] / "projects" / "EventfulViTDet" / "eventful_vitdet"
SOURCES = {
    "add_eventful_vitdet_config": PACKAGE / "config.py",
    "add_data_config": PACKAGE / "data" / "data_config.py",
}
"""The functions that add keys for others to call, and where they are. The first one calls all others."""

HEAD = """\
# Configuration

Every key that this project adds to Detectron2's configuration, or whose default it changes. Set keys in a yaml file
(`--config-file`; `_BASE_` names a file to start from, or a list of them, of which later ones win) or as `KEY VALUE`
pairs at the end of a command; pairs win:

    python tools/train_net.py --config-file FILE --eval-only MODEL.EVENTFUL.R 128 MODEL.DEVICE cpu

Detectron2's own keys keep their names and meaning; its documentation has
[a list of them](https://detectron2.readthedocs.io/en/latest/modules/config.html#yaml-config-references). The embedded
part has those of [defaults.py](../projects/EventfulViTDet/embedded/detectron2/config/defaults.py). A key that does not
exist is an error.

`python docs/make_configuration.py` writes this page from the comments in
[config.py](../projects/EventfulViTDet/eventful_vitdet/config.py) and
[data_config.py](../projects/EventfulViTDet/eventful_vitdet/data/data_config.py).
"""
BY_MACHINE = "depends on the machine"
CODE = re.compile(
    r'"[^"\s]*"|\(\)|\(".*?",\)|\[\[.*\]\]'  # values: "top-r", (), ("a",), [["a", 1]]
    r"|\b[A-Z]+(?:_[A-Z]+)+\b(?:\.[A-Z_]+)*|\b[A-Z]+\.[A-Z_.]*[A-Z]"  # keys: IMG_SIZE, MODEL.VIT, MODEL.MASK_ON
    r"|--[a-z]+"  # options
)
"""What is set as code in a comment."""


@dataclass
class Key:
    """A configuration key. `value` is the source of its default; `meaning` the comment above it."""

    name: str
    value: ast.expr
    meaning: str

    @property
    def default(self) -> str:
        try:
            return f"`{ast.literal_eval(self.value)!r}`".replace("'", '"')
        except ValueError:
            return BY_MACHINE


@dataclass
class Section:
    """Keys of one node, such as MODEL.VIT; `introduction` is the docstring of the function that adds them."""

    introduction: str = ""
    keys: list[Key] = field(default_factory=list)


def read_keys(function: str = "add_eventful_vitdet_config") -> dict[str, Section]:
    """The keys that a function of SOURCES adds, by node, in the order of the sources."""
    sections: dict[str, Section] = {}
    for key, introduction in _keys_of(function, "", *_parsed(SOURCES[function])):
        node = key.name.rpartition(".")[0]
        section = sections.setdefault(node, Section(introduction))
        section.keys.append(key)
    return sections


def render() -> str:
    """The page."""
    parts = [HEAD]
    for node, section in read_keys().items():
        parts.append(f"\n## {node}\n\n")
        if section.introduction:
            parts.append(f"{_with_code(section.introduction)}\n\n")
        parts.append("| key | default | meaning |\n| --- | --- | --- |\n")
        for key in section.keys:
            cells = (f"`{key.name}`", key.default, _with_code(key.meaning))
            parts.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n")
    return "".join(parts)


def _parsed(path: Path) -> tuple[dict[str, ast.FunctionDef], list[str]]:
    text = path.read_text(encoding="utf-8")
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    return {function.name: function for function in functions}, text.splitlines()


def _keys_of(name: str, prefix: str, functions: dict, lines: list[str]) -> Iterator[tuple[Key, str]]:
    """Keys that a function adds to the node `prefix`, its argument, each with the function's introduction."""
    function = functions[name]
    introduction = "" if name in SOURCES else " ".join((ast.get_docstring(function) or "").split())
    nodes = {function.args.args[0].arg: prefix}  # by the names of variables
    for statement in function.body:
        if isinstance(statement, ast.Assign):
            key = _dotted(statement.targets[0], nodes)
            if isinstance(statement.value, ast.Call) and ast.unparse(statement.value.func) == "CfgNode":
                nodes.update({ast.unparse(target): key for target in statement.targets[1:]})
            else:
                yield Key(key, statement.value, _comment_above(statement.lineno, key, lines)), introduction
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            called, argument = ast.unparse(statement.value.func), nodes[ast.unparse(statement.value.args[0])]
            elsewhere = _parsed(SOURCES[called]) if called not in functions else (functions, lines)
            yield from _keys_of(called, argument, *elsewhere)


def _dotted(target: ast.expr, nodes: dict[str, str]) -> str:
    """`vit.DEPTH` as MODEL.VIT.DEPTH."""
    variable, _, rest = ast.unparse(target).partition(".")
    return ".".join(part for part in (nodes[variable], rest) if part)


def _comment_above(number: int, key: str, lines: list[str]) -> str:
    """The comment that ends in the line before line `number` (from 1)."""
    first = number - 1
    while lines[first - 1].strip().startswith("#"):
        first -= 1
    words = " ".join(line.strip().lstrip("#").strip() for line in lines[first : number - 1])
    if not words:
        raise SystemExit(f"{key} has no comment above it that says what it means")
    return words


def _with_code(text: str) -> str:
    return text if "](" in text else CODE.sub(lambda found: f"`{found.group()}`", text)


def main() -> None:
    PAGE.write_text(render(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
