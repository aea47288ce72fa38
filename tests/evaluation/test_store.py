"""Records of videos: what is written is read, and nothing else is taken for a record."""

from __future__ import annotations

import errno
import os
from dataclasses import fields, replace

import numpy as np
import pytest
from eventful_vit.cost import CATEGORIES
from eventful_vitdet.errors import EvaluationError
from eventful_vitdet.evaluation import DetectionTable, VideoRecord, read_record, record_paths, write_record
from eventful_vitdet.evaluation.store import is_record_of, record_path, remove_unfinished


def make_record(video_id: int | str = 7, counts: tuple[int, ...] = (2, 0, 3)) -> VideoRecord:
    """A record with `counts` detections in its frames."""
    rng, length, rows = np.random.default_rng(0), len(counts), sum(counts)
    image_ids = rng.permutation(1000)[:length].astype(np.int64)
    return VideoRecord(
        video_id=video_id,
        image_ids=image_ids,
        flushed=np.arange(length) % 2 == 0,
        macs=rng.integers(0, 2**62, (length, len(CATEGORIES))),
        backbone_seconds=rng.uniform(size=length),
        total_seconds=rng.uniform(size=length),
        detections=DetectionTable(
            np.repeat(image_ids, counts),
            rng.integers(0, 30, rows).astype(np.int32),
            rng.uniform(size=rows).astype(np.float32),
            rng.normal(size=(rows, 4)).astype(np.float32),
        ),
    )


def assert_same(one: VideoRecord, other: VideoRecord) -> None:
    assert one.video_id == other.video_id
    for column in ("image_ids", "flushed", "macs", "backbone_seconds", "total_seconds"):
        np.testing.assert_array_equal(getattr(one, column), getattr(other, column), strict=True)
    for column in fields(DetectionTable):
        ours, theirs = getattr(one.detections, column.name), getattr(other.detections, column.name)
        np.testing.assert_array_equal(ours, theirs, strict=True)


@pytest.mark.parametrize("counts", [(2, 0, 3), (0, 0), (1,)])
def test_a_record_is_read_as_it_was_written(tmp_path, counts):
    record = make_record(counts=counts)
    path = write_record(str(tmp_path), record)
    assert record_paths(str(tmp_path)) == [path] == [str(tmp_path / "videos" / "7.npz")]
    assert_same(read_record(path), record)


@pytest.mark.parametrize("video_id", ["../a/b", "..", ".hidden", "ä b", -3, "x.npz"])
def test_any_id_makes_a_file_of_its_own_in_the_folder(tmp_path, video_id):
    path = write_record(str(tmp_path), make_record(video_id))
    assert os.path.dirname(path) == str(tmp_path / "videos") and record_paths(str(tmp_path)) == [path]
    assert read_record(path).video_id == video_id and not os.path.basename(path).startswith(".")


def test_what_is_no_record_is_no_record(tmp_path):
    record = make_record()
    path, ids = write_record(str(tmp_path), record), record.image_ids.tolist()
    assert is_record_of(path, 7, ids)
    assert not is_record_of(path, 8, ids)
    assert not is_record_of(path, 7, ids[:-1]) and not is_record_of(path, 7, ids[::-1])
    assert not is_record_of(str(tmp_path / "absent.npz"), 7, ids)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other", "pickle", "flipped"])
def test_damaged_files_are_named(tmp_path, damage):
    path = write_record(str(tmp_path), make_record(counts=(50, 60)))
    with open(path, "rb") as file:
        content = bytearray(file.read())
    if damage == "other":
        np.savez(path, a=np.zeros(3))
    elif damage == "pickle":
        np.savez(path, image_ids=np.array([{}], dtype=object))
    else:
        content[len(content) // 2] ^= 0xFF
        damaged = {"cut": content[:-40], "empty": b"", "text": b"{}", "flipped": content}[damage]
        with open(path, "wb") as file:
            file.write(damaged)
    with pytest.raises(EvaluationError, match="7.npz: is no record .* delete it"):
        read_record(path)


def test_columns_that_do_not_fit_together(tmp_path):
    record = make_record()
    for column in ("flushed", "macs", "total_seconds"):
        path = write_record(str(tmp_path), replace(record, **{column: getattr(record, column)[:-1]}))
        with pytest.raises(EvaluationError, match="do not fit together"):
            read_record(path)


def test_detections_out_of_order_are_refused(tmp_path):
    record = make_record()
    shuffled = replace(record, detections=record.detections.select(np.arange(5)[::-1]))
    with pytest.raises(ValueError, match="not in the order of its frames"):
        write_record(str(tmp_path), shuffled)
    assert not record_paths(str(tmp_path))


def test_full_disk_is_said_and_earlier_records_stay(tmp_path, monkeypatch):
    first = write_record(str(tmp_path), make_record(1))

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EvaluationError, match=r"2.npz: .* video 2 cannot be written \(No space left on device\)"):
        write_record(str(tmp_path), make_record(2))
    assert record_paths(str(tmp_path)) == [first] and read_record(first).video_id == 1
    assert len(os.listdir(tmp_path / "videos")) == 1


def test_leftovers_of_killed_processes_are_no_records_and_can_be_removed(tmp_path):
    path = write_record(str(tmp_path), make_record())
    strays = [tmp_path / "videos" / ".abc.tmp", tmp_path / ".results.tmp"]
    for stray in strays:
        stray.write_bytes(b"half")
    assert record_paths(str(tmp_path)) == [path]
    remove_unfinished(str(tmp_path))
    assert not any(stray.exists() for stray in strays) and os.path.isfile(path)
    assert record_paths(str(tmp_path / "absent")) == []
    assert record_path("f", 3) == os.path.join("f", "videos", "3.npz")
