#!/usr/bin/env python3
"""Show the detections of videos or cameras on a local web page. See eventful_vitdet/cli/live_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("live_command")

if __name__ == "__main__":
    door.open()
