"""Each command's `main`, once, with work to do: what it writes, what it says, and that it says nothing else."""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import pytest
import torch
from benchmark.test_benchmark import OPTIONS as SMALL_VITDET
from draw.conftest import CONFIG, OPTIONS
from eventful_vitdet.cli import (
    benchmark_command,
    benchmark_pyramid_command,
    checkout,
    demo_command,
    export_weights_command,
    figure_command,
    measure_control_command,
    operation_table_command,
    report_command,
    train_command,
)
from eventful_vitdet.config_files import build_cfg
from eventful_vitdet.errors import ReportError
from safetensors.torch import load_file

PAIRS = [word for pair in OPTIONS.items() for word in pair]


@pytest.fixture
def detector(repository, weights) -> list[str]:
    """The words that name a tiny detector."""
    return ["--config-file", str(repository / CONFIG), "MODEL.WEIGHTS", weights, *PAIRS]


@pytest.fixture(scope="module")
def two_videos(tmp_path_factory, render_videos) -> Path:
    """The annotation file of two rendered videos of three frames."""
    folder = tmp_path_factory.mktemp("rendered") / "demo_vid"
    render_videos(folder, "test", 2, 3)
    return folder / "annotations" / "test.json"


@pytest.fixture
def evaluated(detector, two_videos, tmp_path, capsys) -> tuple[Path, str]:
    """The folder of an evaluation at two budgets, and what the command said."""
    config, pairs = detector[:2], detector[2:]
    words = ["--eval-only", "--test-json", str(two_videos), "--budgets", "dense", "9"]
    assert train_command.main([*config, *words, *pairs, "OUTPUT_DIR", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    assert "Warning" not in shown.err and "warning" not in shown.err
    return tmp_path / "out" / "inference", shown.out


def test_evaluation_is_quiet_and_says_how_to_go_on(evaluated, two_videos, repository):
    folder, out = evaluated
    lines = out.splitlines()
    assert len(lines) < 15
    assert lines[-2] == f"table: {folder}/budgets.md" and (folder / "budgets.md").is_file()
    report = f"report: python tools/report.py {folder} --config-file {repository / CONFIG} --test-json {two_videos}"
    assert lines[-1] == report
    assert sum(line.startswith("|") for line in lines) == 4  # the table, without a second one
    log = (folder.parent / "log.txt").read_text()
    assert "OUTPUT_DIR" in log and "VideoRCNN(" in log  # configuration and modules
    assert "video test_000: 3 frames" in log


def test_single_evaluation_writes_its_tables(detector, two_videos, tmp_path, capsys):
    words = [*detector[:2], "--eval-only", "--test-json", str(two_videos), *detector[2:]]
    settings = ["DATASETS.EMPTY_BOXES", "drop", "OUTPUT_DIR", str(tmp_path / "out")]
    assert train_command.main([*words, *settings]) == 0
    table = tmp_path / "out" / "inference" / "results.md"
    out = capsys.readouterr().out
    assert f"table: {table}" in out and "GFlops per frame" in table.read_text()
    assert "DATASETS.EMPTY_BOXES drop" in out.splitlines()[-1]  # a report of the same frames needs it


def test_report(evaluated, detector, two_videos, tmp_path, capsys):
    """As the evaluation's last line says it."""
    folder, out = evaluated
    words = out.splitlines()[-1].removeprefix("report: python tools/report.py ").split()
    plot = tmp_path / "plots" / "tradeoff.svg"
    assert report_command.main([*words, "--plot", str(plot)]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"report: {folder}/report.html\nplot: {plot}\n" and shown.err == ""
    page = (folder / "report.html").read_text()
    assert "test_000.mp4" in page and "data:image/jpeg" in page and ET.parse(plot).getroot().tag.endswith("svg")


def test_a_report_finds_its_data_set_among_several(tmp_path):
    """By the folder's name, as evaluations call it."""
    cfg = build_cfg(CONFIG, ["DATASETS.TEST", "('one: day', 'two')"])
    arguments = argparse.Namespace(folder=str(tmp_path / "one_day"), test_json=None, config_file=CONFIG, opts=[])
    assert report_command.find_dataset(arguments, cfg) == "one: day"
    arguments.folder = str(tmp_path / "three")
    with pytest.raises(ReportError, match="DATASETS.TEST does not name the data set of .*three"):
        report_command.find_dataset(arguments, cfg)


def test_figure(detector, images, tmp_path, capsys):
    output = tmp_path / "out" / "figure.png"
    words = ["--input", str(images), "--budget", "0:9,50:3", "--output", str(output)]
    assert figure_command.main([*words, *detector]) == 0
    out = capsys.readouterr().out
    assert f"{images}: 8 frames, so the schedule is 0:9,4:3\n" in out and out.endswith(f"{output}\n")
    assert cv2.imread(str(output)).shape[1] == 1600


def test_measure_control(detector, images, tmp_path, capsys):
    plot = tmp_path / "out" / "response.png"
    words = ["--input", str(images), "--controller", "gflops", "--targets", "1.0", "0.000001", "--frames", "4"]
    assert measure_control_command.main([*words, "--plot", str(plot), *detector]) == 0
    out, err = capsys.readouterr()
    assert sum(line.startswith("|") for line in out.splitlines()) == 4 and cv2.imread(str(plot)) is not None
    assert "gflops: 100%" in err and "8/8" in err  # a bar says from the first frame on how far it is
    cuts = ["--input", str(images), "--controller", "scene-cuts", "--frames", "4"]
    assert measure_control_command.main([*cuts, *detector]) == 0
    assert "joints seen as scene cuts" in capsys.readouterr().out


def test_export_weights(tmp_path, capsys):
    stored = {"model": {"a.weight": torch.arange(6.0).reshape(2, 3), "a.number": torch.tensor(3)}, "iteration": 7}
    torch.save(stored, tmp_path / "model.pth")
    output = tmp_path / "weights.safetensors"
    assert export_weights_command.main([str(tmp_path / "model.pth"), str(output), "--half"]) == 0
    weights = load_file(str(output))
    assert weights["a.weight"].dtype == torch.float16 and weights["a.number"].item() == 3
    assert "7 parameters" in capsys.readouterr().out
    assert os.name != "posix" or output.stat().st_mode & 0o777 == 0o644  # others can read it
    assert export_weights_command.main([str(tmp_path / "model.pth"), str(output / "x.safetensors")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "x.safetensors cannot be written" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pth", "weights.safetensors"]
    torch.save({"model": {"a": torch.tensor([1.0, 70000.0]), "b": torch.tensor(2)}}, tmp_path / "large.pth")
    assert export_weights_command.main([str(tmp_path / "large.pth"), str(tmp_path / "x.safetensors"), "--half"]) == 1
    assert "float16 ends at 65504, and there are larger values in a" in capsys.readouterr().err


def test_benchmark(detector, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("eventful_vitdet.benchmark.roofline.SHAPE", (64, 24, 96))  # not this machine's rate, but soon
    words = ["--sizes", "96", "--budgets", "4", "12", "--rounds", "1", "--profile", "--output", str(tmp_path / "out")]
    assert benchmark_command.main([*words, *detector]) == 0
    out = capsys.readouterr().out
    assert "exact, r = 12" in out and "96 px, milliseconds" in out
    (result,) = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert len(result["rows"]) == 3 and (tmp_path / "out" / "benchmark.png").is_file()
    assert benchmark_command.main(["--modes", "best", "--output", str(tmp_path / "out"), *detector]) == 1
    assert "--modes: 'best' is unknown; choose from exact, full" in capsys.readouterr().err


def test_benchmark_of_the_pyramid(repository, tmp_path, capsys, monkeypatch):
    options = [word for pair in SMALL_VITDET.items() for word in pair]
    config = tmp_path / "small.yaml"
    config.write_text(build_cfg(str(repository / "configs" / "Base-ViTDet.yaml"), options).dump())
    monkeypatch.setattr(benchmark_pyramid_command, "CONFIG", str(config))
    assert benchmark_pyramid_command.main(["--size", "96", "--rounds", "1"]) == 0
    out = capsys.readouterr().out
    assert "96 px" in out and "time / dense" in out and "preprocessing" in out


def test_operation_table(tmp_path, capsys):
    reference = json.loads(Path(operation_table_command.REFERENCE).read_text())
    name = "base_672"
    reference["configurations"] = {name: reference["configurations"][name]}
    path = tmp_path / "counts.json"
    path.write_text(json.dumps(reference))
    assert operation_table_command.main(["--reference", str(path)]) == 0
    assert "all 1 frames agree" in capsys.readouterr().out
    reference["configurations"][name]["first_frame"]["linear_flops"] += 1
    path.write_text(json.dumps(reference))
    assert operation_table_command.main(["--reference", str(path)]) == 1
    assert "error: 1 of 1 frames differ" in capsys.readouterr().err
    assert operation_table_command.main(["--reference", str(tmp_path / "absent.json")]) == 1
    assert "absent.json: No such file or directory" in capsys.readouterr().err


@pytest.fixture
def small_demo(monkeypatch, tmp_path, two_videos):
    """The demo on two short videos, at two budgets."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(two_videos.parents[2]))
    monkeypatch.setattr(checkout, "render_demo_videos", lambda: two_videos.parents[1])
    monkeypatch.setattr(demo_command, "BUDGETS", ["dense", "8"])
    return tmp_path / "out" / "inference"


def test_demo_resumes_what_was_interrupted(small_demo, tmp_path, capsys, monkeypatch):
    from eventful_vitdet.evaluation import store
    from eventful_vitdet.evaluation.run import write_record

    written = []

    def interrupted(folder: str, record: store.VideoRecord) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        write_record(folder, record)
        written.append((Path(folder).name, record.video_id))

    monkeypatch.setattr("eventful_vitdet.evaluation.run.write_record", interrupted)
    words = ["OUTPUT_DIR", str(tmp_path / "out"), "MODEL.DEVICE", "cpu"]
    assert demo_command.main(words) == 130
    assert "the same command" in capsys.readouterr().err and (small_demo / demo_command.UNFINISHED).is_file()
    again: list = []

    def counted(folder: str, record: store.VideoRecord) -> None:
        again.append((Path(folder).name, record.video_id))
        write_record(folder, record)

    monkeypatch.setattr("eventful_vitdet.evaluation.run.write_record", counted)
    assert demo_command.main(words) == 0
    assert len(written) == 3 and len(again) == 1 and not set(again) & set(written)
    out = capsys.readouterr().out.splitlines()
    outputs = dict(line.split(": ", 1) for line in out if line.split(": ")[0] in ("table", "plot", "report", "times"))
    assert set(outputs) == {"table", "plot", "report", "times"} and all(map(os.path.isfile, outputs.values()))
    assert (small_demo / "videos" / "8.mp4").is_file() and not (small_demo / demo_command.UNFINISHED).exists()
    # After a complete one, the times are to be of the run that was asked for.
    assert demo_command.main(words) == 0
    assert len(again) == 1 + 4


def test_live_page(detector, images, capsys, monkeypatch):
    pytest.importorskip("websockets", reason="the extra 'live' is not installed")
    pytest.importorskip("fastapi", reason="the extra 'live' is not installed")
    from eventful_vitdet.cli import live_command
    from websockets.sync.client import connect

    seen: list[bytes] = []

    def watch_and_interrupt() -> None:
        address = capsys_address()
        with connect(f"ws://{address}/updates", max_size=None) as websocket:
            while b'"picture"' not in (message := websocket.recv(timeout=30)):
                websocket.send("next")
            seen.append(message)
            os.kill(os.getpid(), signal.SIGINT)

    served = threading.Event()
    addresses: list[str] = []

    def capsys_address() -> str:
        assert served.wait(60)
        return addresses[0]

    from eventful_vitdet.live import server

    address_of = server.address_of

    def note(bound) -> str:
        addresses.append(address_of(bound).removeprefix("http://").strip("/"))
        served.set()
        return address_of(bound)

    monkeypatch.setattr(server, "address_of", note)
    viewer = threading.Thread(target=watch_and_interrupt)
    viewer.start()
    assert live_command.main(["--input", str(images), "--port", "0", *detector]) == 0
    viewer.join(30)
    assert not viewer.is_alive() and len(seen) == 1
    shown = capsys.readouterr()
    assert shown.out.endswith("ended\n") and "(Ctrl-C ends)" in shown.out and shown.err == ""
