#!/usr/bin/env python3
"""Train or evaluate a video detector. See eventful_vitdet/cli/train_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("train_command")

if __name__ == "__main__":
    door.open()
