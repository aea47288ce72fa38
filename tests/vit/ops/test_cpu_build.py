"""Compiling the kernels, and what is loaded in their place only if it is what was compiled."""

import _ctypes
import logging
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from eventful_vit.ops.cpu import build
from eventful_vit.ops.kernel_switch import SWITCH


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache, and nothing loaded; afterwards things are as they were."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(SWITCH, raising=False)
    return tmp_path / "cache" / "eventful_vit"


def load():
    return build.load_library.__wrapped__()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A folder with the library and its checksum: those that this machine keeps, or compiled once for all tests."""
    compiler = build.find_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("compiled")
    name = f"kernels-{build.fingerprint(Path(build.__file__).parent, compiler)}.so"
    used = build.load_library()
    if used is not None and Path(used._name).name == name and Path(used._name).exists():
        for file in (Path(used._name), build._note(Path(used._name))):
            shutil.copy2(file, folder / file.name)
        return folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "FLAGS", (*build.FLAGS, "-O0"))  # it is only loaded, and is there in a third of the time
        return build.build(compiler, folder / name).parent


@pytest.fixture
def kept(compiled, cache, monkeypatch):
    """The library in the cache; compiling it again copies it there again."""
    shutil.copytree(compiled, cache)
    cache.chmod(0o700)

    def copy(compiler, target):
        again.append(target)
        for file in compiled.iterdir():  # by renaming, as what is loaded must not change
            shutil.copy2(file, target.parent / "new")
            os.replace(target.parent / "new", target.parent / file.name)
        return target

    again = []
    monkeypatch.setattr(build, "build", copy)
    (library,) = cache.glob("*.so")
    return library, again


def test_switched_off(monkeypatch, caplog):
    monkeypatch.setenv(SWITCH, "off")
    with caplog.at_level(logging.INFO):
        assert load() is None
    assert f"{SWITCH} is off" in caplog.text


def test_the_first_use_says_why_it_takes_time(kept, caplog):
    library, again = kept
    with caplog.at_level(logging.INFO):
        assert load() is not None
        assert not caplog.records
        library.unlink()
        load()
    (record,) = caplog.records
    assert again and "compiling the CPU kernels" in record.message


def test_threads_that_begin_together_compile_once(kept, monkeypatch):
    library, again = kept
    library.unlink()
    copy, inside, go_on = build.build, threading.Event(), threading.Event()

    def take_a_while(*args):
        inside.set()
        assert go_on.wait(60)
        return copy(*args)

    monkeypatch.setattr(build, "build", take_a_while)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(load)
        assert inside.wait(60)
        second = threads.submit(load)
        wait([second], timeout=0.2)
        go_on.set()
        assert first.result() and second.result()
    assert len(again) == 1


def test_no_compiler(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert load() is None
    assert "no C++ compiler" in caplog.text


def test_a_compiler_that_fails(monkeypatch, tmp_path, caplog):
    broken = tmp_path / "broken"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && echo 1.0 && exit 0\necho "it is broken" >&2\nexit 1\n')
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert load() is None
    assert "it is broken" in caplog.text
    assert not list(tmp_path.rglob("*.so"))


def test_a_cache_that_cannot_be_made(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    if build.find_compiler() is None:
        pytest.skip("no C++ compiler")
    assert load() is None
    assert "cannot be compiled or loaded" in caplog.text


def test_nothing_but_library_and_checksum_is_left(monkeypatch, tmp_path):
    compiler = build.find_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    monkeypatch.setattr(build, "SOURCES", ("pool.cpp", "frame.cpp"))  # all of them take seconds
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-O0"))
    target = build.build(compiler, tmp_path / "kernels.so")
    assert target == tmp_path / "kernels.so" and target.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernels.sha256", "kernels.so"]
    assert target.with_suffix(".sha256").read_text() == build._checksum(target)


def test_a_kept_library_is_loaded(kept):
    library, again = kept
    assert load()._name == str(library) and not again


def truncated(library):
    library.write_bytes(library.read_bytes()[:5000])


def with_a_flipped_bit(library):
    data = bytearray(library.read_bytes())
    data[len(data) // 2] ^= 1
    library.write_bytes(data)


def another_library(library):
    """A valid one: that of an extension module of Python."""
    library.write_bytes(Path(_ctypes.__file__).read_bytes())


def not_a_library(library):
    library.write_text("hello")


def without_checksum(library):
    library.with_suffix(".sha256").unlink()


@pytest.mark.parametrize("damage", [truncated, with_a_flipped_bit, another_library, not_a_library, without_checksum])
def test_a_damaged_library_is_compiled_again(kept, damage, caplog):
    library, again = kept
    damage(library)
    assert load() is not None
    assert again == [library]
    assert "is damaged" in caplog.text or damage is without_checksum


def test_another_library_with_its_own_checksum(kept, caplog):
    """Right as far as the checksum goes, but not the kernels."""
    library, again = kept
    another_library(library)
    library.with_suffix(".sha256").write_text(build._checksum(library))
    assert load() is not None and again == [library]
    assert "has no kernel 'add'" in caplog.text


@pytest.mark.parametrize("suffix", [".so", ".sha256"])
def test_a_file_that_others_can_write(kept, suffix, caplog):
    library, again = kept
    library.with_suffix(suffix).chmod(0o666)
    assert load() is not None and again == [library]
    assert "can be written by others; the CPU kernels are compiled again" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user(kept, caplog):
    library, again = kept
    os.chown(library, 12345, -1)
    assert load() is not None and again == [library]
    assert "belongs to another user" in caplog.text


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_can_write(kept, mode, caplog):
    library, again = kept
    library.parent.chmod(mode)
    assert load() is not None
    assert len(again) == 1 and again[0].parent != library.parent
    assert "compiled for this process only" in caplog.text


def test_a_folder_above_that_everybody_can_write(kept, caplog):
    library, again = kept
    library.parent.parent.chmod(0o777)
    assert load() is not None and again[0].parent != library.parent
    assert "everybody can replace what lies in" in caplog.text


def test_a_relative_cache_folder_is_passed_over(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert build.cache_folder() == Path("/home/somebody/.cache/eventful_vit")


def test_a_user_without_a_home(kept, monkeypatch, caplog):
    monkeypatch.delenv("XDG_CACHE_HOME")

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(build.Path, "home", no_home)
    assert load() is not None
    assert "no home folder" in caplog.text
