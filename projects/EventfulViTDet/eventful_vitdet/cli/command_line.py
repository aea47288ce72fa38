"""What the commands share: arguments, configuration, and errors as one clear line."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import detectron2
import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch.multiprocessing.spawn import ProcessException, ProcessExitedException

from ..config import add_eventful_vitdet_config
from ..data import register_test_json
from ..errors import USER_ERRORS, ToolError, describe_error
from ..modeling.lazy_model import lazy_settings
from .checkout import REPOSITORY

logger = logging.getLogger("eventful_vitdet")


def command_parser(description: str | None) -> argparse.ArgumentParser:
    """An empty parser that shows a description as it was written."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_pairs(parser: argparse.ArgumentParser) -> None:
    """Let a command end with KEY VALUE pairs, `opts`."""
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="configuration, as in train_net.py")


def parse_with_pairs(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line whose options take lists of values, so that `opts` is whatever they leave over."""
    arguments, pairs = parser.parse_known_args(words)
    if any(word.startswith("-") for word in pairs):
        parser.error(f"unknown option in {' '.join(pairs)}")
    arguments.opts = pairs
    return arguments


def whole_number(least: int) -> Callable[[str], int]:
    """A type of argument: a number from `least` on."""

    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number, {least} or larger")
        return int(text)

    return convert


def argument_parser() -> argparse.ArgumentParser:
    """Arguments of training and evaluation: Detectron2's, and those of this project."""
    parser = default_argument_parser()
    parser.add_argument("--test-json", metavar="FILE", help="evaluate this COCO-VID file in place of DATASETS.TEST")
    parser.add_argument(
        "--test-root",
        metavar="DIR",
        help="folder that the paths in --test-json start from (default: its folder, or the parent of 'annotations')",
    )
    parser.add_argument(
        "--lazy",
        metavar="FILE",
        help="take the model from this LazyConfig file (Python, which is run); needs the real Detectron2",
    )
    parser.add_argument(
        "--budgets",
        metavar="BUDGET",
        help="evaluate each of these: 'dense', or a number of tokens r per gate and frame (as in: dense 64 128 256)",
    )
    parser.add_argument(
        "--restart", action="store_true", help="evaluate all videos anew; otherwise those without results in OUTPUT_DIR"
    )
    return parser


def parse_arguments(parser: argparse.ArgumentParser, words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line; `--budgets` takes words up to the first that is neither 'dense' nor a number."""
    words, budgets = take_budgets(list(sys.argv[1:] if words is None else words))
    args = parser.parse_args(words)
    if args.budgets is not None:
        parser.error("--budgets is written in full, once, with its words behind it: --budgets dense 64 128")
    args.budgets = budgets
    if args.num_machines == 1 and args.dist_url == parser.get_default("dist_url"):
        args.dist_url = "auto"  # the default is one port per user, which a second run at the same time finds taken
    if min(args.num_gpus, args.num_machines) < 1:
        parser.error("--num-gpus and --num-machines are 1 or larger")
    if args.test_root is not None and args.test_json is None:
        parser.error("--test-root belongs to --test-json")
    for option, given in (("--budgets", budgets), ("--restart", args.restart)):
        if given and not args.eval_only:
            parser.error(f"{option} belongs to an evaluation: add --eval-only")
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
    """Defaults, then a configuration file, then KEY VALUE pairs; the device is checked."""
    cfg = get_cfg()
    add_eventful_vitdet_config(cfg)
    if config_file:
        path = str(find_config(config_file))
        merge(lambda: merge_file(cfg, path), path)
    check_pairs(options)
    merge(lambda: cfg.merge_from_list(pairs_as_floats(cfg, options)), "the command line")
    check_device(cfg.MODEL.DEVICE)
    return cfg


def merge_file(cfg: CfgNode, path: str) -> None:
    """Merge a configuration file, in which a number that is no integer may be written as one."""
    # The real Detectron2 would by default also read files that run code.
    loaded = CfgNode(cfg.load_yaml_with_base(path, allow_unsafe=False))
    if loaded.get("VERSION", cfg.VERSION) == cfg.VERSION:
        cfg.merge_from_other_cfg(with_floats(cfg, loaded))
    else:  # which Detectron2 brings up to date, or refuses
        cfg.merge_from_file(path, allow_unsafe=False)


def with_floats(known: CfgNode, loaded: CfgNode) -> CfgNode:
    """Settings, in which integers become floats where the known value is one: yacs takes no 150 for a 150.0."""
    for key, value in loaded.items():
        before = known.get(key)
        if isinstance(value, CfgNode) and isinstance(before, CfgNode):
            with_floats(before, value)
        elif type(value) is int and isinstance(before, float) and abs(value) < 1 << 53:
            loaded[key] = float(value)
    return loaded


def pairs_as_floats(cfg: CfgNode, options: Sequence[str]) -> list[str]:
    """KEY VALUE pairs in which integers are written as floats where the configuration has one."""
    pairs = list(options)
    for i in range(0, len(pairs), 2):
        node = cfg
        for part in pairs[i].split("."):
            node = node.get(part) if isinstance(node, CfgNode) else None
        if isinstance(node, float) and re.fullmatch(r"[+-]?[0-9]{1,15}", str(pairs[i + 1])):
            pairs[i + 1] = f"{pairs[i + 1]}.0"
    return pairs


def check_pairs(options: Sequence[str]) -> None:
    """Raise ValueError unless options are configuration keys with a value each."""
    for word in options[::2]:
        if not re.fullmatch(r"[A-Z][A-Z0-9_.]*", word):
            raise ValueError(f"{word!r} is no option; KEY VALUE pairs come last, and their keys are like MODEL.DEVICE")
    if len(options) % 2:
        raise ValueError(f"options come as KEY VALUE pairs, but {options[-1]} has no value")


def merge(into: Callable[[], None], origin: str) -> None:
    """Merge settings; what is wrong with them reaches us in many forms, depending on where it was noticed."""
    try:
        into()
    except RecursionError as error:
        raise ValueError(f"{origin}: its _BASE_ leads back to the file itself") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{origin}: is not valid yaml: {error}") from error
    except (AssertionError, KeyError, ValueError, TypeError, AttributeError) as error:
        text = str(error.args[0]) if isinstance(error, (AssertionError, KeyError)) and error.args else str(error)
        if isinstance(error, (TypeError, AttributeError)):  # yaml of no, or another, content
            text = f"expected a mapping of keys to values ({text})"
        # Where a whole group of keys meets a single value, the message lists the group.
        text = re.sub(r" with values \(.*\n.*\)(?= for )", "", text, flags=re.DOTALL)
        raise ValueError(f"{origin}: {text.removeprefix(origin + ': ')}") from error


def check_device(name: str) -> None:
    """Raise ValueError if MODEL.DEVICE is no device, or one that is not there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"MODEL.DEVICE = {name!r} is no device; choose 'cpu' or 'cuda'") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"MODEL.DEVICE = {name!r}, but PyTorch finds {torch.cuda.device_count()} usable GPUs here; "
            "'cpu' runs without one"
        )


