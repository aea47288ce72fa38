#!/usr/bin/env python3
"""Train or evaluate a video detector. See eventful_vitdet/cli/train_command.py."""

import sys

from eventful_vitdet.cli.train_command import main

if __name__ == "__main__":
    sys.exit(main())
