"""What the commands on videos do with a model that recognises actions: the strip of text in place of boxes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ..draw.annotated_video import AnnotateOptions
    from ..modeling import VideoClassifier
    from ..video import VideoSource

ENDING = "_actions"
"""What the name of an output has behind that of its input."""
FOR_DETECTORS = {
    "classes": "--classes",
    "track": "--track",
    "side_by_side_dense": "--side-by-side-dense",
    "show_tokens": "--show-tokens",
    "confidence_threshold": "--confidence-threshold",
}
"""Options about boxes, which actions have none of."""


def check_actions(cfg: CfgNode, arguments: argparse.Namespace) -> dict[str, list[str]]:
    """The names of the model's classes by head.

    Raises ConfigError for options of the command line that make no sense where actions are recognised.
    """
    from ..actions.action_names import action_names

    given = [option for name, option in FOR_DETECTORS.items() if getattr(arguments, name) not in (None, False, [])]
    if given:
        verb = "is" if len(given) == 1 else "are"
        raise ConfigError(
            f"{', '.join(given)} {verb} for detectors; {arguments.config_file} recognises actions, which have no boxes"
        )
    if arguments.every != 1:
        raise ConfigError(
            "--every is for detectors; a model of actions samples frames at its own rate (MODEL.VIVIT.FPS)"
        )
    return action_names(cfg)


def csv_outputs(save_csv: str | None, videos: Sequence[str]) -> list[str | None]:
    """The table of each video: the file that is named or, of several videos, files in that folder."""
    if save_csv is None or len(videos) == 1:
        return [save_csv] * len(videos)
    if os.path.splitext(save_csv)[1] and not os.path.isdir(save_csv):
        raise ConfigError(f"--save-csv {save_csv}: there are {len(videos)} videos, a file for each; name a folder")
    return [os.path.join(save_csv, f"{os.path.splitext(os.path.basename(path))[0]}.csv") for path in videos]


def annotate_actions(
    names: Mapping[str, Sequence[str]],
    cfg: CfgNode,
    model: VideoClassifier,
    source: VideoSource,
    output: str,
    options: AnnotateOptions,
) -> None:
    """Write one video, and say what it cost."""
    from ..draw.action_video import describe_step_costs, write_action_video

    costs, recogniser = write_action_video(cfg, model, names, source, output, options)
    print(f"{output}: {describe_step_costs(costs)}")
    if recogniser.control.controller.state is not None:
        print(recogniser.control.controller.state)
