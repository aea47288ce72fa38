#!/usr/bin/env python3
"""Is a data set complete and readable? See eventful_vitdet/cli/check_dataset_command.py."""

import sys

from eventful_vitdet.cli.check_dataset_command import main

if __name__ == "__main__":
    sys.exit(main())
