"""The cache of annotations: used when fresh, never when stale."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from eventful_vitdet.data.imagenet_vid import cache, official

from .conftest import xml_object, xml_text

NAME = "imagenet_vid_val"
FRAME = "val/ILSVRC2015_val_00000000/000001"


@pytest.fixture
def builds(monkeypatch) -> list:
    """Grows by one with every reading of the XML files."""
    calls = []
    build = official.build_index
    monkeypatch.setattr(official, "build_index", lambda *args, **options: calls.append(1) or build(*args, **options))
    return calls


def path_of(tree):
    return tree.root / "cache" / "eventful_vitdet" / f"{NAME}.npz"


def test_second_load_reads_one_file(full_tree, builds):
    first = DatasetCatalog.get(NAME)
    assert DatasetCatalog.get(NAME) == first and len(builds) == 1
    assert path_of(full_tree).stat().st_size < 5000


def rewrite_in_place(tree):
    tree.xml("VID", FRAME).write_text(xml_text(xml_object("zebra", (1, 1, 5, 5))))


def same_length_later(tree):
    path = tree.xml("VID", FRAME)
    path.write_text(path.read_text().replace("<xmin>1<", "<xmin>2<"))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def other_list(tree):
    tree.write_list("VID_val_videos.txt", "val/ILSVRC2015_val_00000000 1 0 4")


def absent_xml(tree):
    tree.xml("VID", FRAME).unlink()


@pytest.mark.parametrize("change", [rewrite_in_place, same_length_later, other_list, absent_xml])
def test_whatever_changed_is_read_anew(full_tree, builds, change):
    before = official.load_official(NAME, str(full_tree.root))
    change(full_tree)
    after = official.load_official(NAME, str(full_tree.root))
    assert len(builds) == 2 and (after.frames, after.bad_videos) != (before.frames, before.bad_videos)
    assert official.load_official(NAME, str(full_tree.root)) == after and len(builds) == 2


def test_another_format_version_is_read_anew(full_tree, builds, monkeypatch):
    DatasetCatalog.get(NAME)
    monkeypatch.setattr(cache, "FORMAT_VERSION", 10**6)
    DatasetCatalog.get(NAME)
    assert len(builds) == 2


@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"x" * 900, lambda b: b[:-1]])
def test_damaged_cache_is_read_anew(full_tree, builds, caplog, spoil):
    expected = DatasetCatalog.get(NAME)
    path = path_of(full_tree)
    path.write_bytes(spoil(path.read_bytes()))
    assert DatasetCatalog.get(NAME) == expected and len(builds) == 2
    assert f"{path}: cannot be used" in caplog.text
    DatasetCatalog.get(NAME)
    assert len(builds) == 2


def test_cache_does_not_run_code(full_tree):
    DatasetCatalog.get(NAME)
    np.savez(path_of(full_tree), header=np.array([{"a": 1}], dtype=object))
    assert len(DatasetCatalog.get(NAME)) == 8  # objects are refused, and the XML files read


def test_read_only_data_set_is_cached_for_the_user(full_tree, builds, tmp_path, monkeypatch):
    writable = cache._can_write
    monkeypatch.setattr(cache, "_can_write", lambda path: "ILSVRC2015" not in path and writable(path))
    DatasetCatalog.get(NAME)
    DatasetCatalog.get(NAME)
    assert len(builds) == 1 and len(list((tmp_path / "user_cache").rglob("*.npz"))) == 1


def test_a_read_only_data_set_of_a_user_without_a_home(full_tree, builds, monkeypatch, caplog):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(cache, "_can_write", lambda path: "ILSVRC2015" not in path)
    assert len(DatasetCatalog.get(NAME)) == 8
    assert len(builds) == 1 and "annotations are read again every time" in caplog.text


def test_nowhere_to_write(full_tree, builds, monkeypatch, caplog):
    monkeypatch.setattr(cache, "_can_write", lambda path: False)
    assert len(DatasetCatalog.get(NAME)) == len(DatasetCatalog.get(NAME)) == 8
    assert len(builds) == 2 and "annotations are read again every time" in caplog.text


def load_and_report(reports):
    calls, build = [], official.build_index
    official.build_index = lambda *args, **options: calls.append(1) or build(*args, **options)
    reports.put((len(DatasetCatalog.get(NAME)), len(calls)))


def test_processes_wait_for_the_one_that_builds(full_tree):
    context = multiprocessing.get_context("fork")
    reports = context.SimpleQueue()
    processes = [context.Process(target=load_and_report, args=(reports,)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [reports.get() for _ in processes]
    for process in processes:
        process.join()
    assert [length for length, _ in found] == [8, 8, 8]
    assert sum(builds for _, builds in found) == 1
