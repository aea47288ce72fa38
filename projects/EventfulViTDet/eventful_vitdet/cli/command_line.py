"""What a run of training or evaluation begins with: its configuration, its folder and its log files."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import detectron2
import torch
from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..actions import register_action_csv
from ..config_files import build_cfg
from ..data import register_paths, register_test_json
from ..errors import ConfigError, FileError
from ..files import make_writable_folder
from ..modeling.lazy_model import lazy_settings
from .console import take_console

logger = logging.getLogger("eventful_vitdet")


def setup(args: argparse.Namespace) -> CfgNode:
    """Configuration, log files and seeds of a run."""
    cfg = build_cfg(args.config_file, [*(lazy_settings(args.lazy) if args.lazy else ()), *args.opts])
    if args.test_json:
        register = register_action_csv if args.test_json.endswith(".csv") else register_test_json
        cfg.DATASETS.TEST = (register(args.test_json, args.root),)
    cfg.DATASETS.TEST = tuple(register_paths(cfg.DATASETS.TEST))
    check_output_dir(cfg.OUTPUT_DIR)
    cfg.freeze()
    try:
        open_logs(cfg.OUTPUT_DIR, args.verbosity)
        default_setup(cfg, args)
    except OSError as error:  # log.txt and config.yaml may be somebody else's
        where = error.filename or f"OUTPUT_DIR = {cfg.OUTPUT_DIR}"
        raise FileError(f"{where} cannot be written to: {error.strerror or error}") from error
    if comm.is_main_process():
        versions = f"detectron2 {detectron2.__version__}, torch {torch.__version__}"
        logger.info("device %s, %s; log in %s", cfg.MODEL.DEVICE, versions, Path(cfg.OUTPUT_DIR, "log.txt"))
    return cfg


def open_logs(folder: str, verbosity: int) -> None:
    """Log everything to files in a folder, and show what is worth it."""
    rank = comm.get_rank()
    # The first two exactly as `default_setup` does it, which then has nothing to add.
    setup_logger(folder, distributed_rank=rank, name="fvcore")
    setup_logger(folder, distributed_rank=rank)
    for name in ("eventful_vitdet", "eventful_vit", "py.warnings"):
        setup_logger(folder, distributed_rank=rank, name=name)
    take_console(verbosity, rank)


def check_output_dir(folder: str) -> None:
    """Fail before any work if results could not be written."""
    if not folder:
        raise ConfigError("OUTPUT_DIR is empty; name a folder")
    try:
        make_writable_folder(folder)
    except OSError as error:
        raise FileError(f"OUTPUT_DIR = {folder} cannot be written to: {error.strerror or error}") from error
