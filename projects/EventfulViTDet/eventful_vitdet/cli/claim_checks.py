"""Claims of the README that are quick to measure again: each check compares them with what it measures now."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from ..claims import section_of, table_rows
from ..config_files import build_cfg
from ..evaluation import evaluate_budgets
from ..known_models import KNOWN_MODELS
from ..predictor import load_detector
from .checkout import checkout_file, render_demo_videos
from .demo_command import BUDGETS, CONFIG, WEIGHTS

PERCENT_TOLERANCE = 0.2
"""Of AP: another processor rounds differently, which moves single detections."""
GFLOPS_TOLERANCE = 0.001
LARGE_MODEL = "imagenet_vid/vitdet_b_1024_eventful_r512.yaml"


def check_demo_table(readme: str, folder: str) -> Iterator[str]:
    """The table of "What a budget costs", and the shares that the text takes from it."""
    options = ["MODEL.WEIGHTS", str(checkout_file(WEIGHTS)), "OUTPUT_DIR", folder, "MODEL.DEVICE", "cpu"]
    cfg = build_cfg(str(checkout_file(CONFIG)), options)
    render_demo_videos()
    (results,) = evaluate_budgets(cfg, load_detector(cfg), BUDGETS).values()
    rows = list(table_rows(section_of(readme, "What a budget costs")))
    if len(rows) != len(results):
        yield f"the table has {len(rows)} rows; the demo has {len(results)} budgets"
    for result, (budget, *claimed) in zip(results, rows):
        costs = result["gflops_per_frame"]
        measured = [
            result["bbox"]["AP"],
            result["bbox"]["AP50"],
            result.get("agreement", {}).get("VID-AP50"),
            costs["backbone"]["mean"],
            costs["total"]["mean"],
        ]
        tolerances = [PERCENT_TOLERANCE] * 3 + [GFLOPS_TOLERANCE] * 2
        for text, value, tolerance in zip(claimed, measured, tolerances):
            if text != "-" and (value is None or abs(float(text) - value) > tolerance):
                yield f"What a budget costs, {budget}: {text} is claimed, {value} was measured"
    dense, *others = [result["gflops_per_frame"] for result in results]
    saved = 1 - others[0]["backbone"]["mean"] / dense["backbone"]["mean"]
    if not 0.7 <= saved <= 0.8:
        yield f"In tiny models, r = 64: three quarters of the backbone are claimed, {saved:.0%} was measured"
    saved = 1 - others[1]["total"]["mean"] / dense["total"]["mean"]
    if not 0.5 < saved < 0.6:
        yield f"under the moving picture, r = 32: more than half is claimed, {saved:.0%} was measured"


def check_state_memory(readme: str, folder: str) -> Iterator[str]:
    """State of ViTDet-B at 1024 pixels, in float32 and in bfloat16."""
    (claimed,) = re.findall(r"([\d.]+) GB of state", readme)
    gigabytes = {}
    for dtype in ("float32", "bfloat16"):
        options = ["MODEL.DEVICE", "cpu", "MODEL.EVENTFUL.COMPUTE_DTYPE", dtype, "MODEL.EVENTFUL.STATE_DTYPE", dtype]
        gigabytes[dtype] = _state_bytes(build_cfg(LARGE_MODEL, options)) / 1e9
    if abs(float(claimed) - gigabytes["float32"]) > 0.01:
        yield f"Memory: {claimed} GB is claimed, {gigabytes['float32']:.3f} GB was measured"
    if not 0.45 < gigabytes["bfloat16"] / gigabytes["float32"] < 0.55:
        yield f"Memory: half in bfloat16 is claimed, {gigabytes['bfloat16']:.3f} GB was measured"


def _state_bytes(cfg: CfgNode) -> int:
    """Bytes that a configuration's backbone keeps for a stream, after a frame of noise, with random weights."""
    with torch.inference_mode():
        vit = build_model(cfg).eval().vit
        vit(torch.rand(1, 3, 1024, 1024))
    return vit.state.nbytes


def check_published_models(readme: str, folder: str) -> Iterator[str]:
    """The range of box AP of the published models, and the size of the default one's file."""
    for data in ("coco", "lvis"):
        found = [model.box_ap for model in KNOWN_MODELS if model.name.startswith(f"{data}/")]
        wanted = f"box AP {min(found)} to {max(found)}"
        (line,) = re.findall(rf"^\| `configs/{data}/`.*$", readme, re.MULTILINE)
        if wanted not in line:
            yield f"Models: {wanted} is what known_models.py has of {data}; the README says: {line}"
    size = f"({KNOWN_MODELS[0].megabytes} MB)"
    if size not in readme:
        yield f"Your own video: the default model's file has {size}"


CHECKS = {
    "table of the demo": check_demo_table,
    "memory of state": check_state_memory,
    "published models": check_published_models,
}


def measure_again(repository: Path, folder: str) -> Iterator[tuple[str, list[str]]]:
    """Run every check; yields its name and what is wrong, one line each.

    Args:
        folder: for what is written meanwhile.
    """
    readme = (repository / "README.md").read_text(encoding="utf-8")
    for name, check in CHECKS.items():
        yield name, list(check(readme, folder))
