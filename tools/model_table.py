#!/usr/bin/env python3
"""Parameters and operations of the published models. See eventful_vitdet/cli/model_table_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("model_table_command")

if __name__ == "__main__":
    door.open()
