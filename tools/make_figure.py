#!/usr/bin/env python3
"""The paper's first figure, for any video. See eventful_vitdet/cli/figure_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("figure_command")

if __name__ == "__main__":
    door.open()
