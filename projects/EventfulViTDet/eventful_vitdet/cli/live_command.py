"""Show the detections of videos or cameras on a local web page, with a slider for the budget.

    python tools/live.py street.mp4
    python tools/live.py door.mp4 yard.mp4 rtsp://10.0.0.5/stream 0        # a tile for each
    python tools/live.py --model demo/vitdet_tiny --input datasets/demo_vid/videos/test_000.mp4
    python tools/live.py 0 --model FILE --weights WEIGHTS      # the first camera
    python tools/live.py 0 --wait                              # even if it is still off

Then open the address that it prints. Each INPUT is one tile; the videos of a folder play one after the other. With
several inputs, cameras and streams that are off get a tile that waits for them. The page cannot open any other file
or address.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from ..errors import ConfigError, LiveError, VideoReadError
from .arguments import add_inputs, add_model, command_parser, model_pairs, take_inputs
from .checkout import how_to_install
from .console import run

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ..live.session import LiveSession
    from ..video import VideoSource

LOCAL_ADDRESSES = ("127.0.0.1", "localhost", "::1")
EXTRA_PACKAGES = ("fastapi", "uvicorn", "websockets")
"""What the extra "live" brings."""


def execute(arguments: argparse.Namespace) -> None:
    missing = [name for name in EXTRA_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise LiveError(f"{', '.join(missing)} not found; {how_to_install('live')} brings what the page needs")
    from ..config_files import build_cfg
    from ..live.server import LiveServer, address_of, open_socket

    with open_socket(arguments.host, arguments.port) as bound:
        # What may be wrong is found out before the model is made.
        cfg = build_cfg(arguments.config_file, model_pairs(arguments))
        sources = open_inputs(arguments.input, arguments.wait)
        session = make_session(cfg, sources)
        if arguments.host not in LOCAL_ADDRESSES:
            print("anyone who can reach this machine over the network can watch and change settings", file=sys.stderr)
        server = LiveServer(session, arguments.allow_host)
        shown = sources[0].name if len(sources) == 1 else f"{len(sources)} inputs"
        print(f"{shown} at {address_of(bound)} (Ctrl-C ends)", flush=True)
        has_ended = server.serve_session(bound)
    print("ended", flush=True)
    if not has_ended:
        os._exit(0)  # a thread in the middle of a frame would crash, or hold up, the ordinary way out


def open_inputs(texts: Sequence[str], wait: bool) -> list[VideoSource]:
    """The sources that are named. Streams and cameras may be away, as long as one input is there.

    Args:
        wait: all may be away.

    Raises VideoReadError.
    """
    from ..video import StreamSource, check_distinct, open_source
    from ..video.background import call_all_aside

    # At once: an address where nobody answers takes seconds to find out.
    sources = call_all_aside([partial(open_source, text, may_be_away=True) for text in texts])
    check_distinct(sources)
    away = [source.name for source in sources if isinstance(source, StreamSource) and source.is_away]
    if len(away) == len(sources) and not wait:
        each = "is it" if len(away) == 1 else "is each of them"
        raise VideoReadError(
            f"{', '.join(away)}: cannot be opened; {each} there, switched on, and not in use elsewhere? "
            "--wait starts the page anyway"
        )
    for name in away:
        print(f"{name}: no signal; it will be shown as soon as it is available", file=sys.stderr)
    return sources


def make_session(cfg: CfgNode, sources: Sequence[VideoSource]) -> LiveSession:
    """The session of a configuration's model, a detector or one of actions.

    Raises ConfigError for several inputs of a model of actions.
    """
    from ..actions.action_names import action_names
    from ..config import is_classifier
    from ..live.action_session import ActionSession
    from ..live.detector_session import DetectorSession, GridSession
    from ..predictor import class_names, load_detector, load_model

    if is_classifier(cfg):
        if len(sources) > 1:
            raise ConfigError(f"a model of actions takes one input at a time here, found {len(sources)}")
        names = action_names(cfg)
        return ActionSession(cfg, load_model(cfg), sources[0], names)
    kind = DetectorSession if len(sources) == 1 else GridSession
    return kind(cfg, load_detector(cfg), sources, class_names(cfg))


def port(text: str) -> int:
    """A type of argument: a port to listen on."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; ports go from 0 (any free one) to 65535")
    return int(text)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_inputs(parser, "video files, folders or patterns, rtsp:// addresses, or camera numbers")
    add_model(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=port, default=8000, help="port to listen on; 0: any free one (default: 8000)")
    parser.add_argument(
        "--wait", action="store_true", help="start even if no camera or stream is available yet, and wait for them"
    )
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a host name that the page may have"
    )
    arguments = parser.parse_intermixed_args(words)
    take_inputs(parser, arguments)
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments), arguments)
