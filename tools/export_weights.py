#!/usr/bin/env python3
"""Weights of a checkpoint as a safetensors file. See eventful_vitdet/cli/export_weights_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("export_weights_command")

if __name__ == "__main__":
    door.open()
