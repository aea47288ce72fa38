from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from eventful_vitdet.errors import FileError
from eventful_vitdet.files import open_atomically, remove_temporary_files, user_cache_folder, write_atomically


def test_text_and_bytes_replace_what_was_there(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_atomically(str(path), "first")
    write_atomically(str(path), b"second")
    assert path.read_bytes() == b"second" and len(list(path.parent.iterdir())) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_new_file_has_the_permissions_of_the_umask(tmp_path, umask, mode):
    path = tmp_path / "a.txt"
    before = os.umask(umask)
    try:
        write_atomically(str(path), "first")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_a_replaced_file_keeps_its_permissions(tmp_path, mode):
    path = tmp_path / "a.txt"
    path.write_text("first")
    path.chmod(mode)
    write_atomically(str(path), "second")
    assert path.read_text() == "second" and stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_failure_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(source, target):
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(error):
        write_atomically(str(path), "new")
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written_names_the_file(tmp_path, monkeypatch):
    def refuse(path, mode):
        raise OSError(errno.EROFS, "Read-only file system", path)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(OSError, match=r"Read-only file system: '.*a\.txt'"):
        write_atomically(str(tmp_path / "a.txt"), "text")


def test_full_disk_names_the_file(tmp_path):
    path = str(tmp_path / "a.txt")
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"), open_atomically(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_an_error_of_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"), open_atomically(str(tmp_path / "a.txt")):
        open(tmp_path / "absent")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    write_atomically(str(tmp_path / "a.txt"), "whole")
    (tmp_path / ".hidden").write_text("")
    for name in (".abc.tmp", ".def.tmp"):
        (tmp_path / name).write_text("half")
    remove_temporary_files(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", ".hidden"}


def test_a_cache_folder_that_is_relative_is_ignored(monkeypatch, tmp_path):
    """As the XDG specification says; otherwise every folder that a command runs in would get one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert user_cache_folder() == str(tmp_path / ".cache" / "eventful_vitdet")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert user_cache_folder() == str(tmp_path / "other" / "eventful_vitdet")


def test_a_user_without_a_home_has_no_cache_folder(monkeypatch):
    """Else a folder named ~ would be made wherever a command runs."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", without_home)
    with pytest.raises(FileError, match="no home folder; XDG_CACHE_HOME"):
        user_cache_folder()


def without_home() -> Path:
    raise RuntimeError("Could not determine home directory.")
