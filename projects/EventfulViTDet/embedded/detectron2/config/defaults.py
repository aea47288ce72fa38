"""Default settings. Names, values and meanings are those of Detectron2; what two-stage detection of boxes and masks
does not need is absent, so that setting it is an error instead of being ignored."""

from __future__ import annotations

from fvcore.common.config import CfgNode

_MODEL = {
    "META_ARCHITECTURE": "GeneralizedRCNN",
    "DEVICE": "cuda",
    "WEIGHTS": "",
    # Subtracted from and divided into 0-255 pixels, in the channel order of INPUT.FORMAT.
    "PIXEL_MEAN": [103.530, 116.280, 123.675],
    "PIXEL_STD": [1.0, 1.0, 1.0],
    "BACKBONE": {"NAME": "build_resnet_backbone"},
    "ANCHOR_GENERATOR": {
        "SIZES": [[32, 64, 128, 256, 512]],  # side of a square of equal area, pixels; one list per level
        "ASPECT_RATIOS": [[0.5, 1.0, 2.0]],  # height / width
        "OFFSET": 0.0,  # of the first anchor's centre, in strides
    },
    "RPN": {
        "IN_FEATURES": ["res4"],
        "CONV_DIMS": [-1],  # one 3x3 convolution per entry; -1 keeps the number of channels
        "IOU_THRESHOLDS": [0.3, 0.7],
        "IOU_LABELS": [0, -1, 1],
        "BATCH_SIZE_PER_IMAGE": 256,
        "POSITIVE_FRACTION": 0.5,
        "BBOX_REG_LOSS_TYPE": "smooth_l1",
        "BBOX_REG_LOSS_WEIGHT": 1.0,
        "BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
        "SMOOTH_L1_BETA": 0.0,
        "LOSS_WEIGHT": 1.0,
        "PRE_NMS_TOPK_TRAIN": 12000,  # per level
        "PRE_NMS_TOPK_TEST": 6000,
        "POST_NMS_TOPK_TRAIN": 2000,  # over all levels
        "POST_NMS_TOPK_TEST": 1000,
        "NMS_THRESH": 0.7,
    },
    "ROI_HEADS": {
        "NAME": "Res5ROIHeads",
        "NUM_CLASSES": 80,
        "IN_FEATURES": ["res4"],
        "IOU_THRESHOLDS": [0.5],
        "IOU_LABELS": [0, 1],
        "BATCH_SIZE_PER_IMAGE": 512,
        "POSITIVE_FRACTION": 0.25,
        "SCORE_THRESH_TEST": 0.05,
        "NMS_THRESH_TEST": 0.5,
    },
    "ROI_BOX_HEAD": {
        "NAME": "",
        "BBOX_REG_LOSS_TYPE": "smooth_l1",
        "BBOX_REG_LOSS_WEIGHT": 1.0,
        "BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
        "SMOOTH_L1_BETA": 0.0,
        "CLS_AGNOSTIC_BBOX_REG": False,
        "USE_SIGMOID_CE": False,  # a sigmoid for every class in place of one softmax, as in LVIS models
        "USE_FED_LOSS": False,  # has to be False in training; inference does not look at it
        "POOLER_TYPE": "ROIAlignV2",
        "POOLER_RESOLUTION": 14,
        "POOLER_SAMPLING_RATIO": 0,
        "NUM_CONV": 0,
        "CONV_DIM": 256,
        "NUM_FC": 0,
        "FC_DIM": 1024,
        "NORM": "",
    },
    # Stages of CascadeROIHeads, which need ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True.
    "ROI_BOX_CASCADE_HEAD": {
        "BBOX_REG_WEIGHTS": ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)),
        "IOUS": (0.5, 0.6, 0.7),
    },
    "MASK_ON": False,
    "ROI_MASK_HEAD": {
        "NAME": "MaskRCNNConvUpsampleHead",
        "POOLER_RESOLUTION": 14,  # half of a mask's side, in cells
        "POOLER_SAMPLING_RATIO": 0,
        "POOLER_TYPE": "ROIAlignV2",
        "NUM_CONV": 0,
        "CONV_DIM": 256,
        "NORM": "",
        "CLS_AGNOSTIC_MASK": False,
    },
    # What the usual Faster R-CNN files set besides; nothing looks at it.
    "FPN": {"IN_FEATURES": []},
    "RESNETS": {"DEPTH": 50, "OUT_FEATURES": ["res4"]},
}
_SOLVER = {
    "LR_SCHEDULER_NAME": "WarmupMultiStepLR",  # or "WarmupCosineLR"
    "MAX_ITER": 40000,
    "IMS_PER_BATCH": 16,  # over all processes
    "CHECKPOINT_PERIOD": 5000,  # iterations
    "BASE_LR": 0.001,
    "BASE_LR_END": 0.0,  # where the cosine ends
    "STEPS": (30000,),
    "GAMMA": 0.1,
    "WARMUP_FACTOR": 1.0 / 1000,
    "WARMUP_ITERS": 1000,
    "MOMENTUM": 0.9,
    "NESTEROV": False,
    "WEIGHT_DECAY": 0.0001,
    "WEIGHT_DECAY_NORM": 0.0,
    "WEIGHT_DECAY_BIAS": None,  # None: WEIGHT_DECAY
    "BIAS_LR_FACTOR": 1.0,
    "CLIP_GRADIENTS": {"ENABLED": False, "CLIP_TYPE": "value", "CLIP_VALUE": 1.0, "NORM_TYPE": 2.0},
    "AMP": {"ENABLED": False},
}
_INPUT = {
    "MIN_SIZE_TRAIN": (800,),  # short edge, pixels
    "MIN_SIZE_TRAIN_SAMPLING": "choice",  # or "range"
    "MAX_SIZE_TRAIN": 1333,  # long edge, pixels
    "MIN_SIZE_TEST": 800,  # 0: no resizing
    "MAX_SIZE_TEST": 1333,
    "RANDOM_FLIP": "horizontal",  # or "vertical", "none"
    "FORMAT": "BGR",
}
DEFAULTS = CfgNode(
    {
        "VERSION": 2,
        "OUTPUT_DIR": "./output",
        "SEED": -1,  # negative: a different random seed in every run
        "CUDNN_BENCHMARK": False,
        "MODEL": _MODEL,
        "INPUT": _INPUT,
        "DATASETS": {"TRAIN": (), "TEST": ()},
        "DATALOADER": {"NUM_WORKERS": 4, "FILTER_EMPTY_ANNOTATIONS": True},
        "SOLVER": _SOLVER,
        "TEST": {"EVAL_PERIOD": 0, "DETECTIONS_PER_IMAGE": 100},
    }
)
