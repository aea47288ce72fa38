"""Keeps other web sites out of a page that listens on this machine.

A page from elsewhere can make a browser send requests here, and, by having its own name resolve to this machine, even
make them look like same-origin ones. Both show in the headers that browsers write themselves: Host and Origin.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Collection

LOCAL_NAMES = ("localhost",)
HEADERS = {
    b"content-security-policy": b"default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}


class Guard:
    """ASGI middleware: refuses requests that did not come from the page itself, and adds headers to every answer."""

    def __init__(self, app: Callable[..., Awaitable], names: Collection[str] = ()) -> None:
        """
        Args:
            names: host names, beside localhost and addresses, under which the page is reached.
        """
        self._app = app
        self._names = {name.lower() for name in (*LOCAL_NAMES, *names)}

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        reason = self.refusal(headers, is_page=is_navigation(scope, headers))
        if reason is None:
            await self._app(scope, receive, lambda message: send(_with_headers(message)))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            plain = {b"content-type": b"text/plain; charset=utf-8", **HEADERS}
            await send({"type": "http.response.start", "status": 403, "headers": list(plain.items())})
            await send({"type": "http.response.body", "body": f"{reason}\n".encode()})

    def refusal(self, headers: dict[bytes, str], *, is_page: bool = False) -> str | None:
        """Why a request with these headers is refused; None if it is not.

        Args:
            is_page: somebody follows a link to the page, which may be anywhere, and sees it as a whole.
        """
        host = headers.get(b"host", "").lower()
        name = _host_name(host)
        if name is None or not (name in self._names or _is_address(name)):
            return "this page is not served under that name; --allow-host NAME allows one"
        origin = headers.get(b"origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            return "requests from other sites are refused"
        if not is_page and headers.get(b"sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return "requests from other sites are refused"
        return None


def is_navigation(scope: dict, headers: dict[bytes, str]) -> bool:
    """Whether a browser opens what is asked for as the page of a window, not for a script or frame of another page."""
    return (
        scope["type"] == "http"
        and scope["method"] == "GET"
        and headers.get(b"sec-fetch-mode") == "navigate"
        and headers.get(b"sec-fetch-dest") == "document"
    )


def _host_name(host: str) -> str | None:
    """The name or address in a Host header, without its port."""
    match = re.fullmatch(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?", host)
    return match[1].strip("[]") if match else None


def _is_address(name: str) -> bool:
    # A name that points here can be anybody's, an address cannot be faked.
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _with_headers(message: dict) -> dict:
    if message["type"] != "http.response.start":
        return message
    own = [(name, value) for name, value in message.get("headers", []) if name.lower() not in HEADERS]
    return {**message, "headers": [*own, *HEADERS.items()]}
