#!/usr/bin/env python3
"""The report of an evaluation as one HTML file. See eventful_vitdet/cli/report_command.py."""

import sys

from eventful_vitdet.cli.report_command import main

if __name__ == "__main__":
    sys.exit(main())
