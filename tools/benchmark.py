#!/usr/bin/env python3
"""Time ViTDet-B or a ViT of timm per frame, dense against eventful. See eventful_vitdet/cli/benchmark_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("benchmark_command")

if __name__ == "__main__":
    door.open()
