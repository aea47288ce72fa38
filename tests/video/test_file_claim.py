"""One writer at a time."""

from __future__ import annotations

import errno
import os
import threading

import pytest
from eventful_vitdet.video import file_claim
from eventful_vitdet.video.file_claim import Claim


def test_one_at_a_time(tmp_path):
    path = tmp_path / "v.mp4.part"
    claim = Claim(str(path))
    with pytest.raises(OSError, match="another command is writing it") as refusal:
        Claim(str(path))
    assert refusal.value.errno == errno.EBUSY and refusal.value.filename == str(path)
    claim.release()
    claim.release()
    assert os.listdir(tmp_path) == [path.name]
    Claim(str(path)).release()


def test_what_is_in_the_file_stays(tmp_path):
    path = tmp_path / "v.mp4.part"
    path.write_bytes(b"content")
    Claim(str(path)).release()
    assert path.read_bytes() == b"content"


def test_another_thread_may_release_it(tmp_path):
    path = str(tmp_path / "v.mp4.part")
    claim = Claim(path)
    thread = threading.Thread(target=claim.release)
    thread.start()
    thread.join()
    Claim(path).release()


def test_a_file_that_cannot_be_made_is_not_claimed(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        Claim(str(path))
    assert os.listdir(tmp_path) == ["folder"]


def test_a_lock_whose_file_was_deleted_meanwhile_is_none(tmp_path, monkeypatch):
    """A holder that comes to its end deletes the file that the next one has opened, but not locked yet."""
    acquire, taken = file_claim.acquire_lock, []

    def late(path: str, caution: str):
        taken.append(acquire(path, caution))
        if len(taken) == 1:
            os.unlink(path)
        return taken[-1]

    monkeypatch.setattr(file_claim, "acquire_lock", late)
    path = str(tmp_path / "v.mp4.part")
    claim = Claim(path)
    assert [lock.is_locked for lock in taken] == [False, True]
    with pytest.raises(OSError, match="another command"):
        Claim(path)
    claim.release()
