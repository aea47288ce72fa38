"""The report of an evaluation: what it shows, what it says where something is missing, and that names stay text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from eventful_vit.cost import CATEGORIES
from eventful_vitdet.data import register_test_json
from eventful_vitdet.errors import ReportError
from eventful_vitdet.evaluation.detection_table import DetectionTable
from eventful_vitdet.evaluation.store import VideoRecord, write_record
from eventful_vitdet.report import document, write_report, write_tradeoff
from eventful_vitdet.report.advice import advise, disturbed_times
from eventful_vitdet.report.charts import (
    CHARACTER,
    LINE,
    Point,
    make_axis,
    tick_text,
    ticks,
    timeline_chart,
    tradeoff_chart,
)
from eventful_vitdet.report.charts import Series as Line
from eventful_vitdet.report.disagreement import box_iou, compare_frames
from eventful_vitdet.report.evaluation_folder import Budget, read_budgets
from eventful_vitdet.report.pictures import choose_view, whole_view

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
    (folder / "9" / "videos.csv").write_text("video,video_id,AP25,AP50\nx,1,88.35,77.25\ny,2,,\n")
    (folder / "budgets.json").write_text(json.dumps([result("dense", 60.0, 4.0), sparse]))
    return folder


@pytest.mark.parametrize("policy", ["calibrated 1.5 (0a1b2c)", "shared 1.5 GFlops (0a1b2c)"])
def test_calibrated_budgets_have_their_videos(folder, policy):
    (folder / "9").rename(folder / "calibrated")
    content = json.loads((folder / "budgets.json").read_text())
    content[1]["policy"] = policy
    (folder / "budgets.json").write_text(json.dumps(content))
    calibrated = read_budgets(str(folder))[1]
    assert len(calibrated.records) == 2 and calibrated.video_rows["1"]["AP50"] == "77.25"


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
        "88.3<",
        "59.50",
        "4.0×",
        "r = 9 keeps the dense model&#39;s AP50 (59.5 against 60.0), runs 4.0 times fewer operations",
        "2 videos, 8 frames",
    ):
        assert text in page, text
    elements = Elements(page)
    assert elements.count("svg", **{"class": "chart"}) == 4
    assert elements.count("svg", **{"class": "chart timeline"}) == 4  # two videos, GFlops and milliseconds
    # The middle frames of both videos, then the one in which the two differ.
    assert elements.count("svg", **{"class": "picture"}) == 3
    assert page.index("At r = 9") < page.index("Quality against cost") < page.index("Largest disagreements")
    assert "2.avi</bdi>, frame 2" in page and "1 only dense, 1 only eventful" in page
    assert "dog 0.70" in page and "cat 0.90" in page
    # Shared in video 2: the boxes of frame 0, and the dense one of frame 1, found at 0.4; 2 of the dense run's three
    # and 1 of the other's two: 3 of 5.
    assert ">60.0<" in page and ">100.0<" in page


def test_bars_of_videos_show_the_measures_that_there_are(folder):
    def keys(page: str) -> list[str]:
        return [a["data-key"] for _, a in Elements(page).found if a.get("data-part") == "quality"]

    page = report(folder)
    assert keys(page) == ["AP50", "AP25"] and Elements(page).count("div", **{"class": "bars columns-4"}) == 2
    (folder / "9" / "videos.csv").write_text("video,video_id,AP50\nx,1,77.25\n")  # of an earlier version
    assert keys(report(folder)) == ["AP50"]
    (folder / "9" / "videos.csv").unlink()
    page = report(folder)
    assert keys(page) == [""] and Elements(page).count("div", **{"class": "bars columns-3"}) == 1
    assert ">, percent<" not in page


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
    assert not any(key.startswith("on") or key == "style" for _, attributes in elements.found for key in attributes)
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


def summary_columns(page: str) -> list[str]:
    """The head of the first table."""
    return re.findall(r"<th>(.*?)</th>", page[page.index("<thead>") : page.index("</thead>")])


def test_columns_of_what_was_measured(folder):
    page = report(folder)
    assert summary_columns(page)[:4] == ["budget", "AP", "AP50", "VID-AP50"] and "mask AP" not in page
    budgets = json.loads((folder / "budgets.json").read_text())
    budgets[1]["bbox"]["AP25"] = 71.25
    budgets[1]["segm"] = {"AP": 33.11, "AP-cat": 44.22, "AP-small": 1.0}
    budgets[0]["tube_bbox"] = {"AP": 22.33, "AP-dog": 11.44}
    budgets[0]["tube_segm"] = {"AP": None}
    (folder / "budgets.json").write_text(json.dumps(budgets))
    page = report(folder)
    assert summary_columns(page)[:7] == ["budget", "AP", "AP25", "AP50", "VID-AP50", "mask AP", "tube AP"]
    assert "tube mask AP" not in page
    for value in ("71.25", "33.11", "44.22", "22.33", "11.44"):
        assert f"<td>{value}</td>" in page, value


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


def test_the_page_allows_itself_nothing_but_its_own_style_and_script(folder, dataset):
    page = report(folder, dataset=dataset[0])
    policies = [a["content"] for _, a in Elements(page).found if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    rules = dict(rule.strip().split(" ", 1) for rule in policies[0].split(";"))
    for name in ("style", "script"):
        (content,) = re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules.pop(f"{name}-src") == f"'sha256-{digest}'"
    assert rules == {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}


def test_ticks_are_round_and_within_the_axis():
    assert ticks(0, 0.7) == pytest.approx([0, 0.2, 0.4, 0.6])
    assert ticks(70.3, 96.1) == [75, 80, 85, 90, 95]
    for low, high in ((0, 1e-9), (0, 0.013), (3.2, 3.3), (17.0, 99.9), (12_345.0, 12_346.0)):
        marks = ticks(low, high)
        assert low - 1e-9 <= marks[0] and marks[-1] <= high + 1e-9 and 3 <= len(marks) <= 7
    assert [tick_text(value, ticks(0, 0.7)) for value in ticks(0, 0.7)] == ["0.0", "0.2", "0.4", "0.6"]
    assert tick_text(2.5, [0, 2.5]) == "2.5" and tick_text(2000, [0, 1000]) == "2,000"


def test_an_axis_begins_where_the_data_are():
    near, far = make_axis("AP50", [72.0, 94.0], 300, 10), make_axis("GFlops", [0.1, 0.9], 40, 400)
    assert near.is_broken and 65 < near.low < 72 and near.high > 94
    assert not far.is_broken and far.low == 0 and far.place(0.0) == 40
    assert near.place(near.low) == 300 and near.place(near.high) == 10
    assert max(float(text) for _, text in make_axis("x", [90.0, 100.0], 300, 10, most=100).ticks) == 100  # not 102
    equal = make_axis("AP50", [16.70, 17.05], 300, 10, 5.0, most=100)
    assert equal.high - equal.low == pytest.approx(5.0) and equal.low < 16.7  # a third of a point is to look small
    for values in ([0.0], [5.0], [3.0, 3.0]):  # no span of their own
        axis = make_axis("x", values, 0, 100)
        assert all(0 <= axis.place(value) <= 100 for value in values)


@pytest.mark.parametrize("seed", range(4))
def test_every_point_has_a_label_and_none_hides_another(seed):
    generator = np.random.default_rng(seed)
    costs = np.sort(generator.uniform(0.28, 0.4, 10))
    points = [Point(float(c), float(90 + 5 * c), f"r = {2**i}", "p1", False) for i, c in enumerate(costs)]
    chart = tradeoff_chart([Point(0.7, 93.0, "dense", "p0", True), *points], "GFlops", "AP50")
    assert [mark.text for mark in chart.marks] == ["dense", *(point.label for point in points)]
    boxes = []
    for mark in chart.marks:
        width = CHARACTER * len(mark.text)
        boxes.append((mark.text_x, mark.text_y - LINE, mark.text_x + width, mark.text_y))
        assert 0 <= mark.text_x and mark.text_x + width <= chart.width and LINE <= mark.text_y <= chart.height
    covered = [pair for pair in combinations(boxes, 2) if cover(*pair)]
    assert not covered
    assert any(mark.leader for mark in chart.marks)  # ten in a corner: some stand away, with a line


def cover(first: tuple, second: tuple) -> bool:
    return min(first[2], second[2]) > max(first[0], second[0]) and min(first[3], second[3]) > max(first[1], second[1])


def budget(policy: str, ap50: float | None, gflops: float, **groups) -> Budget:
    return Budget(policy, result(policy, ap50, gflops, **groups), {})


@pytest.mark.parametrize(
    ("budgets", "sentence"),
    [
        (
            [budget("dense", 60.0, 4.0), budget("top-r 9", 59.2, 2.0), budget("top-r 4", 59.1, 1.0)],
            "r = 4 keeps the dense model's AP50 (59.1 against 60.0), runs 4.0 times fewer operations and is 4.0 times "
            "faster per frame.",
        ),
        (
            [budget("dense", 60.0, 4.0), budget("top-r 9", 57.7, 2.0), budget("top-r 4", 50.0, 1.0)],
            "r = 9 loses 2.3 points of AP50, runs 2.0 times fewer operations and is 2.0 times faster per frame. "
            "No other budget loses less.",
        ),
        ([budget("dense", 60.0, 4.0), budget("top-r 9", 60.0, 4.4)], "No budget that was evaluated takes fewer"),
        (
            [budget("dense", None, 4.0), budget("top-r 9", None, 2.0, agreement={"VID-AP50": 96.5})],
            "r = 9 loses 3.5 points of agreement",
        ),
    ],
)
def test_headline_gives_advice(budgets, sentence):
    assert advise(budgets).sentence.startswith(sentence)


def test_headline_says_where_time_is_not_saved():
    dense, slow, same = (budget(policy, 60.0, g) for policy, g in (("dense", 4.0), ("top-r 9", 2.0), ("top-r 8", 2.0)))
    slow.results["seconds_per_frame"]["total"] = 0.12
    same.results["seconds_per_frame"]["total"] = 0.08
    assert "runs 2.0 times fewer operations, but is 1.5 times slower per frame" in advise([dense, slow]).sentence
    assert "but is no faster per frame" in advise([dense, same]).sentence
    assert advise([dense, slow]).tiles[-1] == ("1.5×", "slower per frame: 80 ms dense, 120 ms at r = 9")


def test_times_of_a_busy_machine_are_no_advice(tmp_path):
    entries = [result(policy, 60.0, gflops) for policy, gflops in (("dense", 4.0), ("top-r 9", 2.0), ("top-r 4", 1.0))]
    rests = (0.10, 0.10, 0.10)
    for entry, rest in zip(entries, rests):
        entry["gflops_per_frame"]["total"] = {**entry["gflops_per_frame"]["backbone"]}
        entry["gflops_per_frame"]["total"]["mean"] += 1.0
        entry["seconds_per_frame"]["total"] = entry["seconds_per_frame"]["backbone"] + rest
    budgets = [Budget(entry["policy"], entry, {}) for entry in entries]
    assert disturbed_times(budgets) is None and "faster per frame" in advise(budgets).sentence
    entries[1]["seconds_per_frame"]["total"] += 0.15
    assert "2.5 times as long at r = 9 as at" in disturbed_times(budgets)
    advice = advise(budgets)
    assert advice.sentence.endswith("runs 2.5 times fewer operations.")
    assert not any("ms" in text for _, text in advice.tiles)
    (tmp_path / "budgets.json").write_text(json.dumps(entries))
    assert "The milliseconds cannot be compared: " in report(tmp_path)
    entries[1]["gflops_per_frame"]["total"]["mean"] += 1.0  # more work
    assert disturbed_times(budgets) is None


def test_no_advice_without_something_to_compare_with():
    assert advise([budget("top-r 9", 60.0, 1.0)]) is None
    assert advise([budget("dense", 60.0, 1.0)]) is None
    assert advise([budget("dense", None, 1.0), budget("top-r 9", None, 1.0)]) is None


def test_plot_as_a_picture_of_its_own(folder, tmp_path):
    path = tmp_path / "plots" / "tradeoff.svg"
    write_tradeoff(str(folder), str(path), "<a> title")
    root = ET.parse(path).getroot()
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "<a> title" in texts and texts.count("r = 9") == texts.count("dense") == 2
    assert {"AP50 (percent)", "milliseconds per frame"} <= set(texts) and "agreement" not in " ".join(texts)
    (folder / "budgets.json").write_text(json.dumps([result("dense", None, 4.0)]))
    with pytest.raises(ReportError, match="no AP50 was measured"):
        write_tradeoff(str(folder), str(path))


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
    assert tradeoff_chart([Point(0.0, 0.0, "r = 0", "p1", False)], "x", "y").marks[0].text == "r = 0"
    long = timeline_chart([Line("a", "p1", np.arange(100_000.0))], "GFlops", [0], width=900)
    assert len(long.values) < 20_000 and "100000.0" in long.values  # the last of 99,999 to four digits
    assert long.lines[0][1].count(",") <= 600


def test_view_lies_inside_the_frame_and_holds_the_boxes():
    for box in ([0, 0, 10, 10], [1900, 1070, 1920, 1080], [0, 0, 1920, 1080], [-50, 500, 30, 560]):
        view = choose_view(1920, 1080, np.array([box], np.float32))
        assert 0 <= view.x and view.x + view.width <= 1920 and 0 <= view.y and view.y + view.height <= 1080
        assert view.x <= max(0, box[0]) and box[2] <= view.x + view.width


def test_a_whole_frame_fits_a_picture_also_in_portrait():
    assert whole_view(1920, 1080).scale * 1920 == pytest.approx(440)
    portrait = whole_view(1080, 1920)
    assert portrait.scale * 1920 == pytest.approx(550) and (portrait.width, portrait.height) == (1080, 1920)


def test_videos_that_share_a_folder_have_the_data_set_s_names(monkeypatch):
    by_id = {
        image: {"video_id": image, "file_name": f"/data/images/{image}.jpg", "is_video_file": False} for image in (1, 2)
    }
    frames = SimpleNamespace(by_id=by_id)
    monkeypatch.setattr(document.MetadataCatalog, "get", lambda name: {"video_names": {1: "left", 2: "right"}})
    assert document.video_names(frames, "mine") == {1: "left", 2: "right"}
    by_id[2]["file_name"] = "/data/other/2.jpg"
    assert document.video_names(frames, "mine") == {1: "images", 2: "other"}
