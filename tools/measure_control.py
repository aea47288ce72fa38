#!/usr/bin/env python3
"""How a controller follows its target. See eventful_vitdet/cli/measure_control_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("measure_control_command")

if __name__ == "__main__":
    door.open()
