#!/usr/bin/env python3
"""Operations of ViTDet-B against a reference file. See eventful_vitdet/cli/operation_table_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("operation_table_command")

if __name__ == "__main__":
    door.open()
