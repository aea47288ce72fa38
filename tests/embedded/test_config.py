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


def test_base_files_are_merged_from_the_bottom_up(tmp_path):
    (tmp_path / "sub").mkdir()
    _write(tmp_path / "base.yaml", "VERSION: 2\nSOLVER:\n  MAX_ITER: 10\n  BASE_LR: 0.5\n  STEPS: (3, 4)\n")
    _write(tmp_path / "mid.yaml", "_BASE_: base.yaml\nVERSION: 2\nSOLVER:\n  MAX_ITER: 20\n")
    top = _write(tmp_path / "sub" / "top.yaml", "_BASE_: ../mid.yaml\nVERSION: 2\nSOLVER: {GAMMA: 0.25}\n")
    cfg = get_cfg()
    cfg.merge_from_file(top)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.SOLVER.GAMMA) == (20, 0.5, 0.25)
    assert cfg.SOLVER.STEPS == (3, 4)


def test_faster_rcnn_yaml_merges(tmp_path):
    text = """
VERSION: 2
MODEL:
  META_ARCHITECTURE: "GeneralizedRCNN"
  BACKBONE: {NAME: "build_resnet_fpn_backbone"}
  MASK_ON: False
  RESNETS: {DEPTH: 101, OUT_FEATURES: ["res2", "res3", "res4", "res5"], STRIDE_IN_1X1: False}
  FPN: {IN_FEATURES: ["res2", "res3", "res4", "res5"]}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]], ASPECT_RATIOS: [[0.5, 1.0, 2.0]]}
  RPN: {IN_FEATURES: ["p2", "p3", "p4", "p5", "p6"], POST_NMS_TOPK_TRAIN: 1000, SMOOTH_L1_BETA: 0.1111}
  ROI_HEADS: {NAME: "StandardROIHeads", IN_FEATURES: ["p2", "p3", "p4", "p5"]}
  ROI_BOX_HEAD: {NAME: "FastRCNNConvFCHead", NUM_FC: 2, POOLER_RESOLUTION: 7, POOLER_TYPE: "ROIAlign"}
  ROI_MASK_HEAD: {NAME: "MaskRCNNConvUpsampleHead", NUM_CONV: 4, POOLER_RESOLUTION: 14}
DATASETS:
  TRAIN: ("a",)
SOLVER:
  IMS_PER_BATCH: 16
  STEPS: (60000, 80000)
INPUT:
  MIN_SIZE_TRAIN: (640, 672, 704, 736, 768, 800)
  CROP: {ENABLED: True}
"""
    cfg = get_cfg()
    cfg.merge_from_file(_write(tmp_path / "frcnn.yaml", text))
    assert cfg.INPUT.MIN_SIZE_TRAIN == (640, 672, 704, 736, 768, 800)
    assert cfg.SOLVER.STEPS == (60000, 80000) and cfg.DATASETS.TRAIN == ("a",)
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES == [[32], [64], [128], [256], [512]]


def test_dump_merges_back_to_the_same_config(tmp_path):
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.BASE_LR", "3e-4", "DATASETS.TRAIN", "('a', 'b')", "MODEL.DEVICE", "cpu"])
    again = get_cfg()
    again.merge_from_file(_write(tmp_path / "dump.yaml", cfg.dump()))
    for part in ("SOLVER", "DATASETS", "INPUT", "DATALOADER"):
        assert again[part] == cfg[part]
    assert again.MODEL.DEVICE == "cpu" and again.MODEL.RPN == cfg.MODEL.RPN


def test_command_line_values_keep_their_types():
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.MAX_ITER", "12", "MODEL.WEIGHTS", "x.pth", "SOLVER.STEPS", "(1, 2)"])
    assert cfg.SOLVER.MAX_ITER == 12 and cfg.MODEL.WEIGHTS == "x.pth" and cfg.SOLVER.STEPS == (1, 2)
    with pytest.raises(ValueError, match="SOLVER.MAX_ITER"):
        cfg.merge_from_list(["SOLVER.MAX_ITER", "soon"])


def test_unknown_keys_are_named(tmp_path):
    with pytest.raises(KeyError, match="SOLVER.MAX_ITERS"):
        get_cfg().merge_from_file(_write(tmp_path / "typo.yaml", "VERSION: 2\nSOLVER: {MAX_ITERS: 3}\n"))
    with pytest.raises((KeyError, AssertionError), match="MAX_ITERS"):
        get_cfg().merge_from_list(["SOLVER.MAX_ITERS", "3"])


def test_missing_files_are_named(tmp_path):
    with pytest.raises((FileNotFoundError, AssertionError), match="nowhere.yaml"):
        get_cfg().merge_from_file(str(tmp_path / "nowhere.yaml"))
    child = _write(tmp_path / "child.yaml", "_BASE_: lost_parent.yaml\nVERSION: 2\n")
    with pytest.raises(FileNotFoundError, match="lost_parent.yaml"):
        get_cfg().merge_from_file(child)


def test_new_keys_can_be_added_and_frozen():
    cfg = get_cfg()
    cfg.MODEL.MINE = CfgNode({"R": 5})
    cfg.freeze()
    assert cfg.clone().MODEL.MINE.R == 5
    with pytest.raises(AttributeError):
        cfg.MODEL.MINE.R = 6


class Adder:
    @configurable
    def __init__(self, a, b=2, *, c=3):
        self.values = (a, b, c)

    @classmethod
    def from_config(cls, cfg, scale=1):
        return {"a": cfg.A * scale, "b": cfg.B}


class Tripler(Adder):
    @classmethod
    def from_config(cls, cfg, scale=1):
        return {**super().from_config(cfg, scale), "c": 3 * cfg.A}


def test_configurable_class():
    cfg = CfgNode({"A": 10, "B": 20})
    assert Adder(1, c=5).values == (1, 2, 5)
    assert Adder(cfg).values == (10, 20, 3)
    assert Adder(cfg=cfg).values == (10, 20, 3)
    assert Adder(cfg, 2, c=7).values == (20, 20, 7)  # 2 goes to from_config, c past it
    assert Adder(cfg, b=0).values == (10, 0, 3)  # explicit arguments win
    assert Tripler(cfg, scale=2).values == (20, 20, 30)


def test_configurable_function():
    @configurable(from_config=lambda cfg, factor=1: {"a": cfg.A * factor})
    def power(a, b=2):
        return a**b

    cfg = CfgNode({"A": 3})
    assert (power(2, b=3), power(cfg), power(cfg, b=3), power(cfg, factor=2)) == (8, 9, 27, 36)


def test_configurable_needs_from_config():
    class Incomplete:
        @configurable
        def __init__(self, a):
            self.a = a

    with pytest.raises((TypeError, AttributeError), match="from_config"):
        Incomplete(CfgNode())
