"""LazyConfig files: with the real Detectron2 they make the same models as the yaml files, else they are refused."""

import detectron2
import pytest
import torch
from detectron2.modeling import build_model
from eventful_vitdet.config_files import build_cfg
from eventful_vitdet.errors import ConfigError
from eventful_vitdet.modeling import VideoRCNN
from eventful_vitdet.modeling.lazy_model import lazy_settings

EMBEDDED = "embedded" in detectron2.__version__
real = pytest.mark.skipif(EMBEDDED, reason="LazyConfig is part of the real Detectron2 only")
FILES = ["mask_rcnn_vitdet_b", "cascade_mask_rcnn_vitdet_b"]


@pytest.mark.skipif(not EMBEDDED, reason="the real Detectron2 has LazyConfig")
def test_the_embedded_part_refuses_by_name(repository):
    with pytest.raises(ConfigError, match="mask_rcnn_vitdet_b.py: LazyConfig files need the real Detectron2"):
        lazy_settings(str(repository / "configs/lazy/mask_rcnn_vitdet_b.py"))


@real
@pytest.mark.parametrize("name", FILES)
def test_the_same_model_as_from_yaml(repository, name):
    pytest.importorskip("pkg_resources", reason="Detectron2's model_zoo imports it")
    changes = ["MODEL.DEVICE", "cpu", "MODEL.EVENTFUL.R", 300, "MODEL.EVENTFUL.PYRAMID.ENABLED", True]
    changes += ["MODEL.EVENTFUL.ATTENTION", "tokenwise", "MODEL.EVENTFUL.STATE_DTYPE", "bfloat16"]
    cfg = build_cfg("", [*lazy_settings(str(repository / f"configs/lazy/{name}.py")), *changes])
    yaml = build_cfg(f"coco/{name}.yaml", changes)
    keys = (
        "ROI_HEADS.NUM_CLASSES",
        "ROI_HEADS.SCORE_THRESH_TEST",
        "MASK_ON",
        "VIT.IMG_SIZE",
        "PIXEL_MEAN",
        "PIXEL_STD",
    )
    for key in keys:
        found, expected = cfg.MODEL, yaml.MODEL
        for part in key.split("."):
            found, expected = found[part], expected[part]
        assert found == expected, key
    assert (cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST) == ("RGB", 1024, 1024)
    cfg.MODEL.DEVICE = yaml.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model, expected = build_model(cfg), build_model(yaml)
    assert isinstance(model, VideoRCNN) and str(model.vit.policy) == "top-r 300"
    assert model.eventful_pyramid is not None and model.vit.enabled
    options = [each.vit._encoder._runners[0].options for each in (model, expected)]
    assert options[0] == options[1] and options[0].attention == "tokenwise"
    shapes = [{key: value.shape for key, value in each.state_dict().items()} for each in (model, expected)]
    assert shapes[0] == shapes[1]


@real
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1\n", "has no 'model'"),
        ("model = dict(backbone=dict(bottom_up=1), proposal_generator=1, roi_heads=1)\n", "it is no ViTDet"),
        ("model = dict(backbone=1)\n", "has no proposal_generator"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "a.py"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        lazy_settings(str(path))
