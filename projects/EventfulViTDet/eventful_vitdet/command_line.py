"""What the command-line tools share: arguments, configuration, and errors as one clear line."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import detectron2
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from .checkpoint import CheckpointError
from .config import add_eventful_vitdet_config
from .data import register_test_json
from .data.errors import DataError

logger = logging.getLogger("eventful_vitdet")

USER_ERRORS = (DataError, CheckpointError, ValueError, KeyError, OSError, FloatingPointError)
"""Errors whose message is for the user; anything else is a defect and shows its traceback."""


def argument_parser() -> argparse.ArgumentParser:
    """Detectron2's arguments, and those of this project."""
    parser = default_argument_parser()
    parser.add_argument("--test-json", metavar="FILE", help="evaluate this COCO-VID file in place of DATASETS.TEST")
    parser.add_argument(
        "--test-root",
        metavar="DIR",
        help="folder that the paths in --test-json start from (default: its folder, or the parent of 'annotations')",
    )
    parser.add_argument(
        "--budgets",
        metavar="BUDGET",
        help="evaluate each of these: 'dense', or a number of tokens r per gate and frame (as in: dense 64 128 256)",
    )
    return parser


def parse_arguments(parser: argparse.ArgumentParser, words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line; `--budgets` takes words up to the first that is neither 'dense' nor a number."""
    words, budgets = take_budgets(list(sys.argv[1:] if words is None else words))
    args = parser.parse_args(words)
    args.budgets = budgets
    if budgets and not args.eval_only:
        parser.error("--budgets belongs to an evaluation: add --eval-only")
    return args


def take_budgets(words: list[str]) -> tuple[list[str], list[str]]:
    """Split `--budgets dense 64 ...` off a command line; returns the other words, and the budgets."""
    if "--budgets" not in words:
        return words, []
    start = words.index("--budgets")
    end = start + 1
    while end < len(words) and (words[end] == "dense" or words[end].isdigit()):
        end += 1
    budgets = list(dict.fromkeys(words[start + 1 : end]))
    if not budgets:
        found = f", found {words[end]!r}" if end < len(words) else ""
        raise SystemExit(f"error: --budgets needs 'dense' or whole numbers of tokens{found}")
    return words[:start] + words[end:], budgets


def build_cfg(config_file: str, options: Sequence[str] = ()) -> CfgNode:
    """Defaults, then a configuration file, then KEY VALUE pairs; the device is resolved."""
    cfg = get_cfg()
    add_eventful_vitdet_config(cfg)
    if config_file:
        merge(cfg.merge_from_file, str(find_config(config_file)), config_file)
    if len(options) % 2:
        raise ValueError(f"options come as KEY VALUE pairs, found {' '.join(options)!r}")
    merge(cfg.merge_from_list, list(options), "the command line")
    if cfg.MODEL.DEVICE == "auto":
        cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    return cfg


def merge(into: Callable, source: object, origin: str) -> None:
    """Merge settings; yacs reports an unknown key as an assertion or a bare KeyError, depending on the source."""
    try:
        into(source)
    except (AssertionError, KeyError, ValueError) as error:
        raise ValueError(f"{origin}: {error.args[0] if error.args else error}") from error


def find_config(name: str) -> Path:
    """A configuration file by its path, or by its name below configs/ as installed with the package."""
    package = Path(__file__).resolve().parent
    for path in (Path(name), package / "configs" / name, package.parents[2] / "configs" / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"--config-file: there is no file {name}")


def setup(args: argparse.Namespace) -> CfgNode:
    """Configuration, log files and seeds of a run."""
    cfg = build_cfg(args.config_file, args.opts)
    if args.test_json:
        cfg.DATASETS.TEST = (register_test_json(args.test_json, args.test_root),)
    check_output_dir(cfg.OUTPUT_DIR)
    cfg.freeze()
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="eventful_vitdet")
    if comm.is_main_process():
        device, detectron = cfg.MODEL.DEVICE, detectron2.__version__
        logger.info("device: %s, detectron2 %s, torch %s", device, detectron, torch.__version__)
    return cfg


def check_output_dir(folder: str) -> None:
    """Fail before any work if results could not be written."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        probe = Path(folder, f".write-test-{comm.get_rank()}")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PermissionError(f"OUTPUT_DIR = {folder} cannot be written to: {error.strerror or error}") from error


def run(main: Callable[[], object]) -> int:
    """Run a tool's main function; returns the exit code.

    An error made by the user becomes one line on standard error, an interruption leaves quietly.
    """
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except USER_ERRORS as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"error: {message}", file=sys.stderr)
        return 1
    return 0
