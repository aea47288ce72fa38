#!/usr/bin/env python3
"""Weights of a checkpoint as a safetensors file. See eventful_vitdet/cli/export_weights_command.py."""

import sys

from eventful_vitdet.cli.export_weights_command import main

if __name__ == "__main__":
    sys.exit(main())
