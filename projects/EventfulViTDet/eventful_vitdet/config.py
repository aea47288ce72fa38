"""Configuration keys of the project, added to Detectron2's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode

from .errors import ConfigError

KEY = re.compile(r"\b(MODEL|INPUT|DATASETS|DATALOADER|SOLVER|TEST|VIS_PERIOD|SEED|OUTPUT_DIR)\b")
"""How configuration keys begin."""


def add_eventful_vitdet_config(cfg: CfgNode) -> None:
    """Add every key that the project defines, with its default, to a Detectron2 configuration.

    What the keys may name, the backbone, the detector and the data sets, is then registered in Detectron2.
    """
    from . import actions, modeling  # noqa: F401  (registers; not at the top, as its modules read configurations too)
    from .data.data_config import add_data_config

    # Device to run on: cuda where available, else cpu, unless set.
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    cfg.MODEL.META_ARCHITECTURE = "VideoRCNN"
    cfg.MODEL.BACKBONE.NAME = "build_eventful_vitdet_backbone"
    # A LazyConfig file of Detectron2 that the model comes from, with META_ARCHITECTURE build_lazy_video_rcnn; --lazy
    # sets both. The real Detectron2 only.
    cfg.MODEL.LAZY_FILE = ""
    # Training: prefixes of parameters to re-initialise instead of loading from MODEL.WEIGHTS. Weights of other classes
    # need ("roi_heads.box_predictor",); without it, a shape that differs is an error.
    cfg.MODEL.REINITIALIZE = ()
    # Which set of weights to take from a file that has several, by its key there, such as "model_ema" or
    # "teacher.module"; the log names them. "": the usual one.
    cfg.MODEL.WEIGHTS_SET = ""
    # Names of the model's classes: "coco", "lvis", or a text file with a name in every line. "": those of the first
    # data set of DATASETS.TEST or DATASETS.TRAIN with as many.
    cfg.MODEL.CLASS_NAMES = ""
    _add_vit_config(cfg)
    _add_vivit_config(cfg)
    _add_pyramid_config(cfg)
    _add_eventful_config(cfg)
    _add_solver_config(cfg)
    _add_test_config(cfg)
    add_data_config(cfg)


@contextmanager
def config_errors() -> Iterator[None]:
    """Around Detectron2's builders: an error that names a key, or what a registry lacks, is a ConfigError.

    Their other errors are left as they are, for they may be defects.
    """
    try:
        yield
    except (ValueError, KeyError, AssertionError) as error:
        text = str(error.args[0]) if error.args else ""
        if isinstance(error, ConfigError) or not (KEY.search(text) or text.endswith("registry!")):
            raise
        raise ConfigError(text) from error


def _add_vit_config(cfg: CfgNode) -> None:
    cfg.MODEL.VIT = vit = CfgNode()
    # Side in pixels of the square that frames are padded to (bottom and right), and that position tables are made for.
    vit.IMG_SIZE = 1024
    # (height, width) instead of that square: position tables are made for it, and frames are padded only to whole
    # pyramid cells, not to a fixed size. () uses IMG_SIZE.
    vit.IMG_SIZE_HW = ()
    # Side in pixels of the images that the backbone was pre-trained on: the grid of the absolute positions.
    vit.PRETRAIN_IMG_SIZE = 224
    # Side of a patch in pixels.
    vit.PATCH_SIZE = 16
    # Channels of a token.
    vit.EMBED_DIM = 768
    # Number of Transformer blocks.
    vit.DEPTH = 12
    # Attention heads of every block.
    vit.NUM_HEADS = 12
    # Hidden channels of the MLP over EMBED_DIM.
    vit.MLP_RATIO = 4.0
    # Side of the attention windows in tokens.
    vit.WINDOW_SIZE = 14
    # Indices of the blocks with windowed attention; the others attend to the whole frame.
    vit.WINDOW_BLOCKS = (0, 1, 3, 4, 6, 7, 9, 10)
    # Learned absolute positions.
    vit.USE_ABS_POS = True
    # Decomposed relative position bias in attention.
    vit.USE_REL_POS = True
    # Side in pixels of the images that tables of relative positions of global blocks are made for; 0: IMG_SIZE.
    vit.REL_POS_IMG_SIZE = 0
    # What is resized of them for frames of another size: the "table", linearly, as Detectron2 does; or the "matrix" of
    # all pairs, bicubically, as the paper's code does, which needs REL_POS_IMG_SIZE: the size that the weights are for.
    vit.REL_POS_RESIZE = "table"
    # Largest stochastic depth rate (of the last block) in training.
    vit.DROP_PATH_RATE = 0.1


def _add_vivit_config(cfg: CfgNode) -> None:
    """Keys of a VideoClassifier. Its spatial model has the size that MODEL.VIT says (IMG_SIZE or IMG_SIZE_HW,
    EMBED_DIM, DEPTH, NUM_HEADS, MLP_RATIO) and the policy of MODEL.EVENTFUL; pixels are normalised by PIXEL_MEAN and
    PIXEL_STD."""
    cfg.MODEL.VIVIT = vivit = CfgNode()
    # The classifiers, [NAME, NUMBER OF CLASSES] of each.
    vivit.CLASSES = [["verb", 97], ["noun", 300]]
    # Frames of a view ...
    vivit.FRAMES = 32
    # ... and their distance, in frames at FPS.
    vivit.STRIDE = 1
    # Frames per second that clips are resampled to by their time stamps; 0: every frame of the file.
    vivit.FPS = 30.0
    # (frames, height, width) of a tubelet: a step of the spatial model consists of so many frames.
    vivit.TUBELET = (2, 16, 16)
    # Spans of time that a clip is seen in, evenly spread ...
    vivit.VIEWS = 4
    # ... and places of the picture, from the top left to the bottom right corner. A clip has VIEWS * CROPS views.
    vivit.CROPS = 3
    # Blocks of the temporal model.
    vivit.DEPTH_TEMPORAL = 4
    # Dropout before the classifiers, in training.
    vivit.DROPOUT = 0.0
    # Train the spatial model with its gates on, at the policy of MODEL.EVENTFUL; False: densely.
    vivit.TRAIN_WITH_GATES = False
    # Train the temporal model and the classifiers only, on features of the spatial model as it evaluates.
    vivit.FREEZE_SPATIAL = False


def _add_pyramid_config(cfg: CfgNode) -> None:
    cfg.MODEL.SIMPLE_PYRAMID = pyramid = CfgNode()
    # Resolution of each level relative to the token grid. A max-pooled level follows the last one.
    pyramid.SCALE_FACTORS = (4.0, 2.0, 1.0, 0.5)
    # Channels of every level.
    pyramid.OUT_CHANNELS = 256
    # Normalisation of the pyramid's convolutions.
    pyramid.NORM = "LN"


def _add_eventful_config(cfg: CfgNode) -> None:
    cfg.MODEL.EVENTFUL = eventful = CfgNode()
    # Reuse computation between frames in inference; False runs the same weights densely.
    eventful.ENABLED = True
    # Which tokens a gate updates: "top-r", "threshold", "fraction", or "per-gate".
    eventful.POLICY = "top-r"
    # top-r: number of tokens that each gate updates per frame.
    eventful.R = 256
    # threshold: error norm above which a token is updated.
    eventful.THRESHOLD = 1.0
    # fraction: share of the tokens that each gate updates per frame.
    eventful.FRACTION = 0.25
    # per-gate: [NAME, POLICY, VALUE] for gates by name, such as [["blocks.0.*", "top-r", 512], ["*", "top-r", 256]].
    # Gates are called blocks.<number>.{qkv,projection,mlp}; names may have wildcards, and the first that matches
    # counts.
    eventful.GATES = []
    # "exact": dense attention over the buffered tokens, computed incrementally. For comparison, the paper's modes of
    # the global blocks: "full" (approximate), "query-key", "tokenwise"; windowed blocks are then "tokenwise".
    eventful.ATTENTION = "exact"
    # Gate tokens before the layer norms instead of after them.
    eventful.GATE_BEFORE_NORM = False
    # What a gate compares with: "last-sent" (the paper's gate) or "previous-frame" (STGT, a baseline).
    eventful.GATE_REFERENCE = "last-sent"
    # Average-pool keys and values of global blocks over KV_POOL x KV_POOL tokens, in the dense model too.
    eventful.KV_POOL = 1
    # Storage type of what is kept between frames: "float32", "float16", "bfloat16"; "" keeps that of the computation.
    eventful.STATE_DTYPE = ""
    # Type of the products of the ViT's linear layers in inference, dense or eventful: "float32", "float16", "bfloat16";
    # "" is that of the weights. Tokens, norms, softmax and the sums of attention stay in float32.
    eventful.COMPUTE_DTYPE = ""
    _add_controller_config(eventful)
    _add_incremental_pyramid_config(eventful)


def _add_controller_config(eventful: CfgNode) -> None:
    eventful.CONTROLLER = controller = CfgNode()
    # What changes r of top-r while a video is shown: "" (nothing), "schedule", "latency" or "gflops".
    controller.NAME = ""
    # schedule: FRAME:R pairs from frame 0 on, such as "0:512,120:128".
    controller.SCHEDULE = ""
    # latency: milliseconds of the model per frame to hold, flush frames left out.
    controller.TARGET_MS = 100.0
    # gflops: average GFlops per frame to hold, everything that the model runs, flush frames included.
    controller.TARGET_GFLOPS = 100.0
    # Smallest r that any of them may use: the floor on quality. 0: a sixteenth of the tokens where a target is held.
    controller.R_MIN = 0
    # Largest r that any of them may use; 0: all tokens.
    controller.R_MAX = 0
    # Flush when the median error of the tokens exceeds that of recent frames this many times; 0: never.
    controller.SCENE_CUT = 3.0


def _add_incremental_pyramid_config(eventful: CfgNode) -> None:
    eventful.PYRAMID = pyramid = CfgNode()
    # Recompute the feature pyramid and the proposal network's convolutions only where the backbone's output changed.
    pyramid.ENABLED = False
    # Which tokens of the backbone's output to update, by the keys below: "top-r", "threshold" or "fraction"; ""
    # follows the backbone's policy, also when that is exchanged while running.
    pyramid.POLICY = ""
    # top-r: number of tokens updated per frame.
    pyramid.R = 256
    # threshold: error norm above which a token is updated.
    pyramid.THRESHOLD = 1.0
    # fraction: share of the tokens updated per frame.
    pyramid.FRACTION = 0.25


def _add_solver_config(cfg: CfgNode) -> None:
    # "adamw", "sgd", or "muon": Muon for the matrices of the Transformer's blocks, AdamW for the rest.
    cfg.SOLVER.OPTIMIZER = "adamw"
    # muon: learning rate of those matrices; BASE_LR is that of the rest.
    cfg.SOLVER.MUON_LR = 0.003
    # Learning rates of the ViT's blocks fall by this factor from one block to the one before; 1.0 turns this off.
    cfg.SOLVER.LAYER_DECAY = 1.0
    # Decay of an exponential moving average of the weights, which evaluation and the final checkpoint use; 0: off.
    cfg.SOLVER.EMA_DECAY = 0.0


def _add_test_config(cfg: CfgNode) -> None:
    # Evaluation stores detections above this score, ...
    cfg.TEST.VID_SCORE_FLOOR = 0.001
    # ... at most so many per frame, which VID-AP50 is made from. The COCO figures use those of them that
    # MODEL.ROI_HEADS.SCORE_THRESH_TEST and TEST.DETECTIONS_PER_IMAGE let through.
    cfg.TEST.VID_DETECTIONS_PER_IMAGE = 300
    # Videos that run side by side as one batch. More are faster on a GPU; rounding differs a little from that of 1.
    cfg.TEST.STREAMS_PER_BATCH = 1
    # CPU threads of every evaluating process; 0: PyTorch's default, usually one per core. Results are equal bit for bit
    # for any number of processes, as long as this is the same.
    cfg.TEST.THREADS_PER_PROCESS = 0
