#!/usr/bin/env python3
"""Check and measure the GPU path in one go. See eventful_vitdet/cli/gpu_report_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("gpu_report_command")

if __name__ == "__main__":
    door.open()
