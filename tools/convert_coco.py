#!/usr/bin/env python3
"""Plain COCO over frames to COCO-VID. See eventful_vitdet/cli/convert_coco_command.py."""

import sys

from eventful_vitdet.cli.convert_coco_command import main

if __name__ == "__main__":
    sys.exit(main())
