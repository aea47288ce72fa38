"""Configuration files: by path or by a model's name, with settings on top, and what is wrong with them as one line."""

from __future__ import annotations

import difflib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import torch
import yaml
from detectron2.config import CfgNode, get_cfg

from .config import add_eventful_vitdet_config
from .config_values import check_values
from .errors import ConfigError
from .known_models import CONFIGS, names_of_configs

WRONG_TYPE = re.compile(
    r"Type mismatch \(<class '(.+?)'> vs\. <class '(.+?)'>\)"
    r"(?: with values \((.*) vs\. (.*)\))? for config key: (\S+)",
    flags=re.DOTALL,
)
"""The message about a value of another type than that of its key, with the known type, then the given one."""
TYPE_NAMES = {"int": "a whole number", "float": "a number", "bool": "True or False", "str": "text", "NoneType": "None"}

MAX_CHARACTERS = 1 << 20
"""Of a configuration file: far more than all keys with their values have."""
MAX_VALUES = 100_000
"""Of a configuration file in which every alias (*name) is replaced by what it stands for."""


class BoundedCfgNode(CfgNode):
    """Reads configuration files that are no larger, also with all aliases written out, than some configuration is."""

    @classmethod
    def _open_cfg(cls, filename: str) -> IO[str]:
        with super()._open_cfg(filename) as file:
            text = file.read(MAX_CHARACTERS + 1)
        if len(text) > MAX_CHARACTERS:
            raise ConfigError(f"{filename}: is too large for a configuration")
        stream = io.StringIO(text)
        stream.name = filename  # for messages about what is no yaml
        if count_values(filename, yaml.safe_load(stream), {}) > MAX_VALUES:
            raise ConfigError(f"{filename}: its aliases (*name) multiply to more than {MAX_VALUES:,} values")
        stream.seek(0)
        return stream


def count_values(filename: str, value: object, known: dict[int, int]) -> int:
    """How many values there are in a value, those that are in it several times counted as often.

    Raises ConfigError for an integer beyond all that a key can have, which Python might not even print.
    """
    if isinstance(value, int) and value.bit_length() > 64:
        raise ConfigError(f"{filename}: has a whole number of {value.bit_length():,} bits")
    if isinstance(value, (dict, list)) and id(value) not in known:
        items = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(count_values(filename, item, known) for item in items)
    return known.get(id(value), 1)


def build_cfg(config_file: str, options: Sequence[str] = ()) -> CfgNode:
    """Defaults, then a configuration file, then KEY VALUE pairs; device and values are checked."""
    known = defaults()
    cfg = known.clone()
    if config_file:
        path = str(find_config(config_file))
        merge(lambda: merge_file(cfg, path), path)
    check_pairs(options)
    merge(lambda: cfg.merge_from_list(pairs_as_floats(cfg, options)), "the command line")
    settle_empty_keys(cfg, known)
    check_device(cfg.MODEL.DEVICE)
    check_values(cfg)
    return cfg


def settle_empty_keys(cfg: CfgNode, known: CfgNode, prefix: str = "") -> None:
    """Raise ConfigError for a key without a value, which yacs takes in place of any other.

    Where "" is the default, that is meant: `MODEL.WEIGHTS: null` is usual for no weights.
    """
    for key, before in known.items():
        if isinstance(before, CfgNode):
            settle_empty_keys(cfg[key], before, f"{prefix}{key}.")
        elif cfg[key] is None and before == "":
            cfg[key] = before
        elif cfg[key] is None and before is not None:
            raise ConfigError(f"{prefix}{key} has no value; its default is {before!r}")


def defaults() -> CfgNode:
    """All keys with their default values."""
    cfg = get_cfg()
    add_eventful_vitdet_config(cfg)
    return cfg


def merge_file(cfg: CfgNode, path: str) -> None:
    """Merge a configuration file, in which a number that is no integer may be written as one."""
    # The real Detectron2 would by default also read files that run code.
    loaded = CfgNode(BoundedCfgNode.load_yaml_with_base(path, allow_unsafe=False))
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
    except ConfigError:
        raise
    except RecursionError as error:
        raise ConfigError(f"{origin}: its _BASE_, or a value, leads back to itself, or is nested too deeply") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: is not valid yaml: {error}") from error
    except OSError as error:
        raise ConfigError(f"{origin}: {error.filename} cannot be read ({error.strerror})") from error
    except (AssertionError, KeyError, ValueError, TypeError, AttributeError) as error:
        text = str(error.args[0]) if isinstance(error, (AssertionError, KeyError)) and error.args else str(error)
        if isinstance(error, (TypeError, AttributeError)):  # yaml of no, or another, content
            text = f"expected a mapping of keys to values ({text})"
        text = name_wrong_type(text)
        raise ConfigError(f"{origin}: {text.removeprefix(origin + ': ')}{near_keys(text)}") from error


def name_wrong_type(message: str) -> str:
    """Say of which type a value has to be; other messages stay as they are.

    The original names classes, and where a whole group of keys meets a single value, it lists the group.
    """
    found = WRONG_TYPE.fullmatch(message)
    if found is None:
        return message
    known, given, example, value, key = found.groups()
    if known.endswith("CfgNode"):
        return f"{key} is a group of keys: set those inside it, such as {key}.NAME, not {key} itself"
    such_as = f", such as {example}" if example and known != "bool" and "\n" not in example else ""
    needed, found_type = (TYPE_NAMES.get(name, f"a {name}") for name in (known, given))
    return f"{key} needs {needed}{such_as}, found {value} ({found_type})"


def near_keys(message: str) -> str:
    """What to add to a message about a key that does not exist: keys that look like it."""
    unknown = re.fullmatch(r"Non-existent key: (\S+)", message)
    if unknown is None:
        return ""
    near = difflib.get_close_matches(unknown[1], list(all_keys(defaults())), 2, cutoff=0.75)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def all_keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    """The keys of a configuration and of its groups, in full."""
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, CfgNode):
            yield from all_keys(value, f"{prefix}{key}.")


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
    """A configuration file by its path, or by its name below configs/ as installed with the package, with or without
    ".yaml": "coco/mask_rcnn_vitdet_b". Raises ConfigError, with names that look like it."""
    inside = CONFIGS / name.removeprefix("configs/")
    for path in (Path(name), inside, Path(f"{inside}.yaml")):
        if os.path.isfile(path):  # False, too, where the folder may not be entered
            return path
    wanted = name.removeprefix("configs/").removesuffix(".yaml")
    near = difflib.get_close_matches(wanted, names_of_configs(), 3)
    hint = f"; did you mean {' or '.join(near)}?" if near else " (`eventful-vitdet models` lists them)"
    raise ConfigError(f"there is no file {name}, and no model of that name{hint}")
