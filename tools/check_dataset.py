#!/usr/bin/env python3
"""Is a data set complete and readable? See eventful_vitdet/cli/check_dataset_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("check_dataset_command")

if __name__ == "__main__":
    door.open()
