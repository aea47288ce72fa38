#!/usr/bin/env python3
"""Between ILSVRC2015's layout and COCO-VID. See eventful_vitdet/cli/convert_imagenet_vid_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("convert_imagenet_vid_command")

if __name__ == "__main__":
    door.open()
