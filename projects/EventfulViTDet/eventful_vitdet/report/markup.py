"""Building HTML and SVG from values: text is escaped unless it was made here."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

# Not allowed in HTML, or, for lone surrogates, not representable in a file.
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})


class Markup(str):
    """Text that is HTML already."""


def escape(value: object) -> Markup:
    """Text for use between tags or in an attribute, with what cannot be shown replaced."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(FORBIDDEN.sub("\ufffd", str(value)), quote=True))


def tag(name: str, attributes: Mapping[str, object] | None = None, *children: object) -> Markup:
    """An element. Attributes that are None or False are left out, True gives the bare name; None children vanish."""
    written = []
    for key, value in (attributes or {}).items():
        if value is True:
            written.append(f" {key}")
        elif value is not None and value is not False:
            # Markup has no meaning inside an attribute: whatever comes is text there.
            written.append(f' {key}="{escape(str(value))}"')
    opened = f"<{name}{''.join(written)}>"
    return Markup(opened) if name in VOID else Markup(f"{opened}{join(*children)}</{name}>")


def join(*children: object) -> Markup:
    """Several pieces one after the other."""
    return Markup("".join(escape(child) for child in children if child is not None))
