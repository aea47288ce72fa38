"""Files of calibrated budgets: JSON, read without running code, written whole or not at all."""

from __future__ import annotations

import json
import os

from eventful_vit import Calibration, Policy
from eventful_vit.model import EventfulModel

from .errors import ConfigError
from .files import write_json

MAX_BYTES = 1 << 20
"""Far more than the budgets of any model."""


def read_policy_file(path: str) -> Calibration:
    """The budgets of a file. Raises ConfigError, naming it, for a file that has none."""
    if not path:
        raise ConfigError("MODEL.EVENTFUL.POLICY_FILE is empty: name the file that `eventful-vitdet calibrate` wrote")
    try:
        if os.path.getsize(path) > MAX_BYTES:
            raise ConfigError(f"MODEL.EVENTFUL.POLICY_FILE = {path}: too large for a file of budgets")
        with open(path, encoding="utf-8") as file:
            return Calibration.from_dict(json.load(file))
    except OSError as error:
        raise ConfigError(f"MODEL.EVENTFUL.POLICY_FILE = {path}: {error.strerror or error}") from error
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:  # of JSON, of UTF-8, or of its content
        raise ConfigError(f"MODEL.EVENTFUL.POLICY_FILE = {path}: {error}") from error


def calibrated_policy(path: str, model: EventfulModel | None = None) -> Policy:
    """The policy of a file. Raises ConfigError, naming it, also if its budgets were found for another model."""
    calibration = read_policy_file(path)
    if model is not None:
        try:
            calibration.check(model)
        except ValueError as error:
            raise ConfigError(f"MODEL.EVENTFUL.POLICY_FILE = {path}: {error}") from error
    return calibration.policy()


def write_policy_file(path: str, calibration: Calibration) -> None:
    """Write budgets for `read_policy_file`."""
    write_json(path, calibration.to_dict())
