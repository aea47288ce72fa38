#!/usr/bin/env python3
"""Detections on video: boxes, updated tokens and costs. See eventful_vitdet/cli/annotate_command.py."""

import sys

from eventful_vitdet.cli.annotate_command import main

if __name__ == "__main__":
    sys.exit(main())
