#!/usr/bin/env python3
"""ViTDet-B here and in the code of the paper's authors. See eventful_vitdet/cli/compare_authors_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("compare_authors_command")

if __name__ == "__main__":
    door.open()
