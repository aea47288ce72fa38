"""Config files, command-line overrides and the decorator that builds things from a config."""

import pytest
from detectron2.config import CfgNode, configurable, get_cfg


def _write(path, text):
    path.write_text(text)
    return str(path)


def test_defaults_are_those_of_detectron2():
    cfg = get_cfg()
    assert cfg.VERSION == 2
    assert cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN == 12000 and cfg.MODEL.RPN.IOU_THRESHOLDS == [0.3, 0.7]
    assert cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE == 512 and cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION == 0.25
    assert cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS == (10.0, 10.0, 5.0, 5.0)
    assert cfg.MODEL.PIXEL_MEAN == [103.530, 116.280, 123.675] and cfg.INPUT.FORMAT == "BGR"
    assert cfg.SOLVER.BASE_LR == 0.001 and cfg.SOLVER.STEPS == (30000,) and cfg.SOLVER.IMS_PER_BATCH == 16
    assert cfg.SOLVER.AMP.ENABLED is False and cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE == "value"
    assert cfg.TEST.DETECTIONS_PER_IMAGE == 100 and cfg.SEED == -1


def test_get_cfg_gives_independent_copies():
    first = get_cfg()
    first.SOLVER.MAX_ITER = 7
    first.MODEL.RPN.IN_FEATURES.append("p2")
    assert get_cfg().SOLVER.MAX_ITER == 40000
    assert get_cfg().MODEL.RPN.IN_FEATURES == ["res4"]


def test_faster_rcnn_yaml_merges(tmp_path):
    """The keys of Detectron2's Base-RCNN-FPN.yaml and faster_rcnn_R_50_FPN_3x.yaml."""
    text = """
VERSION: 2
MODEL:
  WEIGHTS: "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
  META_ARCHITECTURE: "GeneralizedRCNN"
  BACKBONE: {NAME: "build_resnet_fpn_backbone"}
  MASK_ON: False
  RESNETS: {DEPTH: 50, OUT_FEATURES: ["res2", "res3", "res4", "res5"]}
  FPN: {IN_FEATURES: ["res2", "res3", "res4", "res5"]}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]], ASPECT_RATIOS: [[0.5, 1.0, 2.0]]}
  RPN: {IN_FEATURES: ["p2", "p3", "p4", "p5", "p6"], POST_NMS_TOPK_TRAIN: 1000, POST_NMS_TOPK_TEST: 1000}
  ROI_HEADS: {NAME: "StandardROIHeads", IN_FEATURES: ["p2", "p3", "p4", "p5"]}
  ROI_BOX_HEAD: {NAME: "FastRCNNConvFCHead", NUM_FC: 2, POOLER_RESOLUTION: 7, POOLER_TYPE: "ROIAlignV2"}
  ROI_MASK_HEAD: {NAME: "MaskRCNNConvUpsampleHead", NUM_CONV: 4, POOLER_RESOLUTION: 14}
DATASETS:
  TRAIN: ("a",)
  TEST: ("b",)
SOLVER:
  IMS_PER_BATCH: 16
  BASE_LR: 0.02
  STEPS: (210000, 250000)
  MAX_ITER: 270000
INPUT:
  MIN_SIZE_TRAIN: (640, 672, 704, 736, 768, 800)
"""
    cfg = get_cfg()
    cfg.merge_from_file(_write(tmp_path / "frcnn.yaml", text))
    assert cfg.INPUT.MIN_SIZE_TRAIN == (640, 672, 704, 736, 768, 800)
    assert cfg.SOLVER.STEPS == (210000, 250000) and cfg.DATASETS.TRAIN == ("a",)
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES == [[32], [64], [128], [256], [512]]


def test_dump_merges_back_to_the_same_config(tmp_path):
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.BASE_LR", "3e-4", "DATASETS.TRAIN", "('a', 'b')", "MODEL.DEVICE", "cpu"])
    again = get_cfg()
    again.merge_from_file(_write(tmp_path / "dump.yaml", cfg.dump()))
    for part in ("SOLVER", "DATASETS", "INPUT", "DATALOADER"):
        assert again[part] == cfg[part]
    assert again.MODEL.DEVICE == "cpu" and again.MODEL.RPN == cfg.MODEL.RPN


def test_unknown_keys_are_named(tmp_path):
    with pytest.raises(KeyError, match="SOLVER.MAX_ITERS"):
        get_cfg().merge_from_file(_write(tmp_path / "typo.yaml", "VERSION: 2\nSOLVER: {MAX_ITERS: 3}\n"))
    with pytest.raises((KeyError, AssertionError), match="MAX_ITERS"):
        get_cfg().merge_from_list(["SOLVER.MAX_ITERS", "3"])


class Adder:
    @configurable
    def __init__(self, a, b=2, *, c=3):
        self.values = (a, b, c)

    @classmethod
    def from_config(cls, cfg, scale=1):
        return {"a": cfg.A * scale, "b": cfg.B}


class Tripler(Adder):
    @configurable
    def __init__(self, **kwargs):
        super().__init__(**kwargs)

    @classmethod
    def from_config(cls, cfg, scale=1):
        return {**super().from_config(cfg, scale), "c": 3 * cfg.A}


def test_configurable_class():
    cfg = CfgNode({"A": 10, "B": 20})
    assert Adder(1, c=5).values == (1, 2, 5)
    assert Adder(cfg).values == (10, 20, 3)
    assert Adder(cfg, 2).values == (20, 20, 3)
    assert Tripler(cfg, scale=2).values == (20, 20, 30)


def test_keywords_replace_what_the_config_says():
    cfg = CfgNode({"A": 10, "B": 20})
    assert Adder(cfg, b=7, c=8).values == (10, 7, 8)
    assert Adder(cfg=cfg, a=1).values == (1, 20, 3)
    assert Adder(cfg, scale=3, b=7).values == (30, 7, 3)  # what from_config takes itself goes there
    assert Tripler(cfg, c=1).values == (10, 20, 1)
    with pytest.raises(TypeError, match="d"):
        Adder(cfg, d=1)


@configurable(from_config=lambda cfg, scale=1: {"a": cfg.A * scale, "b": cfg.B})
def add(a, b=2, c=3):
    return a, b, c


def test_configurable_function():
    cfg = CfgNode({"A": 10, "B": 20})
    assert add(1) == (1, 2, 3) and add(1, c=5) == (1, 2, 5)
    assert add(cfg) == (10, 20, 3) and add(cfg, scale=2, b=0) == (20, 0, 3) and add(cfg=cfg) == (10, 20, 3)
    assert add.from_config(cfg) == {"a": 10, "b": 20}


def test_configurable_needs_a_class_method_whose_first_argument_is_the_config():
    class WithoutMethod:
        @configurable
        def __init__(self, a=1):
            pass

    class OfTheInstance(WithoutMethod):
        def from_config(self, cfg):
            pass

    class OtherName(WithoutMethod):
        @classmethod
        def from_config(cls, config):
            return {}

    with pytest.raises(AttributeError, match="from_config"):
        WithoutMethod(a=1)
    with pytest.raises(TypeError, match="from_config"):
        OfTheInstance(a=1)
    with pytest.raises(TypeError, match="cfg"):
        OtherName(CfgNode({}))
