from __future__ import annotations

from types import SimpleNamespace

import cv2
import pytest
from eventful_vitdet.draw.preview_window import PreviewWindow, has_display

from .conftest import picture


def test_no_window_without_a_display(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not has_display()
    with PreviewWindow("x") as window:
        assert window.show(picture(0)) is True


def test_an_opencv_without_windows_says_so_once(monkeypatch, caplog):
    monkeypatch.setenv("DISPLAY", ":0")

    def fail(*args):
        raise cv2.error("The function is not implemented")

    monkeypatch.setattr(cv2, "namedWindow", fail)
    for _ in range(2):
        with PreviewWindow("x") as window:
            assert window.show(picture(0)) is True
    assert caplog.text.count("this OpenCV has no windows") == 1


@pytest.fixture
def screen(monkeypatch) -> SimpleNamespace:
    """Pretends to be an OpenCV with windows."""
    screen = SimpleNamespace(shown=0, sizes=[], key=-1, visible=1.0, destroyed=0)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", lambda *args: None)
    monkeypatch.setattr(cv2, "resizeWindow", lambda title, width, height: screen.sizes.append((width, height)))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *args: screen.visible)
    monkeypatch.setattr(cv2, "destroyWindow", lambda *args: setattr(screen, "destroyed", screen.destroyed + 1))
    monkeypatch.setattr(cv2, "imshow", lambda *args: setattr(screen, "shown", screen.shown + 1))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: screen.key)
    return screen


def test_q_ends_the_show(screen):
    with PreviewWindow("x") as window:
        assert window.show(picture(0)) is True
        screen.key = ord("q")
        assert window.show(picture(0)) is False
    assert screen.shown == 2 and screen.sizes == [(96, 64)] and screen.destroyed == 1


def test_a_window_fits_the_screen_and_stays_closed(screen):
    with PreviewWindow("x") as window:
        window.show(picture(0, 2000, 4000))
        screen.visible = 0.0
        assert [window.show(picture(0)) for _ in range(3)] == [True] * 3
    assert screen.sizes == [(1280, 640)] and screen.shown == 1 and screen.destroyed == 0
