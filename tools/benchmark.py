#!/usr/bin/env python3
"""Time ViTDet-B or a ViT of timm per frame, dense against eventful. See eventful_vitdet/cli/benchmark_command.py."""

import sys

from eventful_vitdet.cli.benchmark_command import main

if __name__ == "__main__":
    sys.exit(main())