def find_config(name: str) -> Path:
    """A configuration file by its path, or by its name below configs/ as installed with the package."""
    package = Path(__file__).resolve().parents[1]
    for path in (Path(name), package / "configs" / name, REPOSITORY / "configs" / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"--config-file: there is no file {name}")


def setup(args: argparse.Namespace) -> CfgNode:
    """Configuration, log files and seeds of a run."""
    cfg = build_cfg(args.config_file, [*(lazy_settings(args.lazy) if args.lazy else ()), *args.opts])
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
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk, is not worth a traceback a line
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except USER_ERRORS as error:
        print(f"error: {describe_error(error)}", file=sys.stderr)
        return 1
    return 0


def launch_main(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Call `main(args)` in as many processes as the arguments ask for.

    An error of the user in one of them ends all, and is raised here with its message.
    """
    if args.num_gpus * args.num_machines == 1:
        main(args)
        return
    reports = multiprocessing.get_context("spawn").SimpleQueue()
    try:
        launch(
            report_user_errors,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(main, args, reports),
        )
    except ProcessExitedException as error:
        if error.signal_name is not None:
            raise ToolError(
                f"process {error.error_index + 1} of {args.num_gpus} was killed ({error.signal_name}; is memory "
                "short?), and the others were ended. An evaluation goes on from here with the same command"
            ) from error
        raise_report(reports, error)
    except ProcessException as error:
        raise_report(reports, error)
    except KeyboardInterrupt:
        end_processes()
        raise


def raise_report(reports: multiprocessing.SimpleQueue, error: ProcessException) -> NoReturn:
    """Raise what the process that failed reported, or, if that was no error of the user, the error itself."""
    if reports.empty():
        raise error
    raise ToolError(reports.get()) from error


def report_user_errors(
    main: Callable[[argparse.Namespace], None], args: argparse.Namespace, reports: multiprocessing.SimpleQueue
) -> None:
    """In one of several processes: hand an error of the user to the process that started this one."""
    logging.raiseExceptions = False
    try:
        main(args)
    except USER_ERRORS as error:
        # Before the others can notice that this process is gone: theirs would only be errors that follow from it.
        reports.put(describe_error(error))
        raise SystemExit(1) from error


def end_processes(patience: float = 3.0) -> None:
    """Wait for processes that were interrupted; those still there after some seconds are interrupted, then killed.

    A terminal interrupts all processes of a command, whoever sends a signal perhaps only the first of them.
    """
    for end in (None, lambda process: os.kill(process.pid, signal.SIGINT), lambda process: process.kill()):
        running = multiprocessing.active_children()
        deadline = time.monotonic() + patience
        for process in running:
            if end is not None:
                end(process)
        for process in running:
            process.join(max(0.0, deadline - time.monotonic()))
