#!/usr/bin/env python3
"""Find the budget that reaches a target in milliseconds. See eventful_vitdet/cli/advise_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("advise_command")

if __name__ == "__main__":
    door.open()
