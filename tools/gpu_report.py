#!/usr/bin/env python3
"""Check and measure the GPU path in one go. See eventful_vit_gpu_report/gpu_report_command.py."""

import sys

if __name__ == "__main__":
    try:
        # Not through eventful_vitdet: this runs where its requirements are not installed.
        from eventful_vit_gpu_report.gpu_report_command import main

        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
