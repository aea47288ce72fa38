"""Numbers that the README claims, and the ledger (docs/claims.md) that says where each comes from.

A claim is a number that somebody measured: one with a unit of time, memory, computation or accuracy, one with digits
after the point, or a share in words ("three quarters"). Versions, sizes of inputs, numbers of tokens, option values and
code without its comments are none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CODE = re.compile(r"^```[\s\S]*?^```$|^ {4}.*$|`[^`\n]*`", re.MULTILINE)
COMMENT = re.compile(r" # (.*)$", re.MULTILINE)
ADDRESS = re.compile(r"\]\([^)\s]*\)|https?://\S+")
VERSION = re.compile(r"\b(?:Python|PyTorch|NumPy|OpenCV|torch|Triton|Detectron2|License|CUDA|CC BY(?:-\w+)*) \d[\d.]*")
UNIT = r"ms|(?:milli|micro)?seconds?|s|minutes?|hours?|fps|[KMGT]i?B|GFlops|GMACs|[GT]FLOP/s|%|x|times"
NUMBER = re.compile(
    rf"(?<![\w.^])(?<![A-Za-z]-)(?:\d[\d,]*(?:\.\d+)? ?(?:{UNIT})(?![\w/])"  # with a unit
    r"|\d+\.\d+(?!\w|\.\d)"  # with digits after the point
    r"|\d+e-?\d+)"  # 1e-4
)
SHARE = re.compile(
    r"\b(?:half|(?:a|one|two|three|four) (?:third|quarter|fifth|sixth|eighth|tenth|twentieth)s?|under a minute)\b",
    re.IGNORECASE,
)
TOP = "top"
"""What stands before the first heading of the second level."""


@dataclass(frozen=True)
class Claim:
    """A number of the README."""

    section: str
    text: str
    """As it is written, with its unit: "4.9 x", "half"."""


@dataclass(frozen=True)
class Row:
    """An entry of the ledger."""

    section: str
    claims: tuple[str, ...]
    what: str
    command: str
    machine: str
    commit: str
    date: str


def find_claims(text: str) -> list[Claim]:
    """The claims of a page in Markdown, in order, each once per section."""
    found: dict[Claim, None] = {}
    for section, body in _sections(text):
        prose = CODE.sub(lambda code: "\n".join(COMMENT.findall(code[0])), body)
        plain = VERSION.sub("", ADDRESS.sub("]", prose))
        plain = re.sub(r"\s+", " ", plain)
        matches = sorted([*NUMBER.finditer(plain), *SHARE.finditer(plain)], key=lambda match: match.start())
        found.update((Claim(section, match[0]), None) for match in matches)
    return list(found)


def read_ledger(text: str) -> list[Row]:
    """The rows of the ledger's tables about the README, one table below each heading "README: SECTION"."""
    rows = []
    for section, body in _sections(text):
        if not section.startswith("README: "):
            continue
        for cells in table_rows(body):
            if len(cells) != 6:
                raise ValueError(f"{section}: a row has six cells, found {len(cells)}: {' | '.join(cells)}")
            claims = tuple(claim.strip() for claim in cells[0].split(";"))
            rows.append(Row(section.removeprefix("README: "), claims, *cells[1:]))
    return rows


def compare(claims: Sequence[Claim], rows: Sequence[Row]) -> list[str]:
    """What is wrong: claims without an entry, and entries whose claim is gone. One line each."""
    listed = {Claim(row.section, text) for row in rows for text in row.claims}
    faults = [f"README.md, {c.section}: {c.text!r} is in no row of docs/claims.md" for c in claims if c not in listed]
    stale = sorted(listed - set(claims), key=lambda claim: (claim.section, claim.text))
    return faults + [f"docs/claims.md, README: {c.section}: {c.text!r} is not in the README any more" for c in stale]


def table_rows(text: str) -> Iterator[list[str]]:
    """The cells of all rows of the tables in a text, without their headers."""
    lines = text.splitlines()
    for before, line in zip(lines, lines[1:]):
        is_body = line.startswith("|") and before.startswith("|") and not re.match(r"\|[ :|-]+\|$", line)
        if is_body:
            yield [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def section_of(text: str, name: str) -> str:
    """What stands below a heading of the second level."""
    return dict(_sections(text))[name]


def check_claims(repository: Path) -> list[str]:
    """What is wrong with the README's claims and the ledger of a checkout. One line each."""
    readme = (repository / "README.md").read_text(encoding="utf-8")
    ledger = (repository / "docs" / "claims.md").read_text(encoding="utf-8")
    return compare(find_claims(readme), read_ledger(ledger))


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Headings of the second level with what stands below them; code is no heading."""
    name, lines, in_code = TOP, [], False
    for line in text.splitlines():
        in_code ^= line.startswith("```")
        if line.startswith("## ") and not in_code:
            yield name, "\n".join(lines)
            name, lines = line[3:].strip(), []
        else:
            lines.append(line)
    yield name, "\n".join(lines)
