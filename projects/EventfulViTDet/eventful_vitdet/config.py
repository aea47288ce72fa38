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
UNNAMED_KEYS = {
    "have different shapes!": "MODEL.PIXEL_MEAN, MODEL.PIXEL_STD",
    "Unknown LR scheduler": "SOLVER.LR_SCHEDULER_NAME",
    "Total batch size": "SOLVER.IMS_PER_BATCH",
}
"""What Detectron2 says of keys that it does not name."""


def add_eventful_vitdet_config(cfg: CfgNode) -> None:
    """Add every key that the project defines, with its default, to a Detectron2 configuration.

    What the keys may name, the backbone, the detector and the data sets, is then registered in Detectron2. The comment
    above a key is its entry in docs/configuration.md (`python docs/make_configuration.py` writes that page).
    """
    from . import actions, modeling  # noqa: F401  (registers; not at the top, as its modules read configurations too)
    from .data.data_config import add_data_config

    # Device to run on: by default "cuda" if PyTorch finds a GPU, else "cpu".
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    # The model: "VideoRCNN" (a detector), "VideoClassifier" (action recognition), or "build_lazy_video_rcnn" (from
    # MODEL.LAZY_FILE).
    cfg.MODEL.META_ARCHITECTURE = "VideoRCNN"
    # The backbone of VideoRCNN; this one is the eventful ViTDet that MODEL.VIT and MODEL.SIMPLE_PYRAMID describe.
    cfg.MODEL.BACKBONE.NAME = "build_eventful_vitdet_backbone"
    # Path of a Detectron2 LazyConfig file to take the model from, with META_ARCHITECTURE "build_lazy_video_rcnn";
    # --lazy sets both. Needs the real Detectron2.
    cfg.MODEL.LAZY_FILE = ""
    # Training: prefixes of parameters to re-initialise instead of loading from MODEL.WEIGHTS. To start from weights of
    # other classes, use ("roi_heads.box_predictor",); otherwise, a shape that differs is an error.
    cfg.MODEL.REINITIALIZE = ()
    # The set of weights to take from a file that has several, by its key in the file, such as "model_ema" or
    # "teacher.module"; the log names them. "": the usual one.
    cfg.MODEL.WEIGHTS_SET = ""
    # Names of the model's classes: "coco", "lvis", or a text file with one name per line. "": those of the first data
    # set in DATASETS.TEST or DATASETS.TRAIN that has as many classes as the model.
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
    """Around Detectron2's builders: an error that is about a key, or about what a registry lacks, is a ConfigError.

    Their other errors are left as they are, for they may be defects.
    """
    try:
        yield
    except (ValueError, KeyError, AssertionError) as error:
        text = str(error.args[0]) if error.args else ""
        for words, keys in UNNAMED_KEYS.items():
            text = f"{keys}: {text}" if words in text else text
        if isinstance(error, ConfigError) or not (KEY.search(text) or text.endswith("registry!")):
            raise
        raise ConfigError(text) from error


def _add_vit_config(cfg: CfgNode) -> None:
    """The ViT: the backbone of a detector, or the spatial model of a VideoClassifier."""
    cfg.MODEL.VIT = vit = CfgNode()
    # Side in pixels of the square that frames are padded to (bottom and right), and that position tables are made for.
    vit.IMG_SIZE = 1024
    # (height, width) to use instead of IMG_SIZE: position tables are made for this size, and frames are padded only to
    # whole pyramid cells, not to a fixed size. () uses IMG_SIZE.
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
    # Hidden channels of the MLP, as a multiple of EMBED_DIM.
    vit.MLP_RATIO = 4.0
    # Side of the attention windows in tokens.
    vit.WINDOW_SIZE = 14
    # Indices of the blocks with windowed attention; the others attend to the whole frame.
    vit.WINDOW_BLOCKS = (0, 1, 3, 4, 6, 7, 9, 10)
    # Whether tokens get learned absolute positions.
    vit.USE_ABS_POS = True
    # Whether attention has a decomposed relative position bias.
    vit.USE_REL_POS = True
    # Side in pixels of the images that tables of relative positions of global blocks are made for; 0: IMG_SIZE.
    vit.REL_POS_IMG_SIZE = 0
    # How relative positions are resized for frames of another size: "table" resizes the tables linearly, as Detectron2
    # does; "matrix" resizes the matrix of all pairs bicubically, as the paper's code does, and needs REL_POS_IMG_SIZE.
    vit.REL_POS_RESIZE = "table"
    # Training: stochastic depth rate of the last block; it rises linearly from 0 in the first one.
    vit.DROP_PATH_RATE = 0.1


