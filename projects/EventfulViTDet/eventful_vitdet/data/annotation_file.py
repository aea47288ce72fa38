"""The JSON of an annotation file, and the checks of single values in it."""

from __future__ import annotations

import json
import os
import reprlib
import unicodedata
from collections.abc import Collection, Mapping
from numbers import Real

from ..errors import DatasetError
from ..file_signatures import HEAD_BYTES, describe_foreign

MAX_INTEGER = 1 << 53  # JSON's integers have any length; a float, and so every JSON reader, holds these exactly
MAX_SIDE_PIXELS = 1 << 24
MAX_NAME = 1000
"""Letters of a class's or video's name."""

_QUOTES = reprlib.Repr()
_QUOTES.maxstring = _QUOTES.maxother = 80
_QUOTES.maxlong = 30


def quote(value: object) -> str:
    """A value of a file for a message: never longer than a line bears."""
    return _QUOTES.repr(value)


def read_document(json_file: str, tables: Collection[str]) -> dict:
    """The content of a JSON file that holds a list under each of the given names. Raises DatasetError."""
    document = read_json_object(json_file, tables)
    check_tables(json_file, document, tables)
    return document


def read_json_object(json_file: str, tables: Collection[str]) -> dict:
    """The content of a JSON file that should have the given names. Raises DatasetError if it is no object.

    UTF-8, with or without a byte order mark, UTF-16 and UTF-32 are read.
    """
    try:
        with open(json_file, "rb") as file:
            content = file.read()
    except OSError as error:
        raise DatasetError(f"{json_file}: cannot read the annotation file ({error.strerror})") from error
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:  # wrong bytes and numbers without end are ValueErrors too
        what = describe_foreign(content[:HEAD_BYTES])
        reason = f"is {what}" if what else f"is not valid JSON ({error})"
        raise DatasetError(f"{json_file}: {reason}") from error
    if not isinstance(document, dict):
        raise DatasetError(f"{json_file}: expected a JSON object with the keys {', '.join(tables)}")
    return document


def check_tables(json_file: str, document: Mapping, tables: Collection[str]) -> None:
    """Raise DatasetError unless there is a list under each of the given names."""
    for key in tables:
        if key not in document:
            raise DatasetError(f"{json_file}: key '{key}' is missing (needed: {', '.join(tables)}){_advice(document)}")
        if not isinstance(document[key], list):
            raise DatasetError(f"{json_file}: '{key}' must be a list, found {type(document[key]).__name__}")


def _advice(document: Mapping) -> str:
    if "videos" not in document and "images" in document and "annotations" in document:
        return ". This looks like plain COCO: `eventful-vitdet convert-coco` makes videos of its frames"
    return ""


def whole_number(value: object) -> int | None:
    """A value as an integer if it is one, perhaps written as 1.0, and not too large; else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float):
        if not value.is_integer():  # nor NaN or infinity
            return None
        value = int(value)
    return value if abs(value) < MAX_INTEGER else None


def read_whole(where: str, entry: Mapping, key: str) -> int:
    """An entry's value as an integer. Raises DatasetError, quoting it, if it is none."""
    value = whole_number(entry[key])
    if value is None:
        raise DatasetError(f"{where} has {key} {quote(entry[key])}; expected a whole number below 2^53")
    return value


def check_flag(where: str, annotation: Mapping, key: str) -> None:
    """Raise DatasetError, quoting it, for a flag of an annotation that is neither 0 nor 1; it may be absent."""
    if annotation.get(key, 0) not in (0, 1):
        raise DatasetError(f"{where} has {key} {quote(annotation[key])}; expected 0 or 1")


def check_area(where: str, annotation: Mapping) -> None:
    """Raise DatasetError, quoting it, for an annotation's area that is none; it may be absent."""
    area = annotation.get("area", 0)
    if not (is_finite(area) and area >= 0):
        raise DatasetError(f"{where} has area {quote(area)}; expected a number of pixels")


def is_finite(value: object) -> bool:
    """Whether a value, NumPy's included, is a number of a size that coordinates and areas may have."""
    is_number = isinstance(value, (int, float, Real))  # the first two are quick to tell, and what files have
    return is_number and not isinstance(value, bool) and bool(abs(value) < MAX_INTEGER)


def is_box(value: object) -> bool:
    """Whether a value of a JSON file is a list of four such numbers."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_finite, value))


def is_file_name(value: object) -> bool:
    """Whether a value can be the name of a file: text without a NUL, which the file system knows how to spell."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def is_plain_text(value: object) -> bool:
    """Whether a value is text that can be printed and stored: neither empty nor endless, valid Unicode without control
    characters."""
    is_text = isinstance(value, str) and 0 < len(value) <= MAX_NAME
    return is_text and not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value)
