#!/usr/bin/env python3
"""The demonstration of action recognition. See eventful_vitdet/cli/demo_actions_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("demo_actions_command")

if __name__ == "__main__":
    door.open()
