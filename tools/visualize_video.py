#!/usr/bin/env python3
"""Detections on video: boxes, updated tokens and costs. See eventful_vitdet/cli/annotate_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("annotate_command")

if __name__ == "__main__":
    door.open()
