#!/usr/bin/env python3
"""Time what follows the backbone of ViTDet-B. See eventful_vitdet/cli/benchmark_pyramid_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("benchmark_pyramid_command")

if __name__ == "__main__":
    door.open()
