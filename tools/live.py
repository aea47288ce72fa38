#!/usr/bin/env python3
"""A local web page with a detector at work. See eventful_vitdet/cli/live_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("live_command")

if __name__ == "__main__":
    door.open()
