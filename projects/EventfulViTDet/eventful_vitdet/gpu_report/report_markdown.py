"""The report as markdown: every part and every goal has its row, measured or with the reason why it was not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..markdown_table import format_table
from .goals import goal_rows
from .part_list import PARTS

NOT_RUN = "not run"


def format_report(report: dict) -> str:
    """The whole report."""
    machine = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    text = [f"# GPU report\n\n{machine}.", _parts(report)]
    for name, format_part in _FORMATS.items():
        outcome = report["parts"].get(name)
        body = format_part((outcome or {}).get("result", {}), _reason(outcome))
        text.append(f"## {name}\n\n{body}")
    return "\n\n".join(text) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table of values of any kind."""
    return format_table(header, [[_cell(value) for value in row] for row in rows])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("\n", " ")


def _reason(outcome: dict | None) -> str:
    return NOT_RUN if outcome is None else outcome["reason"] or ""


def _parts(report: dict) -> str:
    rows = []
    for part in PARTS:
        outcome = report["parts"].get(part.name)
        seconds = None if outcome is None else round(outcome["seconds"])
        passed = (outcome or {}).get("result", {}).get("ok")
        status = NOT_RUN if outcome is None else outcome["status"]
        rows.append(
            (part.name, status, "all" if passed else "-" if passed is None else "NO", seconds, _reason(outcome))
        )
    return table(("part", "status", "passed", "s", "reason"), rows)


def _operators(result: dict, reason: str) -> str:
    rows = [(r["operator"], r["type"], r["cases"], r["failures"], r["error"], r["bound"], r["worst"])
            for r in result.get("rows", ())]  # fmt: skip
    header = ("operator", "type", "cases", "failures", "largest error", "bound", "its case")
    failures = [f"- {f['operator']}, {f['type']}, {f['case']}: error {f['error']}" for f in result.get("failures", ())]
    return "\n".join([table(header, rows) if rows else _missing(reason), "", *failures]).rstrip()


def _models(result: dict, reason: str) -> str:
    if not result:
        return _missing(reason)
    rows = [(r["model"], r["what"], r["error"], r["bound"], r.get("same_choice"), r["ok"]) for r in result["rows"]]
    waits = [(r["model"], r["ok"], r["reason"]) for r in result["synchronisation"]]
    found = [
        (r["detector"], r.get("agreement"), r.get("detections"), r["ok"], r["reason"]) for r in result["detections"]
    ]
    tables = [
        table(("model", "frames", "error against the CPU", "bound", "same choice", "passed"), rows),
        table(("later frames in which no wait is allowed", "passed", "reason"), waits),
        table(("detections of the CPU found again", "share", "detections", "passed", "reason"), found),
    ]
    return "\n\n".join(tables)


def _tables(result: dict, reason: str) -> str:
    parts = [
        _goals(result.get("goals") or goal_rows({}, reason or NOT_RUN)),
        *_times(result.get("rows", ())),
        *_products(result.get("products", ())),
        *(_crossover(name, found) for name, found in result.get("crossover", {}).items()),
        *_launches(result.get("launches", ())),
        *(f"- {e['name']}: {e['error']}" for e in result.get("errors", ())),
    ]
    return "\n\n".join(parts)


def _goals(goals: Sequence[dict]) -> str:
    rows = [(g["name"], g["goal"], g["measured"], g["unit"], g["met"],
             "" if g["reason"] is None else f"not measured: {g['reason']}") for g in goals]  # fmt: skip
    return table(("goal", "bound", "measured", "unit", "met", "remark"), rows)


def _times(rows: Sequence[dict]) -> Iterator[str]:
    columns = {
        "setting": "setting", "size": "px", "type": "type", "variant": "variant", "ms": "ms",
        "dense_over_this": "dense / this", "in_a_row_ms": "in a row", "host_ms": "host ms", "gmacs": "GMACs",
        "tflops": "TFLOP/s", "state_gb": "state GB per stream", "frames": "frames", "error": "error",
    }  # fmt: skip
    if rows:
        yield table(list(columns.values()), [[row[key] for key in columns] for row in rows])


def _products(products: Sequence[dict]) -> Iterator[str]:
    rows = [("x".join(map(str, p["shape"])), p["type"], p["tflops"]) for p in products]
    if rows:
        yield table(("matrix product", "type", "TFLOP/s"), rows)


