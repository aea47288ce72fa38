"""Records of videos: what is written is read, and nothing else is taken for a record."""

from __future__ import annotations

import errno
import os
from dataclasses import fields, replace

import numpy as np
import pytest
from eventful_vit.cost import CATEGORIES
from eventful_vitdet.errors import EvaluationError
from eventful_vitdet.evaluation import DetectionTable, VideoRecord, read_record, record_paths, store, write_record
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
        source="files",
        machine="a processor",
    )


def assert_same(one: VideoRecord, other: VideoRecord) -> None:
    assert (one.video_id, one.source, one.machine) == (other.video_id, other.source, other.machine)
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


@pytest.mark.parametrize("video_id", ["../a/b", "..", ".hidden", "ä b", -3, "x.npz", "動画/" * 30])
def test_any_id_makes_a_file_of_its_own_in_the_folder(tmp_path, video_id):
    path = write_record(str(tmp_path), make_record(video_id))
    assert os.path.dirname(path) == str(tmp_path / "videos") and record_paths(str(tmp_path)) == [path]
    assert read_record(path).video_id == video_id and not os.path.basename(path).startswith(".")


def test_long_ids_that_begin_alike_have_files_of_their_own():
    names = {record_path("f", "x" * length) for length in range(190, 300)}
    assert len(names) == 110 and max(len(os.path.basename(name)) for name in names) <= 255


def test_what_is_no_record_is_no_record(tmp_path, caplog):
    record = make_record()
    path, ids = write_record(str(tmp_path), record), record.image_ids.tolist()
    assert is_record_of(path, 7, ids, "files")
    assert not is_record_of(path, 8, ids, "files")
    assert not is_record_of(path, 7, ids[:-1], "files") and not is_record_of(path, 7, ids[::-1], "files")
    assert not is_record_of(str(tmp_path / "absent.npz"), 7, ids, "files")
    caplog.clear()
    assert not is_record_of(path, 7, ids, "other files")
    assert f"video 7 is evaluated again, {path} cannot be used: the video's files have changed" in caplog.text


def check_damaged(path: str, record: VideoRecord) -> None:
    """It is noticed at the beginning of an evaluation, and by whoever reads it."""
    assert not is_record_of(path, record.video_id, record.image_ids.tolist(), record.source)
    with pytest.raises(EvaluationError, match="7.npz: is no record .* Rerun the evaluation's command"):
        read_record(path)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "longer", "other", "pickle", "folder"])
def test_damaged_files_are_named(tmp_path, damage):
    record = make_record(counts=(50, 60))
    path = write_record(str(tmp_path), record)
    with open(path, "rb") as file:
        content = file.read()
    if damage == "other":
        np.savez(path, a=np.zeros(3))
    elif damage == "pickle":
        np.savez(path, image_ids=np.array([{}], dtype=object))
    elif damage == "folder":
        os.unlink(path)
        os.mkdir(path)
    else:
        damaged = {"cut": content[:-40], "empty": b"", "text": b"{}", "longer": content + b"\0"}[damage]
        with open(path, "wb") as file:
            file.write(damaged)
    check_damaged(path, record)


def test_a_bit_that_flips_anywhere_is_noticed(tmp_path):
    record = make_record()
    path = write_record(str(tmp_path), record)
    with open(path, "rb") as file:
        content = file.read()
    assert len(content) > 1500
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        with open(path, "wb") as file:
            file.write(flipped)
        assert not is_record_of(path, 7, record.image_ids.tolist(), record.source), position
    check_damaged(path, record)


def test_a_record_is_an_ordinary_npz_file(tmp_path):
    record = make_record()
    with np.load(write_record(str(tmp_path), record), allow_pickle=False) as file:
        np.testing.assert_array_equal(file["scores"], record.detections.scores)


def test_a_record_of_another_version_is_no_record(tmp_path, monkeypatch):
    record = make_record()
    path = write_record(str(tmp_path), record)
    monkeypatch.setattr(store, "COLUMNS", {*store.COLUMNS, "later"})
    with pytest.raises(EvaluationError, match="written by another version"):
        read_record(path)


def test_columns_that_do_not_fit_together_are_not_written(tmp_path):
    record = make_record()
    for column in ("flushed", "macs", "total_seconds"):
        with pytest.raises(ValueError, match=f"video 7: {column} has shape"):
            write_record(str(tmp_path), replace(record, **{column: getattr(record, column)[:-1]}))
    table = replace(record.detections, boxes=record.detections.boxes[:, :3])
    with pytest.raises(ValueError, match=r"video 7: boxes has shape \(5, 3\)"):
        write_record(str(tmp_path), replace(record, detections=table))
    assert not record_paths(str(tmp_path))


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
