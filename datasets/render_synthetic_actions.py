"""Render a data set of actions in the layout of EPIC-Kitchens, two splits that share no random numbers.

    python datasets/render_synthetic_actions.py --output datasets/synthetic_actions --split train
    python datasets/render_synthetic_actions.py --output datasets/synthetic_actions --split test

writes `<split>.csv` and `videos/<split>_NNN.mp4` below the output folder. A video shows each of 8 verbs with each of 6
nouns for 24 frames. A split that is already there with the same options is left alone.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
import tempfile
from pathlib import Path

import script_end
from render_synthetic_vid import INCOMPLETE, encode
from synthetic_actions import CLIP_FRAMES, NOUNS, VERBS, Settings, plan_video, render_video
from synthetic_scene import FPS, RenderError
from tqdm import tqdm

DEFAULTS = {"train": 100, "test": 5}
COLUMNS = (
    *("narration_id", "video_id", "start_timestamp", "stop_timestamp"),
    *("narration", "verb", "verb_class", "noun", "noun_class"),
)


def write_video(path: Path, settings: Settings, video: int) -> None:
    """Render and encode one video. Raises RenderError if not all of it was written."""
    frames = CLIP_FRAMES * len(VERBS) * len(NOUNS)
    encode(path, settings.side, settings.side, frames, render_video(settings, video))


def clock(frame: int) -> str:
    """When a frame is shown, as HH:MM:SS.sss."""
    milliseconds = round(1000 * frame / FPS)
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{milliseconds:03d}"


def describe(settings: Settings) -> str:
    """The CSV file of a split."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for video in range(settings.videos):
        name = video_name(settings, video)
        for number, action in enumerate(plan_video(settings, video)):
            verb, noun = VERBS[action.verb], NOUNS[action.noun]
            times = clock(action.first_frame), clock(action.first_frame + CLIP_FRAMES)
            narration = f"{noun}: {verb.replace('_', ' ')}"
            writer.writerow((f"{name}_{number:02d}", name, *times, narration, verb, action.verb, noun, action.noun))
    return text.getvalue()


def video_name(settings: Settings, video: int) -> str:
    return f"{settings.split}_{video:03d}"


def render_split(output: Path, settings: Settings, force: bool = False) -> bool:
    """Render a split into `output`; returns whether there was anything to do.

    The CSV file goes first and comes back last, so that one that exists always belongs to its videos.
    """
    table, stamp_file, videos = output / f"{settings.split}.csv", output / f"{settings.split}.json", output / "videos"
    names = [f"{video_name(settings, video)}.mp4" for video in range(settings.videos)]
    stamp = json.dumps(settings.stamp()) + "\n"
    unchanged = table.is_file() and stamp_file.is_file() and stamp_file.read_text(encoding="utf-8") == stamp
    if unchanged and not force and all((videos / name).is_file() for name in names):
        return False
    if table.exists() and not stamp_file.exists():
        raise RenderError(f"{table} was not written by this script: choose another --output")
    videos.mkdir(parents=True, exist_ok=True)
    table.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=".rendering_", dir=output) as scratch:
        for video, name in enumerate(tqdm(names, desc=f"rendering {settings.split}", unit="video")):
            write_video(Path(scratch, name), settings, video)
            os.replace(Path(scratch, name), videos / name)
        for path, content in ((stamp_file, stamp), (table, describe(settings))):
            unfinished = Path(scratch, path.name)
            unfinished.write_text(content, encoding="utf-8")
            os.replace(unfinished, path)
    return True


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Render a small synthetic data set of actions.")
    parser.add_argument("--output", type=Path, required=True, help="the folder: datasets/synthetic_actions")
    parser.add_argument("--split", choices=DEFAULTS, required=True, help="the two share no random numbers")
    parser.add_argument("--videos", type=int, help="number of videos of 48 clips (default: train 100, test 5)")
    parser.add_argument("--side", type=int, default=64, help="width and height in pixels (64)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--force", action="store_true", help="render again even if the split is complete")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    return script_end.run(lambda: render(options), (RenderError, OSError), INCOMPLETE)


def render(options: argparse.Namespace) -> None:
    videos = DEFAULTS[options.split] if options.videos is None else options.videos
    settings = Settings(options.split, videos, options.side, options.seed)
    done = render_split(options.output, settings, options.force)
    print(f"{options.output}: {options.split} {'rendered' if done else 'is already there'}")


if __name__ == "__main__":
    sys.exit(main())
