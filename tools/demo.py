#!/usr/bin/env python3
"""The demonstration on rendered videos. See eventful_vitdet/cli/demo_command.py."""

import sys

from eventful_vitdet.cli.demo_command import main

if __name__ == "__main__":
    sys.exit(main())
