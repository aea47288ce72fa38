#!/usr/bin/env python3
"""Write a part of a COCO-VID file, for evaluations that should take less time.

    python datasets/subset_coco_vid.py datasets/airborne_vid/annotations/val.json \\
        datasets/airborne_vid/annotations/val_2s.json --start 120 --frames 60

keeps frames 120 to 179 of every video; `--every 10` keeps every tenth of those. `--videos 'V_BIRD_*' V_DRONE_017` keeps
videos of these names, `--except` the others. File names stay relative to the same folder, so write the new file beside
the old one.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import script_end


def subset(data: dict, start: int, frames: int, every: int, keeps: Callable[[str], bool] = lambda name: True) -> dict:
    """The part of a COCO-VID file with frame numbers start, start + every, ... below start + frames (0: no end), of the
    videos whose names are to be kept."""
    end = start + frames if frames else float("inf")
    of_videos = {video["id"] for video in data["videos"] if keeps(str(video.get("name", video["id"])))}
    images = [
        image
        for image in data["images"]
        if image["video_id"] in of_videos
        and start <= image["frame_id"] < end
        and (image["frame_id"] - start) % every == 0
    ]
    kept = {image["id"] for image in images}
    videos = {image["video_id"] for image in images}
    return {
        **data,
        "videos": [video for video in data["videos"] if video["id"] in videos],
        "images": images,
        "annotations": [annotation for annotation in data["annotations"] if annotation["image_id"] in kept],
    }


def main(arguments: argparse.Namespace) -> None:
    try:
        content = json.loads(arguments.input.read_bytes())  # of bytes, it knows byte order marks
        names = keeper(arguments.videos, arguments.left_out)
        part = subset(content, arguments.start, arguments.frames, arguments.every, names)
    except KeyError as error:
        raise ValueError(f"{arguments.input}: is no COCO-VID file: key {error} is missing") from error
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{arguments.input}: is no COCO-VID file ({error})") from error
    if not part["images"]:
        named = ", of those to be kept" if arguments.videos or arguments.left_out else ""
        raise ValueError(f"{arguments.input}: no video has frames from {arguments.start} on{named}")
    temporary = arguments.output.with_suffix(".tmp")
    temporary.write_text(json.dumps(part))
    temporary.replace(arguments.output)
    print(f"{arguments.output}: {len(part['images'])} frames of {len(part['videos'])} videos")


def keeper(kept: Sequence[str], left_out: Sequence[str]) -> Callable[[str], bool]:
    """Tells of a video's name whether it fits a pattern of the first list (an empty one: any) and none of the other."""

    def fits(name: str, patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    return lambda name: (not kept or fits(name, kept)) and not fits(name, left_out)


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or larger")
    return value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--start", type=int, default=0, help="first frame number (default: 0)")
    parser.add_argument("--frames", type=int, default=0, help="length in frame numbers (default: to the end)")
    parser.add_argument("--every", type=positive, default=1, help="keep every n-th frame (default: 1)")
    names = {"nargs": "+", "default": [], "metavar": "NAME"}
    parser.add_argument("--videos", **names, help="keep only videos of these names or patterns")
    parser.add_argument("--except", **names, dest="left_out", help="leave these out")
    arguments = parser.parse_args()
    sys.exit(script_end.run(lambda: main(arguments), (OSError, ValueError), "interrupted"))
