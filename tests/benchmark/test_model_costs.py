"""What models cost by their configuration: the figures of frames that really ran."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model
from eventful_vit import count_operations
from eventful_vitdet.benchmark.model_costs import format_model_costs, model_costs
from eventful_vitdet.cli.model_table_command import main
from eventful_vitdet.config_files import build_cfg
from tiny_detector import make_cfg


def test_vitdet_b_as_it_was_measured():
    """docs/performance.md has 467.4, 44.4, 167.0 and 292.8; not every window had a changed token."""
    costs = model_costs(build_cfg("coco/mask_rcnn_vitdet_b.yaml"), [256, 1024, 2048])
    assert costs.backbone / 1e9 == pytest.approx(467.44, abs=0.01)
    assert 44.4 < costs.later[256] / 1e9 < 60
    assert 167.0 < costs.later[1024] / 1e9 < 167.5
    assert 292.8 < costs.later[2048] / 1e9 < 294
    assert costs.parameters == 110_895_792


@pytest.mark.parametrize("name", ["StandardROIHeads", "CascadeROIHeads"])
def test_parts_of_a_frame_that_runs(repository, name):
    settings = {
        "MODEL.ROI_HEADS.NUM_CLASSES": 2,
        "MODEL.MASK_ON": True,
        "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
        "MODEL.ROI_HEADS.NAME": name,
        "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
        "MODEL.ROI_HEADS.NMS_THRESH_TEST": 1.0,
        "TEST.DETECTIONS_PER_IMAGE": 5,
        "MODEL.EVENTFUL.ENABLED": False,
    }
    cfg = make_cfg(repository, **settings)
    costs, model = model_costs(cfg, []), build_model(cfg).eval()
    with torch.no_grad(), count_operations(model) as counts:
        (output,) = model([{"image": torch.rand(3, 96, 96) * 255}])
    assert len(output["instances"]) == 5
    found = counts.by_category()
    assert costs.backbone == counts.backbone()
    assert costs.parts == {part: found[part] for part in costs.parts}


def test_the_table(capsys):
    assert main(["coco/mask_rcnn_vitdet_b.yaml", "--budgets", "512"]) == 0
    header, _, row = capsys.readouterr().out.strip().splitlines()
    assert "r = 512" in header and "coco/mask_rcnn_vitdet_b " in row and " 110.9 " in row
    assert format_model_costs({}, [1]).startswith("| model")


@pytest.mark.parametrize("words", [[], ["--traceback"]])
def test_a_traceback_on_demand(capsys, words):
    assert main(["no_model", *words]) == 1
    shown = capsys.readouterr().err
    assert shown.endswith("(`eventful-vitdet models` lists them)\n") and ("Traceback" in shown) == bool(words)