def _add_vivit_config(cfg: CfgNode) -> None:
    """Keys of a VideoClassifier. Its spatial model has the size given by MODEL.VIT (IMG_SIZE or IMG_SIZE_HW,
    EMBED_DIM, DEPTH, NUM_HEADS, MLP_RATIO) and the policy of MODEL.EVENTFUL; pixels are normalised by PIXEL_MEAN and
    PIXEL_STD."""
    cfg.MODEL.VIVIT = vivit = CfgNode()
    # The classifiers, [NAME, NUMBER OF CLASSES] of each.
    vivit.CLASSES = [["verb", 97], ["noun", 300]]
    # Names of the classes for videos and the live page, [HEAD, FILE] for each head: a text file with one name per line.
    # []: those of the data sets in DATASETS.TEST and DATASETS.TRAIN, if available.
    vivit.CLASS_NAMES = []
    # Frames in a view.
    vivit.FRAMES = 32
    # Distance between the frames of a view, in frames at FPS.
    vivit.STRIDE = 1
    # Frames per second that clips are resampled to by their time stamps; 0: every frame of the file.
    vivit.FPS = 30.0
    # (frames, height, width) of a tubelet. One step of the spatial model covers that many frames.
    vivit.TUBELET = (2, 16, 16)
    # Time spans taken from a clip, evenly spread over it.
    vivit.VIEWS = 4
    # Crops of each span, from the top left to the bottom right corner. A clip has VIEWS x CROPS views.
    vivit.CROPS = 3
    # Blocks of the temporal model.
    vivit.DEPTH_TEMPORAL = 4
    # Training: dropout before the classifiers.
    vivit.DROPOUT = 0.0
    # Train the spatial model with its gates on, with the policy of MODEL.EVENTFUL. False: train it densely.
    vivit.TRAIN_WITH_GATES = False
    # Train the temporal model and the classifiers only, on the spatial model's features as in evaluation.
    vivit.FREEZE_SPATIAL = False


def _add_pyramid_config(cfg: CfgNode) -> None:
    """The simple feature pyramid on the backbone's last map."""
    cfg.MODEL.SIMPLE_PYRAMID = pyramid = CfgNode()
    # Resolution of each level relative to the token grid. A max-pooled level follows the last one.
    pyramid.SCALE_FACTORS = (4.0, 2.0, 1.0, 0.5)
    # Channels of every level.
    pyramid.OUT_CHANNELS = 256
    # Normalisation of the pyramid's convolutions.
    pyramid.NORM = "LN"


def _add_eventful_config(cfg: CfgNode) -> None:
    """Eventful inference: what is recomputed in a frame, and what is kept between frames."""
    cfg.MODEL.EVENTFUL = eventful = CfgNode()
    # Reuse computation between frames in inference; False runs the same weights densely.
    eventful.ENABLED = True
    # Which tokens a gate updates: "top-r", "threshold", "fraction", "per-gate", or "calibrated".
    eventful.POLICY = "top-r"
    # top-r: number of tokens that each gate updates per frame.
    eventful.R = 256
    # threshold: error norm above which a token is updated.
    eventful.THRESHOLD = 1.0
    # fraction: share of the tokens that each gate updates per frame.
    eventful.FRACTION = 0.25
    # per-gate: [NAME, POLICY, VALUE] for gates by name, such as [["blocks.0.*", "top-r", 512], ["*", "top-r", 256]].
    # Block N has the gates blocks.N.qkv, blocks.N.projection and blocks.N.mlp; names may have wildcards, and the first
    # that matches counts.
    eventful.GATES = []
    # calibrated: the file that `eventful-vitdet calibrate` wrote for this model: a budget per gate, or a shared one.
    eventful.POLICY_FILE = ""
    # How attention is updated. "exact": dense attention over the buffered tokens, computed incrementally. For
    # comparison, the paper's modes of the global blocks: "full" (approximate), "query-key", "tokenwise"; windowed
    # blocks are then "tokenwise". "full" adds up changes: if values overflow inside the model, outputs stay NaN until
    # the next flush; with the others, they recover.
    eventful.ATTENTION = "exact"
    # Gate tokens before the layer norms instead of after them.
    eventful.GATE_BEFORE_NORM = False
    # What a gate compares with: "last-sent" (the paper's gate) or "previous-frame" (STGT, a baseline).
    eventful.GATE_REFERENCE = "last-sent"
    # Average-pool the keys and values of global blocks over KV_POOL x KV_POOL tokens, in the dense model too.
    eventful.KV_POOL = 1
    # Data type of the state between frames: "float32", "float16", "bfloat16"; "": that of the computation.
    eventful.STATE_DTYPE = ""
    # Data type of the products of the ViT's linear layers and ViTDet's patch embedding in inference, dense or eventful:
    # "float32", "float16", "bfloat16"; "": that of the weights. Tokens, norms, softmax and the sums of attention
    # stay in float32. On a GPU it is the type of a detector's pyramid, proposal network and box heads, too; their
    # norms, scores and boxes stay in float32.
    eventful.COMPUTE_DTYPE = ""
    # On a GPU, frames are computed in full where a budget lets this share of their tokens through, or more: choosing so
    # many takes longer. 0.26 was measured on an H200; tools/gpu_report.py measures it on yours. Above 1: never.
    eventful.GPU_CROSSOVER = 0.26
    _add_controller_config(eventful)
    _add_incremental_pyramid_config(eventful)


