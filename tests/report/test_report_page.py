"""The report of an evaluation: what it shows, what it says where something is missing, and that names stay text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from eventful_vit.cost import CATEGORIES
from eventful_vitdet.data import register_test_json
from eventful_vitdet.errors import ReportError
from eventful_vitdet.evaluation.detection_table import DetectionTable
from eventful_vitdet.evaluation.store import VideoRecord, write_record
from eventful_vitdet.report import write_report
from eventful_vitdet.report.charts import Point, tick_text, ticks, timeline_chart, tradeoff_chart
from eventful_vitdet.report.charts import Series as Line
from eventful_vitdet.report.disagreement import box_iou, compare_frames
from eventful_vitdet.report.markup import Markup, tag
from eventful_vitdet.report.pictures import choose_view

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x00\ud800"


def table(*rows: tuple[int, int, float, list[float]]) -> DetectionTable:
    """Rows of (image id, class, score, box)."""
    if not rows:
        return DetectionTable.empty()
    images, classes, scores, boxes = zip(*rows)
    return DetectionTable(
        np.array(images, np.int64), np.array(classes, np.int32), np.array(scores, np.float32), np.array(boxes, "f4")
    )


def record(video: int, frames: int, detections: DetectionTable, gmacs: int) -> VideoRecord:
    macs = np.zeros((frames, len(CATEGORIES)), np.int64)
    macs[:, 0] = gmacs * 10**9
    seconds = np.full(frames, 0.01 * gmacs)
    flushed = np.arange(frames) == 0
    return VideoRecord(video, 100 * video + np.arange(frames), flushed, macs, seconds, seconds, detections)


def result(policy: str, ap50: float | None, gflops: float, **groups) -> dict:
    cost = {"flush": 4.0, "later": gflops, "mean": gflops, "by_category": {}}
    return {
        "bbox": {"AP": ap50, "AP50": ap50, "AP-cat": ap50, "AP-dog": None},
        "gflops_per_frame": {"backbone": cost, "total": cost},
        "seconds_per_frame": {"backbone": 0.01 * gflops, "total": 0.02 * gflops},
        "videos": 2,
        "frames": 8,
        "policy": policy,
        "attention": "exact",
        "detectron2": "0.6",
        "torch": "2",
        "device": "cpu",
        **groups,
    }


@pytest.fixture
def folder(tmp_path):
    """Two videos, dense and at r = 9: video 1 is equal, in frame 2 of video 2 the eventful run sees another box."""
    folder = tmp_path / "inference"
    dense_box, other_box = [4.0, 4.0, 24.0, 20.0], [40.0, 20.0, 60.0, 40.0]
    agreeing = table(*[(100 + frame, 0, 0.9, dense_box) for frame in range(5)])
    dense = table(*[(200 + frame, 1, 0.8, dense_box) for frame in range(3)])
    moved = table((200, 1, 0.8, dense_box), (201, 1, 0.4, dense_box), (202, 1, 0.7, other_box))
    for budget, video_2, gmacs in (("dense", dense, 4), ("9", moved, 1)):
        write_record(str(folder / budget), record(1, 5, agreeing, gmacs))
        write_record(str(folder / budget), record(2, 3, video_2, gmacs))
    sparse = result(
        "top-r 9", 59.5, 1.0, agreement={"VID-AP50": 88.8}, motion={"VID-AP50-fast": 12.25, "objects-fast": 7.7}
    )
    (folder / "9" / "videos.csv").write_text("video,video_id,AP50\nx,1,77.25\ny,2,\n")
    (folder / "budgets.json").write_text(json.dumps([result("dense", 60.0, 4.0), sparse]))
    return folder


def report(folder, **options) -> str:
    path = folder / "report.html"
    write_report(str(folder), str(path), **options)
    return path.read_text(encoding="utf-8")


class Elements(HTMLParser):
    """All elements of a page, as (name, attributes)."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(page)

    def handle_starttag(self, name: str, attributes: list) -> None:
        self.found.append((name, dict(attributes)))

    def count(self, name: str, **attributes: str) -> int:
        return sum(n == name and attributes.items() <= a.items() for n, a in self.found)


