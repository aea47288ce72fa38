"""A viewer's websocket: updates one way, what it wants to see the other."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from fastapi import WebSocket, WebSocketDisconnect

from .broadcast import Viewer
from .messages import encode
from .session import LiveSession
from .settings import RequestError, check_look

MAX_VIEWERS = 32
MAX_CHARACTERS = 200
NEXT = "next"
"""What a page says when it has shown an update."""
REFUSED, TRY_AGAIN_LATER = 1008, 1013
"""Close codes of a websocket."""


async def serve_viewer(websocket: WebSocket, session: LiveSession) -> None:
    """Send updates until the viewer leaves, each when the page has asked for the next one.

    So at most one update is under way to a viewer, however slow its connection.
    """
    await websocket.accept()  # also of one too many: a browser is told the reason only then
    if session.broadcast.viewers >= MAX_VIEWERS:
        await websocket.close(TRY_AGAIN_LATER, f"no more than {MAX_VIEWERS} viewers")
        return
    viewer = session.broadcast.join()
    watching = _Watching(websocket, session, viewer)
    tasks = [asyncio.create_task(part) for part in (watching.send(), watching.listen(), viewer.wait_for_end())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            with suppress(WebSocketDisconnect):  # it left
                task.result()
    finally:
        session.broadcast.leave(viewer)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(WebSocketDisconnect, RuntimeError, OSError):  # it has left
            await websocket.close(*watching.refusal)  # older versions of uvicorn do not do so by themselves


class _Watching:
    """What is under way to one viewer."""

    def __init__(self, websocket: WebSocket, session: LiveSession, viewer: Viewer) -> None:
        self._websocket, self._session, self._viewer = websocket, session, viewer
        self._ready = asyncio.Event()
        self._look = session.first_look()
        self.refusal: tuple = ()
        """Code and reason, where the viewer asked for what cannot be."""

    async def send(self) -> None:
        before, look_before = None, None
        while True:
            news, look = await self._viewer.next(), self._look
            # Pictures are encoded here, so not in the event loop, where that would hold up other viewers.
            known = before if look == look_before else None
            viewers = self._session.broadcast.viewers
            message = await asyncio.to_thread(encode, news, known, viewers, look)
            try:
                await self._websocket.send_bytes(message)
            except RuntimeError:  # it has left
                return
            before, look_before = news, look
            await self._ready.wait()
            self._ready.clear()

    async def listen(self) -> None:
        """Hear that the page has shown the last update, or what it looks at from now on; ends at nonsense."""
        while True:
            try:
                text = await self._websocket.receive_text()
            except (RuntimeError, KeyError):  # it has left, or sends bytes
                return
            if text == NEXT:
                self._ready.set()
                continue
            try:
                self._look = check_look(_parse(text), len(self._session.cameras))
            except RequestError as error:
                # A close frame has room for 123 bytes.
                self.refusal = REFUSED, str(error).encode()[:123].decode(errors="ignore")
                return
            self._viewer.look_again()


def _parse(text: str) -> object:
    if len(text) > MAX_CHARACTERS:
        raise RequestError(f"the message is longer than {MAX_CHARACTERS} characters")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{NEXT!r} or a JSON object was expected") from error