def _add_controller_config(eventful: CfgNode) -> None:
    """The budget at run time: see [runtime-control.md](runtime-control.md)."""
    eventful.CONTROLLER = controller = CfgNode()
    # The controller that changes r while a video runs: "" (none), "schedule", "latency" or "gflops".
    controller.NAME = ""
    # schedule: FRAME:R pairs from frame 0 on, such as "0:512,120:128".
    controller.SCHEDULE = ""
    # latency: target in milliseconds of the model per frame, flush frames left out.
    controller.TARGET_MS = 100.0
    # gflops: target in average GFlops per frame, counting everything that the model runs, flush frames included.
    controller.TARGET_GFLOPS = 100.0
    # Smallest r that a controller, a schedule or the slider of the live page may choose: a floor on quality. 0: a
    # sixteenth of the tokens for latency and gflops, no floor for the others.
    controller.R_MIN = 0
    # Largest r that any of them may choose; 0: all tokens.
    controller.R_MAX = 0
    # Scene cuts: flush when the median error of the tokens is more than this many times that of recent frames; 0:
    # never.
    controller.SCENE_CUT = 3.0


def _add_incremental_pyramid_config(eventful: CfgNode) -> None:
    """The eventful pyramid: see [performance.md](performance.md#beyond-the-backbone-pyramid-and-proposals)."""
    eventful.PYRAMID = pyramid = CfgNode()
    # Recompute the feature pyramid and the proposal network's convolutions only where the backbone's output changed.
    # For CPUs: a GPU computes them densely, which is faster there.
    pyramid.ENABLED = False
    # Which tokens of the backbone's output to update, with the keys below: "top-r", "threshold" or "fraction". ""
    # follows the backbone's policy, also if it changes at run time.
    pyramid.POLICY = ""
    # top-r: number of tokens updated per frame.
    pyramid.R = 256
    # threshold: error norm above which a token is updated.
    pyramid.THRESHOLD = 1.0
    # fraction: share of the tokens updated per frame.
    pyramid.FRACTION = 0.25


def _add_solver_config(cfg: CfgNode) -> None:
    # "adamw", "sgd", or "muon": Muon for the matrices of the Transformer's blocks and AdamW for the rest.
    cfg.SOLVER.OPTIMIZER = "adamw"
    # muon: learning rate of the matrices of all blocks, without LAYER_DECAY. BASE_LR is that of the rest.
    cfg.SOLVER.MUON_LR = 0.003
    # Layer-wise learning rate decay: the learning rate of a block of the ViT is this factor times that of the next one;
    # 1.0: off.
    cfg.SOLVER.LAYER_DECAY = 1.0
    # Decay of an exponential moving average of the weights, which evaluations use, and which is saved as model_ema.pth
    # when training is complete; 0: off. model_final.pth has the weights themselves.
    cfg.SOLVER.EMA_DECAY = 0.0


def _add_test_config(cfg: CfgNode) -> None:
    # Evaluation keeps detections above this score; VID-AP50 is computed from all of them.
    cfg.TEST.VID_SCORE_FLOOR = 0.001
    # Most detections that an evaluation keeps per frame. COCO's metrics use those that pass
    # MODEL.ROI_HEADS.SCORE_THRESH_TEST and TEST.DETECTIONS_PER_IMAGE.
    cfg.TEST.VID_DETECTIONS_PER_IMAGE = 300
    # Videos that run side by side as one batch, to keep a GPU busy. Rounding differs slightly from a batch of 1.
    cfg.TEST.STREAMS_PER_BATCH = 1
    # CPU threads of every evaluation process, on a busy machine too; 0: PyTorch's default, usually one per core, within
    # a container's limit. With the same number, results are equal bit for bit for any number of processes.
    cfg.TEST.THREADS_PER_PROCESS = 0
    # Link the detections of a video to tracks, and report YouTube-VIS' metric: AP and AR of whole tracks (tubes), with
    # the file that its server reads. For data sets whose objects have identities, or that have no annotations. Needs
    # the extra "track". Records do not depend on it: set it and repeat the command, and no model runs again.
    cfg.TEST.TUBE_AP = False
    # TUBE_AP: score from which a detection begins a track. Weaker ones, down to MODEL.ROI_HEADS.SCORE_THRESH_TEST,
    # continue tracks, or are left out.
    cfg.TEST.TUBE_MIN_SCORE = 0.3


def is_classifier(cfg: CfgNode) -> bool:
    """Whether a configuration describes a model that recognises actions."""
    return cfg.MODEL.META_ARCHITECTURE == "VideoClassifier"
