#!/usr/bin/env python3
"""Numbers of the README against their ledger. See eventful_vitdet/cli/check_claims_command.py."""

from eventful_vitdet.cli.door import Door

door = Door("check_claims_command")

if __name__ == "__main__":
    door.open()
