"""tools/live.py: mistakes get one clear line, and Ctrl-C ends it cleanly."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from eventful_vitdet.cli.checkout import how_to_install
from eventful_vitdet.cli.live_command import execute, open_inputs, parse, port
from eventful_vitdet.errors import ConfigError, LiveError, VideoReadError
from eventful_vitdet.live.server import open_socket
from live.conftest import video
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

__all__ = ["video"]


@pytest.fixture
def command(repository, video) -> dict:  # noqa: F811
    options = ["MODEL.WEIGHTS", str(repository / "weights" / "demo_vitdet_tiny.safetensors"), "MODEL.DEVICE", "cpu"]
    config = str(repository / "configs" / "demo" / "vitdet_tiny.yaml")
    return {
        "config_file": config,
        "weights": None,
        "input": [video],
        "host": "127.0.0.1",
        "port": 0,
        "wait": False,
        "allow_host": [],
        "opts": options,
    }


def test_mistakes(command, tmp_path):
    def start(**changes) -> None:
        execute(argparse.Namespace(**{**command, **changes}))

    (tmp_path / "text.mp4").write_text("no video")
    shutil.copy(command["input"][0], tmp_path / "other.avi")
    with open_socket("127.0.0.1", 0) as taken, pytest.raises(LiveError, match="is in use"):
        start(port=taken.getsockname()[1])
    with pytest.raises(VideoReadError, match=r"text\.mp4: cannot be opened as a video"):
        start(input=[str(tmp_path / "text.mp4")])
    with pytest.raises(VideoReadError, match="camera 93: cannot be opened; is it there"):
        start(input=["93"])
    with pytest.raises(VideoReadError, match="is named twice; name each input once"):
        start(input=[command["input"][0]] * 2)
    actions = {"config_file": "synthetic_actions/vivit_tiny", "opts": []}
    with pytest.raises(ConfigError, match="a model of actions takes one input at a time here, found 2"):
        start(**actions, input=[command["input"][0], str(tmp_path / "other.avi")])
    with pytest.raises(ValueError, match="MODEL.WEIGHTS is empty"):
        start(opts=[])
    with pytest.raises(argparse.ArgumentTypeError, match="'70000' is no port"):
        port("70000")


class StillCamera:
    fps, live, num_frames, pixel_aspect = 30.0, True, None, 1


def test_of_several_inputs_those_that_are_off_are_waited_for(video, monkeypatch, capsys):  # noqa: F811
    found = {1: StillCamera()}
    monkeypatch.setattr("eventful_vitdet.video.opening.connect_camera", found.get)
    assert [source.name for source in open_inputs([video, "7"], False)] == [video, "camera 7"]
    assert capsys.readouterr().err == "camera 7: no signal; it will be shown as soon as it is available\n"
    assert [source.is_away for source in open_inputs(["7", "1"], False)] == [True, False]
    capsys.readouterr()
    # None of them, and one that is the only one; unless that is asked for.
    with pytest.raises(VideoReadError, match=r"camera 7, camera 8: cannot be opened; is each of them there.* --wait"):
        open_inputs(["7", "8"], False)
    with pytest.raises(VideoReadError, match=r"camera 7: cannot be opened; is it there, switched on.* --wait"):
        open_inputs(["7"], False)
    assert capsys.readouterr().err == ""
    assert [source.is_away for source in open_inputs(["7"], parse(["7", "--wait"]).wait)] == [True]
    # Mistakes are not waited for.
    for mistake, reason in (("gone.mp4", "there is no such file"), ("ftp://x/y", "addresses begin"), ("7", "twice")):
        with pytest.raises(VideoReadError, match=reason):
            open_inputs(["7", video, mistake], True)


def test_inputs_that_are_off_are_asked_at_once(monkeypatch):
    both = threading.Barrier(2)

    def connect_camera(number: int) -> None:
        both.wait(timeout=20)  # raises unless the other one is asked meanwhile

    monkeypatch.setattr("eventful_vitdet.video.opening.connect_camera", connect_camera)
    assert [source.name for source in open_inputs(["7", "8"], True)] == ["camera 7", "camera 8"]


def test_ctrl_c_does_not_wait_for_inputs_that_are_asked(monkeypatch):
    let_go = threading.Event()

    def connect_camera(number: int) -> None:
        if number == 8:  # the last that is asked
            os.kill(os.getpid(), signal.SIGINT)
        let_go.wait(timeout=20)

    monkeypatch.setattr("eventful_vitdet.video.opening.connect_camera", connect_camera)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        open_inputs(["7", "8"], True)
    assert time.monotonic() - began < 10
    let_go.set()


@pytest.mark.parametrize(
    "signals",
    [
        [signal.SIGTERM],
        pytest.param([signal.SIGINT], marks=pytest.mark.long),
        pytest.param([signal.SIGINT, signal.SIGINT], marks=pytest.mark.long),
    ],
)
def test_a_signal_ends_it_cleanly_within_two_seconds(command, repository, signals):
    """Also with a viewer, and impatiently: not a word of tasks that were cancelled."""
    words = ["--config-file", command["config_file"], "--input", *command["input"], "--port", "0", *command["opts"]]
    live = subprocess.Popen(
        [sys.executable, str(repository / "tools" / "live.py"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = next(line for line in live.stdout if " at http" in line).split(" at ")[1].split()[0]
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert b"Live detection" in answer.read()
        with connect(address.replace("http:", "ws:") + "updates", max_size=None) as viewer:
            while b'"picture"' not in viewer.recv(timeout=30):
                viewer.send("next")
            began = time.monotonic()
            for number in signals:
                live.send_signal(number)
            with pytest.raises(ConnectionClosed):
                while True:
                    viewer.recv(timeout=10)
            output, errors = live.communicate(timeout=30)
            assert time.monotonic() - began < 2
    finally:
        live.kill()
    assert live.returncode == 0 and output.endswith("ended\n") and errors == ""


@pytest.mark.parametrize(
    ("here", "command"),
    [
        (".", "pip install '.[live]'"),
        ("tools", "pip install '..[live]'"),
        ("..", "pip install './{name}[live]'"),
    ],
)
def test_the_extra_is_named_so_that_pip_finds_it(repository, monkeypatch, here, command):
    monkeypatch.chdir(repository / here)
    assert how_to_install("live") == command.format(name=repository.name)
    monkeypatch.setattr("eventful_vitdet.cli.checkout.CHECKOUT", repository / "tests")  # as where it is installed
    assert how_to_install("live") == "pip install 'eventful-vitdet[live]'"


def test_absent_packages_are_named(command, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(LiveError, match=r"uvicorn not found; pip install '.*\[live\]' brings what the page needs"):
        execute(argparse.Namespace(**command))
