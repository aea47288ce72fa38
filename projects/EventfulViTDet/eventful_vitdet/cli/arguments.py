"""Command lines. Nothing here imports torch, so that --help and mistakes are answered at once."""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence

from ..budget_words import CALIBRATED, DENSE
from ..known_models import DEFAULT_MODEL, weights_settings

DEFAULT_PORT = 2**15 + 2**14 + (os.getuid() if hasattr(os, "getuid") else 1) % 2**14
"""The same in every run of a user on several machines: they have to agree on one."""

KEYS_WITHOUT_SECTION = ("CUDNN_BENCHMARK", "FLOAT32_PRECISION", "OUTPUT_DIR", "SEED", "VERSION", "VIS_PERIOD")
"""Keys of the configuration that have no dot to be told by."""

BEHIND_BUDGETS = re.compile(r"--?[a-zA-Z]|[a-zA-Z_]+\.\w|[A-Z_]+$")
"""How a word begins that may follow budgets: as an option, or as a key, perhaps a misspelt one."""

INSTALLED = "eventful-vitdet"
"""The installed command (main_command.py)."""
INSTALLED_NAMES = {
    "advise": "advise",
    "benchmark": "benchmark",
    "check_dataset": "check-data",
    "convert_coco": "convert-coco",
    "live": "live",
    "report": "report",
    "train_net": "train",
    "visualize_video": "predict",
}
"""What it calls the scripts of tools/."""


def call_of(tool: str) -> str:
    """How to call a script of tools/: as the installed command does, if that is running."""
    if os.path.basename(sys.argv[0]).startswith(INSTALLED) and tool in INSTALLED_NAMES:
        return f"{INSTALLED} {INSTALLED_NAMES[tool]}"
    return f"python tools/{tool}.py"


def command_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all commands have. Of a description, prose is wrapped, and examples stay."""
    if description is not None:
        description = re.sub(r"python tools/(\w+)\.py", lambda found: call_of(found[1]), description)
        description = wrap_prose(description, shutil.get_terminal_size().columns - 2)
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_argument_group("messages")
    amount = group.add_mutually_exclusive_group()
    amount.add_argument("-v", "--verbose", dest="verbosity", action="store_const", const=1, help="show all messages")
    amount.add_argument("-q", "--quiet", dest="verbosity", action="store_const", const=-1, help="show warnings only")
    group.add_argument("--traceback", action="store_true", help="show tracebacks of user errors, too")
    parser.set_defaults(verbosity=0)
    return parser


def wrap_prose(text: str, width: int) -> str:
    """The text with its paragraphs wrapped to a width. Indented ones, which are commands, stay as they are."""
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    paragraphs = text.strip("\n").split("\n\n")
    return "\n\n".join(part if part.startswith(" ") else wrapper.fill(part) for part in paragraphs)


def add_pairs(parser: argparse.ArgumentParser) -> None:
    """Let a command end with KEY VALUE pairs, `opts`."""
    # The default tells argparse that they may be missing: else it names them wherever something else is.
    parser.add_argument("opts", nargs="*", default=[], metavar="KEY VALUE", help="configuration, as in train_net.py")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Let a command run a detector: `config_file` and `weights`."""
    name = f"a name that `{INSTALLED} models` lists, or a configuration file (default: {DEFAULT_MODEL})"
    parser.add_argument(
        "--model", "--config-file", dest="config_file", default=DEFAULT_MODEL, metavar="NAME|FILE", help=name
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="the model's weights (default: its own, fetched on first use)"
    )


def model_pairs(arguments: argparse.Namespace) -> list[str]:
    """KEY VALUE pairs of a command line with `add_model` and `add_pairs`; the latter have the last word."""
    return [*weights_settings(arguments.config_file, arguments.weights), *arguments.opts]


