#!/usr/bin/env python3
"""Parameters and operations of the published models. See eventful_vitdet/cli/model_table_command.py."""

import sys

from eventful_vitdet.cli.model_table_command import main

if __name__ == "__main__":
    sys.exit(main())
