"""The page's web server."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import FileResponse, JSONResponse
from starlette.requests import ClientDisconnect

from ..errors import LiveError
from ..interruption import Interruptions, signals_handled
from .guard import Guard
from .session import LiveSession
from .settings import RequestError
from .viewing import serve_viewer

PAGE = Path(__file__).resolve().parent / "page"
FILES = {
    "/": ("index.html", "text/html"),
    "/live.css": ("live.css", "text/css"),
    "/live.js": ("live.js", "text/javascript"),
    "/charts.js": ("charts.js", "text/javascript"),
    "/costs.js": ("costs.js", "text/javascript"),
    "/list.js": ("list.js", "text/javascript"),
    "/labels.js": ("labels.js", "text/javascript"),
    "/picture.js": ("picture.js", "text/javascript"),
    "/stage.js": ("stage.js", "text/javascript"),
    "/tiles.js": ("tiles.js", "text/javascript"),
    "/updates.js": ("updates.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
MAX_BODY_BYTES = 4096
SHUTDOWN_SECONDS = 1
"""Viewers end at once; this is for what else may be under way."""
BODY_SECONDS = 0.8
"""In which a body has to come: less than the server waits for when it ends."""


def make_app(session: LiveSession, names: Collection[str] = ()) -> Guard:
    """The page, its updates at /updates, and what it may ask for: POST /api/settings and /api/seek.

    Args:
        names: host names, beside localhost and addresses, under which the page is reached.
    """
    # Without FastAPI's own pages, which load scripts from elsewhere.
    app = FastAPI(title="eventful_vitdet", docs_url=None, redoc_url=None, openapi_url=None)
    for path, (name, media_type) in FILES.items():
        app.add_api_route(path, _serve_file(PAGE / name, media_type), methods=["GET"])

    @app.post("/api/settings")
    async def settings(request: Request) -> JSONResponse:
        return await _answer(request, lambda asked: vars(session.change(asked)))

    @app.post("/api/seek")
    async def seek(request: Request) -> JSONResponse:
        return await _answer(request, lambda asked: {"frame": session.seek(asked)})

    @app.websocket("/updates")
    async def updates(websocket: WebSocket) -> None:
        await serve_viewer(websocket, session)

    return Guard(app, names)


def _serve_file(path: Path, media_type: str) -> Callable:
    async def serve() -> FileResponse:
        return FileResponse(path, media_type=media_type)

    return serve


async def _answer(request: Request, act: Callable[[object], dict]) -> JSONResponse:
    """Carry out a request with a JSON body, or refuse it with the reason."""
    try:
        return JSONResponse(act(await _read_json(request)))
    except RequestError as error:
        return JSONResponse({"error": str(error)}, status_code=422)


async def _read_json(request: Request) -> object:
    # Forms of other sites can send texts and forms, but not this type, without asking first.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError("the body has to be of type application/json")
    try:
        body = await asyncio.wait_for(_read_body(request), BODY_SECONDS)
    except (ClientDisconnect, asyncio.TimeoutError) as error:
        raise RequestError("the body broke off") from error
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not valid JSON ({error})") from error


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise RequestError(f"the body is longer than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens on an address, or LiveError with the reason why not. Port 0 takes a free one.

    Requests wait in it until they are served.
    """
    where = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise LiveError(f"{where}: is no address to listen on ({error.strerror})") from error
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen()
    except OSError as error:
        bound.close()
        raise LiveError(f"{where}: {_why_not(error)}") from error
    return bound


def _why_not(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "is in use, perhaps by another live page; choose another port by --port (0: any free one)"
    if error.errno == errno.EACCES:
        return "ports below 1024 are reserved; choose another by --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address; 127.0.0.1 is always there, 0.0.0.0 means all it has"
    return f"cannot be listened on ({error.strerror})"


def address_of(bound: socket.socket) -> str:
    """The page's address, for people."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class LiveServer(uvicorn.Server):
    """Serves a session's page, and ends with the session."""

    def __init__(self, session: LiveSession, names: Collection[str] = ()) -> None:
        app = make_app(session, names)
        # Proxies' headers are not believed, and nothing is said that does not matter.
        options = {"log_level": "warning", "access_log": False, "proxy_headers": False, "server_header": False}
        # The app has nothing to do at its start and end, and what waits for that would complain if it were cut short.
        options["lifespan"] = "off"
        super().__init__(uvicorn.Config(app, timeout_graceful_shutdown=SHUTDOWN_SECONDS, **options))
        self._session = session
        session.on_failure = self.end

    def end(self) -> None:
        """Stop serving soon; may be called by any thread."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let viewers go first: tasks that still run when uvicorn ends are cancelled, and complain."""
        self._session.broadcast.end()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """A signal is the ordinary end of it, and so are two. uvicorn would raise them again, into a loop that is
        ending, and cancel what runs at the second one."""
        with signals_handled(lambda *_: self.end()):
            yield

    def serve_session(self, bound: socket.socket) -> bool:
        """Serve until interrupted; returns whether the session's thread has ended too, for which nobody waits long.

        An error that ended the session is raised here.
        """
        self._session.start()
        try:
            # An interruption just before or after uvicorn listens to signals is the ordinary end of it, too.
            with suppress(KeyboardInterrupt), Interruptions() as interruptions, interruptions.allowed():
                self.run(sockets=[bound])
        finally:
            has_ended = self._session.stop()
            bound.close()
        if self._session.failure is not None:
            raise self._session.failure
        return has_ended