def take_pairs(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split off KEY VALUE pairs that a command line has right behind its inputs."""
    for position, word in enumerate(words):
        is_key = word in KEYS_WITHOUT_SECTION or re.fullmatch(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+", word)
        if is_key and not os.path.exists(word):
            return list(words[:position]), list(words[position:])
    return list(words), []


def add_inputs(parser: argparse.ArgumentParser, kinds: str, several: bool = True) -> None:
    """Let a command have inputs, as words or as an option, and KEY VALUE pairs behind them: see `take_inputs`."""
    parser.add_argument("words", nargs="*", metavar="INPUT", help=f"{kinds}; then KEY VALUE pairs")
    amount = {"nargs": "+", "action": "extend"} if several else {}
    parser.add_argument("--input", metavar="INPUT", help="the same, as an option", **amount)


def take_one_input(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Let `input` be the one input of a command line, given as an option or among its `words`; the rest is `opts`."""
    inputs, arguments.opts = ([arguments.input], arguments.words) if arguments.input else take_pairs(arguments.words)
    if len(inputs) != 1:
        parser.error(f"give one video, folder, address or camera, found {len(inputs)}")
    arguments.input = inputs[0]


def take_inputs(parser: argparse.ArgumentParser, arguments: argparse.Namespace, hint: str = "") -> None:
    """Let `input` be the inputs of a command line, given as an option or among its `words`; the rest is `opts`.

    Args:
        hint: what to add to the complaint that there is none.
    """
    if arguments.input:
        arguments.input, pairs = take_pairs(arguments.input)
        arguments.opts = pairs + arguments.words
    else:
        arguments.input, arguments.opts = take_pairs(arguments.words)
    if not arguments.input:
        parser.error(f"give a video, a folder, an address, or the number of a camera{hint}")


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


def score(text: str) -> float:
    """A type of argument: a detection's score."""
    return _number(text, 0.0, 1.0, "is not a score; scores go from 0 to 1")


def percent(text: str) -> float:
    """A type of argument: a share of a hundred."""
    return _number(text, 0.0, 100.0, "is not a number from 0 to 100")


def factor(text: str) -> float:
    """A type of argument: by how much a picture is enlarged."""
    return _number(text, 0.1, 10.0, "is not a factor from 0.1 to 10")


def positive(text: str) -> float:
    """A type of argument: a number above 0."""
    return _number(text, math.ulp(0.0), sys.float_info.max, "is not a number above 0")


def _number(text: str, least: float, most: float, complaint: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text!r} {complaint}")
    return number


def training_parser(description: str | None = None) -> argparse.ArgumentParser:
    """Arguments of training and evaluation: those of Detectron2's scripts, and those of this project."""
    parser = command_parser(description)
    option = parser.add_argument
    name = f"YAML file with settings, or a name that `{INSTALLED} models` lists: that model with its weights"
    option("--config-file", "--model", default="", metavar="FILE|NAME", help=name)
    option("--resume", action="store_true", help="continue from the last checkpoint in OUTPUT_DIR")
    option("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS instead of training")
    option("--num-gpus", type=int, default=1, metavar="N", help="processes per machine, one per GPU")
    option("--num-machines", type=int, default=1, metavar="N", help="number of machines")
    option("--machine-rank", type=int, default=0, metavar="N", help="number of this machine, from 0")
    option("--dist-url", metavar="URL", help="where the processes of several machines meet: tcp://HOST:PORT")
    option("--test-json", metavar="FILE", help="evaluate this COCO-VID or CSV file in place of DATASETS.TEST")
    option(
        "--root",
        "--test-root",
        metavar="DIR",
        help="folder that the paths in --test-json start from (default: its folder, or the parent of 'annotations')",
    )
    option(
        "--lazy",
        metavar="FILE",
        help="take the model from this LazyConfig file (Python, which is run); needs the real Detectron2",
    )
    option(
        "--budgets",
        metavar="BUDGET ...",
        help="evaluate each of these: 'dense', 'calibrated', or tokens per gate and frame (as in: dense 64 128 256)",
    )
    option(
        "--restart",
        action="store_true",
        help="evaluate all videos again; by default, only those without results in OUTPUT_DIR",
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="settings, at the end")
    return parser


def parse_training(parser: argparse.ArgumentParser, words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line; `--budgets` takes words up to the first that is no budget."""
    words, budgets = take_budgets(parser, list(sys.argv[1:] if words is None else words))
    args = parser.parse_args(words)
    late = next((word for word in args.opts if word.startswith("--")), None)
    if late is not None:
        parser.error(f"{late} comes after KEY VALUE pairs; put options before them")
    if args.budgets is not None:
        parser.error("write --budgets in full and once, followed by its values: --budgets dense 64 128")
    args.budgets = budgets
    if args.dist_url is None:
        # On one machine a free port: a second run at the same time finds the usual one taken.
        args.dist_url = "auto" if args.num_machines == 1 else f"tcp://127.0.0.1:{DEFAULT_PORT}"
    if min(args.num_gpus, args.num_machines) < 1:
        parser.error("--num-gpus and --num-machines are 1 or larger")
    if not 0 <= args.machine_rank < args.num_machines:
        parser.error(f"--machine-rank counts the {args.num_machines} machines from 0, found {args.machine_rank}")
    if args.root is not None and args.test_json is None:
        parser.error("--root needs --test-json")
    for option, given in (("--budgets", budgets), ("--restart", args.restart)):
        if given and not args.eval_only:
            parser.error(f"{option} is for evaluations: add --eval-only")
    args.opts = [*weights_settings(args.config_file), *args.opts]
    return args


def take_budgets(parser: argparse.ArgumentParser, words: list[str]) -> tuple[list[str], list[str]]:
    """Split `--budgets dense 64 ...` off a command line; returns the other words, and the budgets."""
    if "--budgets" not in words:
        return words, []
    start = words.index("--budgets")
    end = start + 1
    while end < len(words) and (words[end] in (DENSE, CALIBRATED) or words[end].isdecimal()):
        end += 1
    budgets = list(dict.fromkeys(words[start + 1 : end]))
    rest = words[end:]
    if not budgets or (rest and not BEHIND_BUDGETS.match(rest[0])):
        found = f", found {rest[0]!r}" if rest else ""
        parser.error(f"--budgets needs 'dense', 'calibrated' or whole numbers of tokens{found}")
    return words[:start] + rest, budgets