def _crossover(name: str, found: dict) -> str:
    """From which budget on frames had better be computed in full, and how to say so, where it is not said yet."""
    times = ", ".join(f"r = {r}: {ms:.2f}" for r, ms in found["ms"].items())
    where = f"from r = {found['r']} on" if found["r"] is not None else "at no budget tried"
    text = (f"{name}: an eventful frame is no faster than one computed in full ({_cell(found['full_ms'])} ms; dense: "
            f"{_cell(found['dense_ms'])} ms) {where} ({times} ms).")  # fmt: skip
    if found["share"] is None or round(found["share"], 2) == found["now"]:
        return text
    return (
        f"{text} The default is another crossover, {found['now']}; for frames of this size, put into the configuration "
        f"(docs/gpu.md, Large budgets):\n\n    MODEL: {{EVENTFUL: {{GPU_CROSSOVER: {found['share']:.2f}}}}}"
    )


def _launches(rows: Sequence[dict]) -> Iterator[str]:
    columns = {
        "setting": "setting", "variant": "variant", "starts": "host starts", "waits": "host waits",
        "kernels": "GPU kernels", "span_us": "span us", "idle_us": "idle us",
    }  # fmt: skip
    if rows:
        yield table(list(columns.values()), [[row[key] for key in columns] for row in rows])
    yield from (_busiest(row) for row in rows if row.get("busiest"))


def _busiest(row: dict) -> str:
    rows = [(k["kernel"], k["grid"], k["count"], k["us"]) for k in row["busiest"]]
    title = f"Where the GPU's time goes, {row['setting']}, {row['variant']}:"
    return f"{title}\n\n{table(('kernel', 'grid', 'times', 'us in all'), rows)}"


def _tune(result: dict, reason: str) -> str:
    if not result.get("branches"):
        return _missing(reason)
    rows = []
    for branch in result["branches"]:
        name = f"{branch['function']}: {branch['condition'] or 'otherwise'}"
        failed = sum(entry["error"] is not None for entry in branch["tried"])
        times = ", ".join(f"{ms:.4f}" for ms in branch["present_ms"])
        rows.append((name, "; ".join(branch["works"]), times, len(branch["tried"]), failed, branch["gain"]))
    text = table(("branch", "work", "present ms", "tried", "failed", "gain"), rows)
    if result.get("table"):
        text += f"\n\nThe fastest tiles, for `ops/gpu/tuning.py`:\n\n```python\n{result['table']}```"
    if result.get("products"):
        keys = ("layer", "library", "kernel", "chosen")
        rows = [[row[key] for key in keys] for row in result["products"]]
        text += "\n\n" + table(("linear layer", "library ms", "kernel ms", "computed by"), rows)
    return text


def _compiled(result: dict, reason: str) -> str:
    if not result.get("rows"):
        return _missing(reason)
    rows = [(r["variant"], r["ms"], r["host_ms"], r["error"]) for r in result["rows"]]
    title = f"{result['size']} px, {result['type']}; compiling took {result['compile_seconds']:.0f} s."
    return f"{title}\n\n{table(('variant', 'ms', 'host ms', 'error'), rows)}"


def _suite(result: dict, reason: str) -> str:
    if not result.get("counts"):
        return "\n".join([_missing(reason), *result.get("failures", ())])
    counts = ", ".join(f"{number} {word}" for word, number in result["counts"].items())
    left_out = [f"- tests of a detector are left out: {result['left_out']}"] if result.get("left_out") else []
    return "\n".join([counts, *(f"- {line}" for line in result["failures"]), *left_out])


def _missing(reason: str) -> str:
    return f"Not measured: {reason or 'no result'}."


_FORMATS = {
    "operators": _operators,
    "model": _models,
    "tables": _tables,
    "tune": _tune,
    "compiled": _compiled,
    "suite": _suite,
}


def format_paper(rows: Sequence[dict], title: str) -> str:
    """The table of `--only paper`."""
    lines = [
        (r["operator"], r["kernels"], r["others"], *(round(r[key] / 1e6, 1) for key in ("read", "written")))
        for r in rows
    ]
    header = ("operator", "Triton kernels", "other kernels", "MB read", "MB written")
    return f"{title}\n\n" + table(header, [[f"{c:.1f}" if isinstance(c, float) else c for c in row] for row in lines])
