"""The page's server: what it serves, what it refuses, and that other sites are kept out."""

from __future__ import annotations

import http.client
import json
import logging
import re
import socket
from contextlib import ExitStack

import cv2
import numpy as np
import pytest
from eventful_vitdet.errors import LiveError
from eventful_vitdet.live.messages import TILE_COSTS
from eventful_vitdet.live.server import FILES, LiveServer, address_of, open_socket
from eventful_vitdet.live.updates import ShownImage
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from .conftest import FRAMES, TOKENS, serving
from .test_grid_session import write_video


class Client:
    """What a browser does, and what it would not do."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.host, port = address.split(":")
        self.port = int(port)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict, bytes]:
        """Send a request as it is; returns status, headers and body. `host` and `content_type` are headers."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"host": self.address, **sent})
        answer = connection.getresponse()
        try:
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def post(self, path: str, body: object, **headers: str) -> tuple[int, dict]:
        """Post JSON (text as it is); returns status and answer."""
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        status, _, answer = self.ask("POST", path, data, **{"content_type": "application/json", **headers})
        return status, json.loads(answer) if answer.startswith(b"{") else {"error": answer.decode()}

    def watch(self, host: str = "", **headers: str) -> ClientConnection:
        """A websocket for updates, perhaps under another name than the server's."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        plain = socket.create_connection((self.host, self.port), timeout=10)
        return connect(f"ws://{host or self.address}/updates", sock=plain, additional_headers=sent, max_size=None)


@pytest.fixture
def session(make_session):
    return make_session(start=False)


@pytest.fixture
def client(session):
    with serving(session) as address:
        yield Client(address)


@pytest.fixture
def grid(make_session, tmp_path):
    """A client of two cameras, and the session."""
    sources = [write_video(tmp_path / "a.avi"), write_video(tmp_path / "b.avi", frames=7)]
    session = make_session(*sources, start=False)
    with serving(session) as address:
        yield Client(address), session


def read(websocket: ClientConnection) -> tuple[dict, bytes]:
    message = websocket.recv(timeout=10)
    length = int.from_bytes(message[:4], "big")
    return json.loads(message[4 : 4 + length]), message[4 + length :]


def read_until_picture(websocket: ClientConnection) -> dict:
    while "picture" not in (read_state := read(websocket)[0]):
        websocket.send("next")
    return read_state


def test_page_and_its_parts(client):
    for path, (_, media_type) in FILES.items():
        status, headers, body = client.ask("GET", path)
        assert status == 200 and headers["content-type"].startswith(media_type)
        assert "default-src 'self'" in headers["content-security-policy"]
        references = re.findall(rb"(?:src|href|from|url)\W+(\w+:|//)", body)
        assert not references, (path, references)
    for path in ("/docs", "/openapi.json", "/../server.py", "/%2e%2e/server.py", "/page/live.js", "/api/settings"):
        assert client.ask("GET", path)[0] in (404, 405), path


def test_viewers_steer(client, session):
    with client.watch() as websocket:
        read_until_picture(websocket)
        status, settings = client.post("/api/settings", {"budget": 3, "paused": True})
        assert status == 200 and settings["budget"] == 3 and settings["paused"] is True
        assert client.post("/api/seek", {"frame": 7}) == (200, {"frame": 7})
        state = {}
        while state.get("picture", {}).get("index") != 7:
            websocket.send("next")
            state, jpeg = read(websocket)
        assert jpeg[:2] == b"\xff\xd8" and state["settings"]["paused"]


def test_refusals_give_the_reason(client, session):
    with client.watch() as websocket:
        read_until_picture(websocket)
        client.post("/api/settings", {"paused": True})
    for path, body, reason in (
        ("/api/settings", '{"budget": 37}', f"from 0 to {TOKENS} (the tokens of a frame), found 37"),
        ("/api/settings", '{"budget": 1e3}', "whole number"),
        ("/api/settings", '{"budget": NaN}', "found nan"),
        ("/api/settings", "{", "not valid JSON"),
        ("/api/settings", "", "not valid JSON"),
        ("/api/settings", "[" * 3000, "not valid JSON"),
        ("/api/settings", '"' + "x" * 5000 + '"', "longer than 4096 bytes"),
        ("/api/settings", "[]", "expected a JSON object"),
        ("/api/seek", {"frame": FRAMES}, f"from 0 to {FRAMES - 1}"),
        ("/api/seek", {"frame": "/etc/passwd"}, "whole number"),
    ):
        before = session.broadcast.newest.settings
        status, answer = client.post(path, body)
        assert status == 422 and reason in answer["error"], (body, answer)
        assert session.broadcast.newest.settings == before
    # Forms of other sites may have these types.
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        status, answer = client.post("/api/settings", {"paused": False}, content_type=kind)
        assert status == 422 and "application/json" in answer["error"]


def test_other_sites_are_kept_out(client):
    own = client.address
    for welcome in (
        {"origin": f"http://{own}", "sec_fetch_site": "same-origin"},
        {"host": "localhost:9", "origin": "http://localhost:9"},
        {"host": "[::1]:8000"},
        {"host": "192.168.1.7"},
        {"host": "Detector.local:8000", "origin": "http://detector.local:8000"},
    ):
        assert client.post("/api/settings", {"repeat": True}, **welcome)[0] == 200, welcome
        with client.watch(**welcome) as websocket:
            assert websocket.recv(timeout=10)
    for stranger in (
        {"host": "evil.example:8000"},  # a name that was made to resolve to this machine
        {"host": "evil.example:8000", "origin": "http://evil.example:8000"},
        {"host": "127.0.0.1.evil.example"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9999"},  # another page on this machine
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ):
        assert client.post("/api/settings", {"paused": True}, **stranger)[0] == 403, stranger
        assert client.ask("GET", "/", **stranger)[0] == 403
        with pytest.raises(InvalidStatus, match="403"):
            client.watch(**stranger)
    for nonsense in ("", "127.0.0.1@evil.example", "a b", "[::1"):
        assert client.ask("GET", "/", host=nonsense)[0] in (400, 403)


def test_links_of_other_sites_lead_to_the_page(client):
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert client.ask("GET", "/", **link)[0] == 200
    assert client.ask("GET", "/", **{**link, "sec_fetch_site": "same-site"})[0] == 200
    for change in (
        {"sec_fetch_dest": "iframe"},
        {"sec_fetch_dest": "empty", "sec_fetch_mode": "cors"},
        {"sec_fetch_dest": "script", "sec_fetch_mode": "no-cors"},
        {"host": "evil.example:8000"},
        {"origin": "http://evil.example"},
    ):
        assert client.ask("GET", "/", **{**link, **change})[0] == 403, change
    # What changes something, or shows it to a script, is as strict as ever, whatever it says it is.
    assert client.post("/api/settings", {"paused": True}, **link)[0] == 403
    with pytest.raises(InvalidStatus, match="403"):
        client.watch(**link)


def test_the_dense_model_beside_the_eventful_one(client):
    with client.watch() as websocket:
        assert read_until_picture(websocket)["picture"]["dense_detections"] is None
        assert client.post("/api/settings", {"beside": True})[1]["beside"] is True
        state = {}
        while not state.get("picture", {}).get("dense_detections"):
            websocket.send("next")
            state = read(websocket)[0]
        eventful = next(cost for cost in reversed(state["costs"]) if cost["kind"] == "eventful")
        assert eventful["dense_gflops"] > eventful["gflops"] and eventful["dense_ms"] > 0


def test_viewers_get_what_is_new_to_them(client):
    with client.watch() as slow, client.watch() as quick:
        first = read(slow)[0]  # and does not ask for more
        seen = []
        while len(seen) < 30:
            seen += [cost["serial"] for cost in read(quick)[0]["costs"]]
            quick.send("next")
        assert seen == list(range(len(seen)))  # no cost twice, none left out
        slow.send("next")
        late, jpeg = read(slow)
        known = [cost["serial"] for cost in first["costs"]]
        # It goes on with the newest frame, and hears what the ones in between have cost.
        assert jpeg[:2] == b"\xff\xd8" and late["viewers"] == 2
        newest = late["costs"][-1]["serial"]
        assert known + [cost["serial"] for cost in late["costs"]] == list(range(newest + 1)) and newest >= seen[-1]


def read_tiles(websocket: ClientConnection) -> dict:
    """The next update in which all tiles have a picture."""
    while True:
        state, jpegs = read(websocket)
        websocket.send("next")
        if "tiles" in state and all("picture" in tile for tile in state["tiles"]):
            assert sum(tile["picture"]["bytes"] for tile in state["tiles"]) == len(jpegs)
            return state


def test_tiles_of_all_cameras(grid):
    client, session = grid
    with client.watch() as websocket:
        state = read_tiles(websocket)
        assert [tile["name"] for tile in state["tiles"]] == ["a.avi", "b.avi"] and state["limits"]["seekable"]
        for tile in state["tiles"]:
            assert tile["picture"]["tokens"]["rows"] == 6 and 0 < len(tile["costs"]) <= TILE_COSTS
        late = [cost["serial"] for cost in read_tiles(websocket)["tiles"][0]["costs"]]
        assert late[0] > state["tiles"][0]["costs"][-1]["serial"]  # no cost twice
        status, answer = client.post("/api/seek", {"frame": 7, "camera": 1})
        assert status == 422 and "from 0 to 6" in answer["error"]


def test_viewers_choose_what_they_look_at(grid):
    """At once, also while nothing plays, and each for itself."""
    client, session = grid
    with client.watch() as websocket, client.watch() as other:
        read_tiles(websocket), read_tiles(other)
        client.post("/api/settings", {"paused": True})
        websocket.send('{"camera": 1}')
        state = {}
        while state.get("camera") != 1:
            state, jpeg = read(websocket)
            websocket.send("next")
        assert state["limits"]["num_frames"] == 7 and jpeg[:2] == b"\xff\xd8" and "tiles" not in state
        assert state["costs"][0]["serial"] == 0  # all of them, for the charts
        assert client.post("/api/seek", {"frame": 3, "camera": 1}) == (200, {"frame": 3})
        while state.get("picture", {}).get("index") != 3:
            state, _ = read(websocket)
            websocket.send("next")
        websocket.send('{"tiles": 200}')
        assert read_tiles(websocket)["tiles"][1]["picture"]["index"] == 3
        # The other has been told of the frame that was shown, and of no other view.
        state = read(other)[0]
        assert "tiles" in state and "camera" not in state


def test_pictures_are_as_wide_as_they_are_shown():
    image = ShownImage(np.zeros((600, 1500, 3), np.uint8))
    widths = {asked: jpeg_size(image.jpeg(asked)) for asked in (1, 160, 161, 900, 1280)}
    assert widths == {1: (160, 64), 160: (160, 64), 161: (240, 96), 900: (960, 384), 1280: (1280, 512)}
    assert image.jpeg(200) is image.jpeg(240)  # made once
    assert jpeg_size(ShownImage(np.zeros((60, 150, 3), np.uint8)).jpeg(320)) == (150, 60)  # not enlarged


def jpeg_size(jpeg: bytes) -> tuple[int, int]:
    height, width = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[:2]
    return width, height


def test_looks_that_cannot_be_are_refused(grid):
    client, _ = grid
    for text, reason in (
        ('{"camera": 2}', "camera is a number from 0 to 1"),
        ('{"tiles": 99999}', "from 1 to 1280"),
        ('{"tiles": 200, "camera": 0}', "one thing can be looked at"),
        ('{"file": "/etc/passwd"}', "'file' is unknown"),
        (f'{{"{60 * chr(0x4E2D)}": 1}}', "\N{CJK UNIFIED IDEOGRAPH-4E2D}"),  # three bytes each
        ("nonsense", "'next' or a JSON object"),
        ("[" * 9999, "longer than 200 characters"),
    ):
        with client.watch() as websocket:
            websocket.recv(timeout=10)
            websocket.send(text)
            with pytest.raises(ConnectionClosed, match=reason):
                while True:
                    websocket.recv(timeout=10)


def test_viewers_that_break_rules_or_are_too_many(client, session, monkeypatch):
    with client.watch() as websocket:
        websocket.recv(timeout=10)
        websocket.send(b"\x00" * 100)
        with pytest.raises(ConnectionClosed):
            while True:
                websocket.recv(timeout=10)
    monkeypatch.setattr("eventful_vitdet.live.viewing.MAX_VIEWERS", 1)
    with client.watch() as websocket:
        websocket.recv(timeout=10)
        with client.watch() as second, pytest.raises(ConnectionClosed, match="no more than 1 viewers"):
            second.recv(timeout=10)
    monkeypatch.undo()
    with client.watch() as websocket:
        assert websocket.recv(timeout=10)


def test_ports_and_addresses_that_cannot_be_had():
    with open_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert address_of(taken) == f"http://127.0.0.1:{port}/"
        with pytest.raises(LiveError, match=f"127.0.0.1:{port}: is in use.*choose another port by --port"):
            open_socket("127.0.0.1", port)
    with pytest.raises(LiveError, match="203.0.113.1:0: this machine does not have that address"):
        open_socket("203.0.113.1", 0)
    with pytest.raises(LiveError, match="is no address to listen on"):
        open_socket("256.1.1.1", 0)


def test_server_ends_with_its_session(make_session, monkeypatch):
    session = make_session(start=False)
    server = LiveServer(session)
    monkeypatch.setattr(session, "_next_frames", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        server.serve_session(open_socket("127.0.0.1", 0))


def test_viewers_are_let_go_when_the_server_ends(session, caplog):
    """Also those that never ask for more: no task is left to be cancelled, which would be an error in the log."""
    with ExitStack() as viewers:
        with serving(session) as address:
            client = Client(address)
            joined = [viewers.enter_context(client.watch()) for _ in range(3)]
            for viewer in joined:
                read(viewer)
        for viewer in joined:
            with pytest.raises(ConnectionClosed):
                while True:
                    viewer.recv(timeout=10)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_request_that_is_not_complete_when_the_server_ends(session, capsys):
    with serving(session) as address:
        half = socket.create_connection((Client(address).host, Client(address).port))
        lines = ("POST /api/settings HTTP/1.1", "Host: localhost", "Content-Type: application/json")
        half.sendall("\r\n".join([*lines, "Content-Length: 50", "", "{"]).encode())
        Client(address).ask("GET", "/")  # by then it has been read, as far as it goes
    half.close()
    assert capsys.readouterr().err == ""


def test_socket_family():
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        with open_socket("::1", 0) as bound:
            assert address_of(bound).startswith("http://[::1]:")
    except LiveError:
        pytest.skip("IPv6 is switched off here")
