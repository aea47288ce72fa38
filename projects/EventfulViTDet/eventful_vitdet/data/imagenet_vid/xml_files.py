"""The XML files of ImageNet VID and DET: one for each frame or image.

A box is kept as (x, y, width, height) with width = xmax - xmin: the corners of the file are taken as points of the
image plane, as COCO's are. Whole numbers and decimals survive reading and writing digit for digit.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from decimal import Context, Decimal, InvalidOperation
from typing import NamedTuple
from xml.sax.saxutils import escape

from ...errors import DatasetError
from ..annotation_file import quote

ABSENT = -1
"""Track, flag or crowd mark that a file does not give."""

MAX_PIXELS = 1 << 24
EXACT = Context(prec=100)  # digits enough for the sum of any two floats below MAX_PIXELS that a box may hold


class XmlObject(NamedTuple):
    """An annotated object: class as written (a wnid), box (x, y, width, height) in pixels, track number and flags."""

    name: str
    box: tuple[float, float, float, float]
    track: int = ABSENT
    occluded: int = ABSENT
    generated: int = ABSENT
    crowd: int = ABSENT


class XmlFrame(NamedTuple):
    """The content of a file: size of the image in pixels and its objects."""

    width: int
    height: int
    objects: list[XmlObject]


def read_xml(path: str) -> XmlFrame:
    """Read a file. Raises DatasetError, naming it, if it is absent, no XML, or has no usable size or box."""
    try:
        root = ET.parse(path).getroot()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    except (ET.ParseError, ValueError, LookupError) as error:
        raise DatasetError(f"{path}: is not valid XML ({error})") from error
    size = root.find("size")
    if size is None:
        raise DatasetError(f"{path}: gives no size of the image (an element <size> with <width> and <height>)")
    width, height = (_integer(path, size, key, 0) for key in ("width", "height"))
    if not (0 < width < MAX_PIXELS and 0 < height < MAX_PIXELS):
        raise DatasetError(f"{path}: gives the size {width} x {height}; expected positive numbers of pixels")
    return XmlFrame(width, height, [_read_object(path, element) for element in root.findall("object")])


def _read_object(path: str, element: ET.Element) -> XmlObject:
    name = (element.findtext("name") or "").strip()
    corners = element.find("bndbox")
    if not name or corners is None:
        raise DatasetError(f"{path}: has an object without <name> or without <bndbox>")
    x0, y0, x1, y1 = (_coordinate(path, corners, key) for key in ("xmin", "ymin", "xmax", "ymax"))
    flags = [_integer(path, element, key, ABSENT) for key in ("occluded", "generated", "iscrowd")]
    if any(flag not in (ABSENT, 0, 1) for flag in flags):
        raise DatasetError(f"{path}: has an object with flags other than 0 and 1 (occluded, generated): {flags[:2]}")
    box = (float(x0), float(y0), float(EXACT.subtract(x1, x0)), float(EXACT.subtract(y1, y0)))
    return XmlObject(name, box, _integer(path, element, "trackid", ABSENT), *flags)


def _integer(path: str, parent: ET.Element, key: str, default: int) -> int:
    text = parent.findtext(key)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError as error:
        raise DatasetError(f"{path}: <{key}> is {quote(text)}; expected a whole number") from error
    if abs(value) > 2**31 - 1:
        raise DatasetError(f"{path}: <{key}> is {quote(text)}, which is too large")
    return value


def _coordinate(path: str, parent: ET.Element, key: str) -> Decimal:
    text = parent.findtext(key, "").strip()
    try:
        value = Decimal(text)
        usable = abs(value) < MAX_PIXELS
    except InvalidOperation:  # no number, or NaN
        usable = False
    if not usable:
        raise DatasetError(f"{path}: <{key}> of a box is {quote(text)}; expected a number of pixels")
    return value


def format_xml(folder: str, stem: str, frame: XmlFrame) -> str:
    """The text of a file for the image `folder`/`stem`."""
    return "\n".join(
        [
            "<annotation>",
            f"\t<folder>{escape(folder)}</folder>",
            f"\t<filename>{escape(stem)}</filename>",
            f"\t<size>\n\t\t<width>{frame.width}</width>\n\t\t<height>{frame.height}</height>\n\t</size>",
            *(_format_object(item) for item in frame.objects),
            "</annotation>\n",
        ]
    )


def _format_object(item: XmlObject) -> str:
    x, y, width, height = (Decimal(repr(value)) for value in item.box)
    corners = {"xmax": EXACT.add(x, width), "xmin": x, "ymax": EXACT.add(y, height), "ymin": y}
    marks = {"occluded": item.occluded, "generated": item.generated, "iscrowd": item.crowd}
    track = [] if item.track == ABSENT else [f"\t\t<trackid>{item.track}</trackid>"]
    return "\n".join(
        [
            "\t<object>",
            *track,
            f"\t\t<name>{escape(item.name)}</name>",
            "\t\t<bndbox>",
            *(f"\t\t\t<{key}>{_format_number(value)}</{key}>" for key, value in corners.items()),
            "\t\t</bndbox>",
            *(f"\t\t<{key}>{value}</{key}>" for key, value in marks.items() if value != ABSENT),
            "\t</object>",
        ]
    )


def _format_number(value: Decimal) -> str:
    return str(int(value)) if value == value.to_integral_value() else format(value, "f")
