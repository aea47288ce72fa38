"""Every number that the README claims is in docs/claims.md, with a command, a machine, a commit and a date."""

from __future__ import annotations

import re

import pytest
from eventful_vitdet.claims import CODE, TOP, Claim, check_claims, compare, find_claims, read_ledger
from eventful_vitdet.cli import check_claims_command

PAGE = """
Saves half of it, in 2.46 s, 4.9 x faster on Python 3.9 with `r = 0.5` ([here](https://host.invalid/7.5)).

## Install

    make demo     # twelve tables; under a minute

```python
ratio = 0.75  # three quarters
```

1,234 MB, 2-3 ms of 4096 tokens at 1024 px; ViTDet-B, AP50 16.7, to 1e-4, 10^9 of COCO's 80 classes; License 2.0, 2023.
"""


def test_what_is_a_claim():
    found = [(claim.section, claim.text) for claim in find_claims(PAGE)]
    assert found == [
        ("top", "half"),
        ("top", "2.46 s"),
        ("top", "4.9 x"),
        ("Install", "under a minute"),
        ("Install", "three quarters"),
        ("Install", "1,234 MB"),
        ("Install", "3 ms"),
        ("Install", "16.7"),
        ("Install", "1e-4"),
    ]


def test_claims_and_entries_belong_to_each_other():
    header = "| claims | a | b | c | d | e |\n| --- | - | - | - | - | - |"
    rows = read_ledger(f"## README: top\n\n{header}\n| 2 s; 3 s | w | x | y | z | d |\n")
    assert rows[0].claims == ("2 s", "3 s") and (rows[0].machine, rows[0].date) == ("y", "d")
    assert compare([Claim("top", "2 s"), Claim("top", "3 s")], rows) == []
    missing, stale = compare([Claim("top", "2 s"), Claim("Train", "3 s")], rows)
    assert missing == "README.md, Train: '3 s' is in no row of docs/claims.md"
    assert stale == "docs/claims.md, README: top: '3 s' is not in the README any more"


def test_the_ledger_has_every_claim_of_the_readme(repository):
    """If this fails, give the number a row in docs/claims.md, or take it out of the README."""
    assert check_claims(repository) == []


def test_every_entry_says_where_it_is_from(repository):
    rows = read_ledger((repository / "docs" / "claims.md").read_text(encoding="utf-8"))
    assert len(rows) > 10
    for row in rows:
        assert all((row.what, row.command, row.machine, row.commit, row.date)), row
        assert re.fullmatch(r"\d{4}-\d\d-\d\d|-|not recorded", row.date), row


def tables_by_heading(text: str) -> dict[str, int]:
    """How many tables stand below each heading of a page."""
    counts: dict[str, int] = {}
    heading = TOP
    for line in CODE.sub("", text).splitlines():
        if match := re.match(r"#+ (.*)", line):
            heading = match[1]
        elif re.match(r"\|[ :|-]*-[ :|-]*\|$", line):
            counts[heading] = counts.get(heading, 0) + 1
    return counts


@pytest.mark.parametrize("page", ["results.md", "performance.md"])
def test_every_table_is_listed_below_its_heading(repository, page):
    tables = tables_by_heading((repository / "docs" / page).read_text(encoding="utf-8"))
    listed: dict[str, set[int]] = {}
    ledger = (repository / "docs" / "claims.md").read_text(encoding="utf-8")
    for heading, cell in re.findall(rf"^\| \[{page}: ([^\]]*)\]\([^)]*\) \| ([^|]*) \|", ledger, re.MULTILINE):
        numbers = re.sub(r"\([^)]*\)|[;:].*", "", cell)
        listed.setdefault(heading, set()).update(map(int, re.findall(r"\d+", numbers)))
    assert listed == {heading: set(range(1, count + 1)) for heading, count in tables.items()}


def test_the_command_says_what_is_missing(tmp_path, monkeypatch, capsys):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("It takes 7 ms.\n")
    (tmp_path / "docs" / "claims.md").write_text("# Ledger\n")
    monkeypatch.setattr(check_claims_command, "CHECKOUT", tmp_path)
    monkeypatch.setattr("eventful_vitdet.cli.checkout.CHECKOUT", tmp_path)
    assert check_claims_command.main([]) == 1
    shown = capsys.readouterr()
    assert "README.md: 1 claims, 1 faults" in shown.out
    assert "'7 ms' is in no row of docs/claims.md" in shown.err


@pytest.mark.long  # half a minute
def test_what_is_quick_to_measure_is_as_claimed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert check_claims_command.main(["--rerun"]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.count(": no differences") == 3