def test_report_shows_every_part(folder, dataset):
    page = report(folder, dataset=dataset[0])
    for text in (
        "88.80",
        "12.25",
        "7.7 % of objects",
        "77.2<",
        "59.50",
        "4.0×",
        "cheapest within a point",
        "2 videos, 8 frames",
    ):
        assert text in page, text
    elements = Elements(page)
    assert elements.count("svg", **{"class": "chart"}) == 4
    assert elements.count("svg", **{"class": "chart timeline"}) == 4  # two videos, GFlops and milliseconds
    assert elements.count("svg", **{"class": "picture"}) == 1
    assert "2.avi</bdi>, frame 2" in page and "1 only dense, 1 only eventful" in page
    assert "dog 0.70" in page
    # Shared in video 2: the boxes of frame 0, and the dense one of frame 1, found at 0.4; 2 of the dense run's three
    # and 1 of the other's two: 3 of 5.
    assert ">60.0<" in page and ">100.0<" in page


def test_report_needs_nothing_else_and_is_the_same_twice(folder, dataset):
    page = report(folder, dataset=dataset[0])
    assert page == report(folder, dataset=dataset[0])
    references = [v for _, attributes in Elements(page).found for k, v in attributes.items() if k in ("src", "href")]
    assert references and all(reference.startswith("data:image/jpeg;base64,") for reference in references)
    assert not re.search(r"url\(|@import|https?:", page)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_names_remain_text(folder, tmp_path, dataset):
    document = json.loads((tmp_path / "set.json").read_text())
    document["categories"][1]["name"] = HOSTILE.replace("\x00", "")
    (tmp_path / "hostile.json").write_text(json.dumps(document))
    budgets = json.loads((folder / "budgets.json").read_text())
    for budget in budgets:
        budget["bbox"][f"AP-{HOSTILE}"] = 1.0
        budget["device"] = budget["motion"] = HOSTILE
    budgets[1]["stability"] = {f"VID-AP50-age-{HOSTILE}": HOSTILE}
    (folder / "budgets.json").write_text(json.dumps([*budgets, result(HOSTILE, 1.0, 1.0)]))
    page = report(folder, dataset=register_test_json(str(tmp_path / "hostile.json")), title=HOSTILE)
    elements = Elements(page)
    assert elements.count("script") == 1 and elements.count("img") == 0
    assert not any(key.startswith("on") for _, attributes in elements.found for key in attributes)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "\ufffd" in page


def test_missing_parts_are_said(folder):
    (folder / "budgets.json").write_text(
        json.dumps([{"policy": "dense", "bbox": None}, {"policy": "top-r 9", "motion": {"VID-AP50-slow": None}}])
    )
    page = report(folder)
    assert "not measured in this evaluation" in page and ">slow<" in page
    assert "No pictures: no data set was given" in page


def test_results_without_records_or_dense(folder):
    (folder / "budgets.json").write_text(json.dumps([result("threshold 0.5", 20.0, 1.0)]))
    page = report(folder)
    assert "no records of single videos" in page and "no records of a dense run" in page and "threshold 0.5" in page


def test_single_evaluation(folder):
    for path in (folder / "9").iterdir():
        path.rename(folder / path.name)
    (folder / "budgets.json").unlink()
    (folder / "results.json").write_text(json.dumps(result("top-r 9", 20.0, 1.0)))
    assert Elements(report(folder)).count("svg", **{"class": "chart timeline"}) == 4


def test_pictures_are_skipped_with_the_reason(folder, dataset, tmp_path):
    (tmp_path / "videos" / "2.avi").write_bytes(b"no video")
    page = report(folder, dataset=dataset[0])
    assert "Some pictures are missing" in page and "2.avi: cannot be opened as a video" in page
    (tmp_path / "videos" / "2.avi").unlink()
    assert "1 of the 2 files it names do not exist" in report(folder, dataset=dataset[0])


