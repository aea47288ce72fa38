"""A finished evaluation stays in its folder, whole, until the one that replaces it is complete.

The replacement grows in a folder inside the evaluation's own, which holds the same files. When it is complete, and with
it all others of the same command, that folder is renamed, and from then on its files are moved into place, by the next
command if this one is killed.
"""

from __future__ import annotations

import os

from ..files import remove_folder
from .fingerprint import FINGERPRINT_FILE, read_fingerprint, write_fingerprint
from .results import RESULTS_FILE
from .store import record_paths

GROWING = "replacement"
MOVING = "replacing"
"""Names of the folder, before and after the replacement is complete."""
ASIDE = "replaced"
"""Where the records that are being replaced are, for a moment, in MOVING."""


def replacement_folder(folder: str) -> str:
    """Where the replacement of the evaluation in a folder is, or would be."""
    return os.path.join(folder, GROWING)


def has_evaluation(folder: str) -> bool:
    """Whether there is anything in a folder that is worth keeping until it is replaced."""
    return bool(record_paths(folder)) or any(
        os.path.isfile(os.path.join(folder, name)) for name in (RESULTS_FILE, FINGERPRINT_FILE)
    )


def has_replacement(folder: str) -> bool:
    """Whether a replacement has been begun, and has not taken its place yet."""
    return os.path.isfile(os.path.join(replacement_folder(folder), FINGERPRINT_FILE))


def drop_replacement(folder: str) -> None:
    """Delete an unfinished replacement; other processes may be doing the same."""
    remove_folder(replacement_folder(folder))


def begin_replacement(folder: str) -> None:
    """From now on, evaluations in a folder go to its replacement."""
    write_fingerprint(replacement_folder(folder), {}, complete=False)


def finish_replacement(folder: str) -> None:
    """Let a complete replacement take its place, if there is one. Raises EvaluationError if it is damaged."""
    if has_replacement(folder) and read_fingerprint(replacement_folder(folder))["complete"]:
        os.rename(replacement_folder(folder), os.path.join(folder, MOVING))
    move_into_place(folder)


def move_into_place(folder: str) -> None:
    """Move what a complete replacement consists of; wherever this was killed before, it continues."""
    source = os.path.join(folder, MOVING)
    if not os.path.isdir(source):
        return
    aside = os.path.join(source, ASIDE)
    remove_folder(aside)
    parts = {name: os.path.join(source, name) for name in os.listdir(source)}
    for name in sorted(parts, key=lambda name: not os.path.isdir(parts[name])):  # records first
        target = os.path.join(folder, name)
        if os.path.isdir(parts[name]) and os.path.isdir(target):
            os.rename(target, aside)
        os.replace(parts[name], target)
        remove_folder(aside)
    remove_folder(source)
