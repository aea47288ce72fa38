#!/usr/bin/env python3
"""Operations of ViTDet-B against a reference file. See eventful_vitdet/cli/operation_table_command.py."""

import sys

from eventful_vitdet.cli.operation_table_command import main

if __name__ == "__main__":
    sys.exit(main())
