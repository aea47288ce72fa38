#!/usr/bin/env python3
"""Plain COCO over frames to COCO-VID. See eventful_vitdet/cli/convert_coco_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("convert_coco_command")

if __name__ == "__main__":
    door.open()