def test_chosen_videos(folder):
    elements = Elements(report(folder, videos=["2"], thumbnails=0))
    assert elements.count("option") == 1 and elements.count("option", value="2") == 1
    with pytest.raises(ReportError, match="no video has the id 7; there are 1, 2"):
        report(folder, videos=["2", 7])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has neither budgets.json nor results.json; give the 'inference' folder"),
        ("[{]", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("{}", "expected a list of results"),
        ("[]", "expected a list of results"),
        ('[{"bbox": {}}]', "an entry has no 'policy'"),
        ('[{"policy": "dense"}, {"policy": "dense"}]', "'dense' occurs twice"),
    ],
)
def test_folders_that_are_no_evaluation(tmp_path, content, message):
    if content is not None:
        (tmp_path / "budgets.json").write_text(content)
    with pytest.raises(ReportError, match=message):
        write_report(str(tmp_path), str(tmp_path / "report.html"))
    assert not (tmp_path / "report.html").exists()


def test_frames_differ_where_one_run_lacks_a_strong_box():
    box, near, far = [0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 40, 40]
    dense = table((1, 0, 0.9, box), (1, 0, 0.3, far), (2, 0, 0.6, box), (3, 0, 0.6, box))
    eventful = table((1, 0, 0.3, near), (1, 0, 0.55, far), (2, 1, 0.6, box), (3, 0, 0.1, box))
    found = list(compare_frames(np.array([1, 2, 3, 4]), dense, eventful))
    assert [(d.strong, d.shared) for d in found] == [(2, 2), (2, 0), (1, 0), (0, 0)]
    assert [d.size for d in found] == pytest.approx([0, 1.2, 0.6, 0])


def test_iou():
    boxes = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 5, 5]], np.float32)
    np.testing.assert_allclose(box_iou(boxes, boxes), [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 0]], atol=1e-6)


def test_ticks_are_round_and_reach_the_top():
    assert ticks(0.7) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert ticks(100) == [0, 20, 40, 60, 80, 100]
    assert ticks(0) == [0, 1]
    for top in (1e-9, 0.013, 3.3, 17.0, 99.9, 12345.0):
        assert ticks(top)[-1] >= top and 3 <= len(ticks(top)) <= 8
    assert [tick_text(value, ticks(0.7)) for value in ticks(0.7)] == ["0.0", "0.2", "0.4", "0.6", "0.8"]
    assert tick_text(2.5, [0, 2.5]) == "2.5" and tick_text(2000, [0, 1000]) == "2,000"


def test_budgets_are_joined_by_their_operations_and_not_by_noisy_times(tmp_path):
    entries = [result("dense", 60.0, 4.0), *(result(f"top-r {r}", 50.0, r / 10) for r in (5, 20, 10))]
    for entry, seconds in zip(entries, (0.3, 0.2, 0.1, 0.4)):
        entry["seconds_per_frame"]["total"] = seconds
    (tmp_path / "budgets.json").write_text(json.dumps(entries))
    paths = re.findall(r'class="joint" points="([^"]*)"', report(tmp_path))
    by_gflops, by_time = ([float(point.split(",")[0]) for point in path.split()] for path in paths[:2])
    assert by_gflops == sorted(by_gflops, reverse=True) and len(by_gflops) == 3
    assert by_time[1] > by_time[2] > by_time[0]  # r = 10 in the middle took longest


def test_charts_take_extreme_values():
    assert "polyline" in tradeoff_chart([Point(0.0, 0.0, "r = 0", "red", False)], "x", "y")
    long = timeline_chart([Line("a", "red", np.arange(100_000.0))], "GFlops", [0], width=900)
    assert len(long) < 60_000 and "100000.0" in long  # the last of 99,999 to four digits


def test_view_lies_inside_the_frame_and_holds_the_boxes():
    for box in ([0, 0, 10, 10], [1900, 1070, 1920, 1080], [0, 0, 1920, 1080], [-50, 500, 30, 560]):
        view = choose_view(1920, 1080, np.array([box], np.float32))
        assert 0 <= view.x and view.x + view.width <= 1920 and 0 <= view.y and view.y + view.height <= 1080
        assert view.x <= max(0, box[0]) and box[2] <= view.x + view.width


def test_only_what_was_made_as_markup_is_markup():
    assert tag("b", {"title": Markup("<i>")}, "<i>", Markup("<i>")) == '<b title="&lt;i&gt;">&lt;i&gt;<i></b>'
    assert tag("input", {"disabled": True, "value": None, "checked": False}) == "<input disabled>"
