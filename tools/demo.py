#!/usr/bin/env python3
"""The demonstration on rendered videos. See eventful_vitdet/cli/demo_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("demo_command")

if __name__ == "__main__":
    door.open()
