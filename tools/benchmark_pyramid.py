#!/usr/bin/env python3
"""Time what follows the backbone of ViTDet-B. See eventful_vitdet/cli/benchmark_pyramid_command.py."""

import sys

from eventful_vitdet.cli.benchmark_pyramid_command import main

if __name__ == "__main__":
    sys.exit(main())
