"""What the commands share once there is work to do: the configuration, a run's log files."""

from __future__ import annotations

import argparse
import atexit
import gc
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import detectron2
import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..actions import register_action_csv
from ..config import add_eventful_vitdet_config
from ..config_values import check_values
from ..data import register_test_json
from ..errors import ConfigError, FileError
from ..modeling.lazy_model import lazy_settings
from .checkout import REPOSITORY
from .console import take_console

logger = logging.getLogger("eventful_vitdet")

# Python would look through all of PyTorch for garbage when it ends. That takes a second or more, for which whoever ends
# a command by a signal waits.
atexit.register(gc.freeze)


def build_cfg(config_file: str, options: Sequence[str] = ()) -> CfgNode:
    """Defaults, then a configuration file, then KEY VALUE pairs; device and values are checked."""
    cfg = get_cfg()
    add_eventful_vitdet_config(cfg)
    if config_file:
        path = str(find_config(config_file))
        merge(lambda: merge_file(cfg, path), path)
    check_pairs(options)
    merge(lambda: cfg.merge_from_list(pairs_as_floats(cfg, options)), "the command line")
    check_device(cfg.MODEL.DEVICE)
    check_values(cfg)
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
    """Raise ConfigError unless options are configuration keys with a value each."""
    for word in options[::2]:
        if not re.fullmatch(r"[A-Z][A-Z0-9_.]*", word):
            raise ConfigError(f"{word!r} is no option; KEY VALUE pairs come last, and their keys are like MODEL.DEVICE")
    if len(options) % 2:
        raise ConfigError(f"options come as KEY VALUE pairs, but {options[-1]} has no value")


def merge(into: Callable[[], None], origin: str) -> None:
    """Merge settings; what is wrong with them reaches us in many forms, depending on where it was noticed."""
    try:
        into()
    except RecursionError as error:
        raise ConfigError(f"{origin}: its _BASE_ leads back to the file itself") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: is not valid yaml: {error}") from error
    except OSError as error:
        raise ConfigError(f"{origin}: {error.filename} cannot be read ({error.strerror})") from error
    except (AssertionError, KeyError, ValueError, TypeError, AttributeError) as error:
        text = str(error.args[0]) if isinstance(error, (AssertionError, KeyError)) and error.args else str(error)
        if isinstance(error, (TypeError, AttributeError)):  # yaml of no, or another, content
            text = f"expected a mapping of keys to values ({text})"
        # Where a whole group of keys meets a single value, the message lists the group.
        text = re.sub(r" with values \(.*\n.*\)(?= for )", "", text, flags=re.DOTALL)
        raise ConfigError(f"{origin}: {text.removeprefix(origin + ': ')}") from error


def check_device(name: str) -> None:
    """Raise ConfigError if MODEL.DEVICE is no device, or one that is not there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"MODEL.DEVICE = {name!r} is no device; choose 'cpu' or 'cuda'") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"MODEL.DEVICE = {name!r} is no device that is supported; choose 'cpu' or 'cuda'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"MODEL.DEVICE = {name!r}, but PyTorch finds {torch.cuda.device_count()} usable GPUs here; "
            "'cpu' runs without one"
        )


def find_config(name: str) -> Path:
    """A configuration file by its path, or by its name below configs/ as installed with the package."""
    package = Path(__file__).resolve().parents[1]
    for path in (Path(name), package / "configs" / name, REPOSITORY / "configs" / name):
        if os.path.isfile(path):  # False, too, where the folder may not be entered
            return path
    raise ConfigError(f"--config-file: there is no file {name}")


def setup(args: argparse.Namespace) -> CfgNode:
    """Configuration, log files and seeds of a run."""
    cfg = build_cfg(args.config_file, [*(lazy_settings(args.lazy) if args.lazy else ()), *args.opts])
    if args.test_json:
        register = register_action_csv if args.test_json.endswith(".csv") else register_test_json
        cfg.DATASETS.TEST = (register(args.test_json, args.test_root),)
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
        Path(folder).mkdir(parents=True, exist_ok=True)
        probe = Path(folder, f".write-test-{comm.get_rank()}")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise FileError(f"OUTPUT_DIR = {folder} cannot be written to: {error.strerror or error}") from error
