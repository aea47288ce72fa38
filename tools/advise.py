#!/usr/bin/env python3
"""Which budget reaches a number of milliseconds. See eventful_vitdet/cli/advise_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("advise_command")

if __name__ == "__main__":
    door.open()
