#!/usr/bin/env python3
"""A local web page with a detector at work. See eventful_vitdet/cli/live_command.py."""

import sys

from eventful_vitdet.cli.live_command import main

if __name__ == "__main__":
    sys.exit(main())
