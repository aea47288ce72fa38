#!/usr/bin/env python3
"""The report of an evaluation as one HTML file. See eventful_vitdet/cli/report_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("report_command")

if __name__ == "__main__":
    door.open()
