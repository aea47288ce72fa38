"""Seconds of different machines are never in one figure."""

from __future__ import annotations

import csv
import dataclasses

import pytest
import torch
from eventful_vitdet.evaluation import evaluate_budgets, evaluate_once, provenance, run, timed_frames
from eventful_vitdet.evaluation.machine_times import comparable_times
from eventful_vitdet.evaluation.provenance import describe_machine, digest_video
from eventful_vitdet.evaluation.results import format_budgets
from eventful_vitdet.evaluation.tensorboard_curves import write_sweep
from eventful_vitdet.timing import run_timed
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from .conftest import OracleDetector, read_strict


@pytest.fixture
def on_machine(monkeypatch):
    """Lets evaluations be on a machine of some name, whose backbone takes some seconds per frame."""

    def move(name: str, backbone_seconds: float) -> None:
        def timed(*args):
            return dataclasses.replace(run_timed(*args), backbone_seconds=backbone_seconds)

        monkeypatch.setattr(run, "describe_machine", lambda device: name)
        monkeypatch.setattr(timed_frames, "run_timed", timed)

    return move


def test_one_machine(cfg, model, tmp_path, on_machine):
    on_machine("A", 0.25)
    evaluate_once(cfg, model)
    results = read_strict(tmp_path / "out" / "inference" / "results.json")
    times = results["seconds_by_machine"]["A"]
    assert times["frames"] == 8 and times["backbone"] == 0.25
    assert results["seconds_per_frame"] == {part: times[part] for part in ("backbone", "total")}


def test_an_evaluation_that_was_continued_on_another_machine(cfg, model, tmp_path, on_machine, capsys):
    folder = tmp_path / "out" / "inference"
    on_machine("A", 0.25)
    evaluate_once(cfg, model)
    (folder / "videos" / "2.npz").unlink()
    on_machine("B", 0.5)
    capsys.readouterr()
    returned = evaluate_once(cfg, model)
    results = read_strict(folder / "results.json")
    assert results["seconds_per_frame"] == {"backbone": None, "total": None}
    assert {name: (t["frames"], t["backbone"]) for name, t in results["seconds_by_machine"].items()} == {
        "A": (5, 0.25),
        "B": (3, 0.5),
    }
    assert returned["seconds_per_frame"]["total"] != returned["seconds_per_frame"]["total"]  # NaN
    printed = capsys.readouterr().out
    assert "top-r 256: backbone 0.2500, total" in printed
    assert "(5 frames on A)" in printed and "(3 frames on B)" in printed
    rows = list(csv.DictReader((folder / "videos.csv").open()))
    assert [row["machine"] for row in rows] == ["A", "B"]


def test_budgets_on_different_machines_are_not_compared_in_time(cfg, tmp_path, on_machine):
    folder = tmp_path / "out" / "inference"
    on_machine("A", 0.25)
    evaluate_budgets(cfg, OracleDetector(), ["dense"])
    on_machine("B", 0.5)
    evaluate_budgets(cfg, OracleDetector(), ["dense", "5"])
    results = read_strict(folder / "budgets.json")
    assert [list(result["seconds_by_machine"]) for result in results] == [["A"], ["B"]]
    assert all(result["seconds_per_frame"]["total"] > 0 for result in results)  # each of one machine
    table = (folder / "budgets.md").read_text()
    for line in table.splitlines()[2:4]:
        assert [cell.strip() for cell in line.split("|")[-3:-1]] == ["-", "-"]
    assert "different machines" in table and "frames on A" in table and "frames on B" in table
    assert not any("seconds" in tag for tag in scalars(write_sweep(str(folder), results)))
    alone = [results[0]]
    assert comparable_times(alone) == alone and "-" not in format_budgets(alone).splitlines()[2].split("|")[-2]
    assert any("seconds" in tag for tag in scalars(write_sweep(str(folder), alone)))


def scalars(folder: str) -> list[str]:
    events = EventAccumulator(folder)
    events.Reload()
    return events.Tags()["scalars"]


def test_a_machine_is_described_by_its_processor(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Some CPU @ 3 GHz\nmodel name\t: Other\n")
    monkeypatch.setattr(provenance, "CPU_INFO", tmp_path / "cpuinfo")
    provenance.describe_processor.cache_clear()
    assert describe_machine(torch.device("cpu")).startswith("Some CPU @ 3 GHz, ")
    monkeypatch.setattr(provenance, "CPU_INFO", tmp_path / "absent")
    provenance.describe_processor.cache_clear()
    assert len(provenance.describe_processor()) > 2
    provenance.describe_processor.cache_clear()


def test_a_folder_of_images_is_told_by_its_files(tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(3)]
    for path in paths:
        path.write_bytes(b"picture")
    video = [{"file_name": str(path), "is_video_file": False} for path in paths]
    before = digest_video(video)
    assert digest_video(video[:2]) != before
    paths[1].write_bytes(b"a larger picture")
    assert digest_video(video) != before
