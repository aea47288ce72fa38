#!/usr/bin/env python3
"""How a controller follows its target. See eventful_vitdet/cli/measure_control_command.py."""

import sys

from eventful_vitdet.cli.measure_control_command import main

if __name__ == "__main__":
    sys.exit(main())
