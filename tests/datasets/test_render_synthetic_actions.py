"""The synthetic actions: same seeds give same data, splits differ, files are complete, verbs do what they say."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "datasets"
sys.path.insert(0, str(SCRIPTS))

import render_synthetic_actions as script  # noqa: E402
import synthetic_actions as scene  # noqa: E402
from eventful_vitdet.actions import load_action_set, register_action_csv  # noqa: E402
from eventful_vitdet.actions.clip_frames import open_clip  # noqa: E402


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("synthetic_actions")
    for split in ("train", "test"):
        assert script.main(["--output", str(output), "--split", split, "--videos", "1", "--side", "32"]) == 0
    return output


def test_every_verb_with_every_noun(rendered):
    with open(rendered / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({(row["verb_class"], row["noun_class"]) for row in rows}) == len(rows) == 48
    assert all(scene.VERBS[int(row["verb_class"])] == row["verb"] for row in rows)
    assert all(scene.NOUNS[int(row["noun_class"])] == row["noun"] for row in rows)


def test_clips_are_read_at_their_times(rendered):
    clips = load_action_set(register_action_csv(str(rendered / "test.csv")), {"verb": 8, "noun": 6}).clips
    settings = scene.Settings("test", 1, 32)
    frames = list(scene.render_video(settings, 0))
    for number in (0, 17, 47):
        read = open_clip(clips[number], 30.0)
        assert read.numbers.tolist() == list(range(24 * number, 24 * number + 24))
        [image] = read.images([5])
        assert np.abs(image[..., ::-1].astype(int) - frames[24 * number + 5]).mean() < 12  # the codec's losses


def test_seeds(rendered):
    first = [image.sum() for image, _ in zip(scene.render_video(scene.Settings("train", 2, 32), 0), range(30))]
    again = [image.sum() for image, _ in zip(scene.render_video(scene.Settings("train", 9, 32), 0), range(30))]
    others = [image.sum() for image, _ in zip(scene.render_video(scene.Settings("test", 2, 32), 0), range(30))]
    assert first == again and first != others


def test_a_finished_split_is_left_alone(rendered, capsys):
    before = {path: path.stat().st_mtime_ns for path in rendered.rglob("*.*")}
    assert script.main(["--output", str(rendered), "--split", "test", "--videos", "1", "--side", "32"]) == 0
    assert {path: path.stat().st_mtime_ns for path in rendered.rglob("*.*")} == before
    assert "already there" in capsys.readouterr().out


def test_foreign_files_and_impossible_sizes_are_refused(tmp_path, capsys):
    (tmp_path / "train.csv").write_text("mine")
    assert script.main(["--output", str(tmp_path), "--split", "train"]) == 1
    assert "was not written by this script" in capsys.readouterr().err
    assert (tmp_path / "train.csv").read_text() == "mine"
    assert script.main(["--output", str(tmp_path / "new"), "--split", "train", "--side", "33"]) == 1
    assert "must be even" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(4))
def test_verbs_do_what_they_say(seed):
    rng = np.random.default_rng(seed)
    paths = {verb: scene.make_paths(rng, 64, verb) for verb in scene.VERBS}
    assert [len(found) for verb, found in paths.items()] == [1] * 7 + [2]
    start, end = ({verb: found[0][place] for verb, found in paths.items()} for place in (0, -1))
    assert end["move_left"][0] < start["move_left"][0] - 20 and end["move_right"][0] > start["move_right"][0] + 20
    assert end["grow"][2] > 1.5 * start["grow"][2]
    assert abs(end["rotate"][3] - start["rotate"][3]) > 2
    assert is_outside(start["enter"]) and not is_outside(end["enter"])
    assert is_outside(end["leave"]) and not is_outside(start["leave"])
    one, other = (path[:, :2] for path in paths["collide"])
    distance = np.linalg.norm(one - other, axis=1)
    assert distance.argmin() in (11, 12) and distance[[0, -1]].min() > distance.min() + 10


def is_outside(pose: np.ndarray) -> bool:
    return min(pose[:2]) < -pose[2] or max(pose[:2]) > 64 + pose[2]


def test_an_interruption_ends_without_a_traceback(tmp_path, monkeypatch, capsys):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "write_video", interrupt)
    assert script.main(["--output", str(tmp_path), "--split", "test"]) == 130
    assert "the same command renders it again" in capsys.readouterr().err
    assert not (tmp_path / "test.csv").exists()
