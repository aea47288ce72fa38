#!/usr/bin/env python3
"""Check and measure the GPU path in one go. See eventful_vit_gpu_report/gpu_report_command.py."""

import sys

from eventful_vit_gpu_report.gpu_report_command import main

if __name__ == "__main__":
    sys.exit(main())
