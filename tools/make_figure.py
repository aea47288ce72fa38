#!/usr/bin/env python3
"""The paper's first figure, for any video. See eventful_vitdet/cli/figure_command.py."""

import sys

from eventful_vitdet.cli.figure_command import main

if __name__ == "__main__":
    sys.exit(main())
