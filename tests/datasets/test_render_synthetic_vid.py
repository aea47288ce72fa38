"""The synthetic data set: same seeds give same data, boxes hold the visible pixels, files are complete."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

SCRIPTS = Path(__file__).resolve().parents[2] / "datasets"
sys.path.insert(0, str(SCRIPTS))

import render_synthetic_vid as script  # noqa: E402
import synthetic_scene as scene  # noqa: E402

SMALL = ["--videos", "2", "--frames", "3", "--size", "160x128"]


def small_settings(split: str = "train", **changes) -> scene.Settings:
    return replace(scene.Settings(split, videos=4, frames=6, width=160, height=128), **changes)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("demo_vid")
    for split in ("train", "test"):
        assert script.main(["--output", str(output), "--split", split, *SMALL]) == 0
    return output


def read_json(output: Path, split: str) -> dict:
    return json.loads((output / "annotations" / f"{split}.json").read_text())


def modification_times(output: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}


# -------------------------------------------------------------- pictures and boxes


def test_same_settings_give_same_frames_and_boxes():
    runs = [scene.render_video(small_settings(), 3) for _ in range(2)]
    for first, second in zip(*runs):
        assert np.array_equal(first.image, second.image)
        assert first.boxes == second.boxes


def test_frames_are_those_of_the_recorded_version():
    """One frame, recorded once: who changes the pictures raises RENDERER_VERSION and records them again."""
    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("needs OpenCV 5, with which it was recorded: some of OpenCV 4's shapes are a pixel wider")
    frame = list(scene.render_video(scene.Settings("test", 8, 40), 0))[20]
    assert scene.RENDERER_VERSION == 1
    assert [(box.instance, scene.CLASSES[box.category], box.xywh) for box in frame.boxes] == [
        (1, "star", [226, 139, 64, 52]),
        (2, "triangle", [251, 80, 33, 40]),
        (3, "square", [26, 103, 72, 68]),
        (4, "ring", [225, 202, 27, 24]),
        (5, "cross", [67, 51, 52, 59]),
    ]
    assert int(frame.image.sum()) == 27061049


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (small_settings("train"), small_settings("test")),
        (small_settings(seed=0), small_settings(seed=1)),
    ],
)
def test_splits_and_seeds_share_no_random_numbers(first: scene.Settings, second: scene.Settings):
    def start_of_streams(settings: scene.Settings) -> set[int]:
        return {int(settings.generator(video).integers(2**63)) for video in range(200)}

    assert len(start_of_streams(first)) == len(start_of_streams(second)) == 200
    assert not start_of_streams(first) & start_of_streams(second)


def mask_box(mask: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(mask)
    x, y = int(columns.min()), int(rows.min())
    return [x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1]


@pytest.mark.parametrize("dynamics", scene.DYNAMICS)
def test_boxes_hold_exactly_the_visible_pixels(dynamics: str):
    annotated = left_out = 0
    for video in range(4):
        for frame in scene.render_video(small_settings(frames=8, dynamics=dynamics), video):
            boxes = {box.instance: box.xywh for box in frame.boxes}
            for instance, area in enumerate(frame.areas, 1):
                visible = frame.owner == instance
                if visible.sum() >= 0.25 * area:
                    assert boxes.pop(instance) == mask_box(visible)
                    annotated += 1
                else:
                    left_out += 1
            assert not boxes
    assert annotated > 30
    assert left_out > 0 or dynamics == "still"


def plain_thing(name: str, colour: int) -> scene.Thing:
    texture = np.full((scene.TEXTURE, scene.TEXTURE, 3), colour, np.uint8)
    outline = np.full(3, colour, np.uint16)
    return scene.Thing(scene.CLASSES.index(name), texture, outline, (1.0, 1.0), np.zeros((1, 4)))


# Areas of the shapes inside the unit circle, from geometry.
UNIT_AREAS = {
    "disc": np.pi,
    "square": 2.0,
    "triangle": 3 * 3**0.5 / 4,
    "star": 10 * 0.45 * np.sin(np.pi / 5) / 2,
    "ring": np.pi * (1 - 0.55**2),
    "cross": 0.64**2 + 4 * 0.64 * 0.63,
}


@pytest.mark.parametrize("name", scene.CLASSES)
def test_shapes_are_drawn_where_and_as_large_as_asked(name: str):
    image, owner = np.zeros((128, 160, 3), np.uint8), np.zeros((128, 160), np.uint8)
    area = scene.draw(image, owner, plain_thing(name, 200), 1, np.array([70.3, 60.6, 40.0, 0.7]))
    assert area == np.count_nonzero(owner)
    # The filled polygon includes its border, half a sub-sample wide: a quarter of a pixel along the outline.
    outline = 40 * (14 if name in ("ring", "cross", "star") else 2 * np.pi)
    assert abs(area - UNIT_AREAS[name] * 40**2) < 0.5 * outline
    rows, columns = np.nonzero(owner)
    assert columns.mean() + 0.5 == pytest.approx(70.3, abs=0.3)
    assert rows.mean() + 0.5 == pytest.approx(60.6, abs=0.3)
    assert set(np.unique(image[owner == 0])) <= set(range(0, 101))  # at most half covered
    assert image[60, 70].tolist() == ([0, 0, 0] if name == "ring" else [200, 200, 200])


def test_objects_in_front_hide_those_behind():
    image, owner = np.zeros((128, 160, 3), np.uint8), np.zeros((128, 160), np.uint8)
    things = [plain_thing("disc", 90), plain_thing("disc", 200)]
    poses = [np.array([60.0, 60.0, 20.0, 0.0]), np.array([75.0, 60.0, 20.0, 0.0])]
    areas = [scene.draw(image, owner, things[n], n + 1, poses[n]) for n in range(2)]
    behind, front = scene.find_boxes(owner, areas, things)
    assert front.xywh == mask_box(owner == 2)
    assert front.xywh[2] >= 40
    assert behind.xywh[0] + behind.xywh[2] < 75  # the front disc hides the right part
    poses[1][0] = 62.0
    areas = [scene.draw(image, owner, things[n], n + 1, poses[n]) for n in range(2)]
    assert [box.instance for box in scene.find_boxes(owner, areas, things)] == [2]


def test_view_interpolates_the_background():
    background = np.random.default_rng(0).integers(0, 256, (12, 14, 3), dtype=np.uint8)
    assert np.array_equal(scene.view(background, np.array([2.0, 3.0]), 6, 8), background[3:9, 2:10])
    half = scene.view(background, np.array([2.5, 3.0]), 6, 8).astype(float)
    assert np.abs(half - (background[3:9, 2:10].astype(float) + background[3:9, 3:11]) / 2).max() <= 0.5


@pytest.mark.parametrize("dynamics", scene.DYNAMICS)
def test_only_panning_moves_the_camera(dynamics: str, monkeypatch: pytest.MonkeyPatch):
    cameras, view = [], scene.view

    def recording_view(background, camera, height, width):
        cameras.append(camera)
        return view(background, camera, height, width)

    monkeypatch.setattr(scene, "view", recording_view)
    for _ in scene.render_video(small_settings(dynamics=dynamics, frames=20), 1):
        pass
    travelled = np.abs(np.diff(cameras, axis=0)).sum()
    assert travelled > 1 if dynamics == "panning" else travelled == 0


# -------------------------------------------------------------- files


def test_json_is_coco_and_video_files_have_its_frames(rendered: Path):
    coco = COCO(rendered / "annotations" / "train.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(scene.CLASSES)
    assert len(coco.dataset["videos"]) == 2
    assert len(coco.getImgIds()) == 6
    for video in coco.dataset["videos"]:
        reader = cv2.VideoCapture(str(rendered / video["file_name"]))
        shapes = []
        while (read := reader.read())[0]:
            shapes.append(read[1].shape)
        assert shapes == [(128, 160, 3)] * video["num_frames"] == [(128, 160, 3)] * 3
        images = [image for image in coco.dataset["images"] if image["video_id"] == video["id"]]
        assert [image["frame_id"] for image in images] == [0, 1, 2]
        assert (video["width"], video["height"], video["fps"]) == (160, 128, 30)
    assert coco.dataset["annotations"]
    for annotation in coco.dataset["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert 0 <= x < x + width <= 160
        assert 0 <= y < y + height <= 128
        assert annotation["area"] == width * height
        assert annotation["iscrowd"] == 0
        assert annotation["video_id"] == coco.loadImgs(annotation["image_id"])[0]["video_id"]
    assert len({a["id"] for a in coco.dataset["annotations"]}) == len(coco.dataset["annotations"])


def test_decoded_frames_resemble_the_rendered_ones(rendered: Path):
    settings = scene.Settings("test", 2, 3, 160, 128)
    reader = cv2.VideoCapture(str(rendered / "videos" / "test_001.mp4"))
    for frame in scene.render_video(settings, 1):
        assert cv2.PSNR(frame.image, reader.read()[1]) > 28  # smeared objects would be far below


def test_json_bytes_do_not_depend_on_the_run(rendered: Path, tmp_path: Path):
    assert script.main(["--output", str(tmp_path), "--split", "test", *SMALL]) == 0
    first, second = (folder / "annotations" / "test.json" for folder in (rendered, tmp_path))
    assert first.read_bytes() == second.read_bytes()
    assert read_json(rendered, "train")["annotations"] != read_json(rendered, "test")["annotations"]


def test_second_run_does_nothing(rendered: Path, capsys: pytest.CaptureFixture):
    before = modification_times(rendered)
    assert script.main(["--output", str(rendered), "--split", "test", *SMALL]) == 0
    assert "already complete" in capsys.readouterr().out
    assert modification_times(rendered) == before


@pytest.mark.parametrize("change", [["--force"], ["--seed", "5"], ["--dynamics", "still"], ["missing video"]])
def test_changes_are_rendered_again(tmp_path: Path, change: list[str]):
    arguments = ["--output", str(tmp_path), "--split", "test", *SMALL]
    assert script.main(arguments) == 0
    before = modification_times(tmp_path)
    if change == ["missing video"]:
        (tmp_path / "videos" / "test_001.mp4").unlink()
        change = []
    assert script.main(arguments + change) == 0
    after = modification_times(tmp_path)
    assert sorted(after) == sorted(before)
    assert all(after[path] > before[path] for path in before)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), scene.RenderError("stopped")])
def test_interruption_leaves_no_annotation_file_and_no_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
):
    arguments = ["--output", str(tmp_path), "--split", "train", *SMALL]
    assert script.main(arguments) == 0

    def render_one_frame(settings: scene.Settings, video: int):
        yield next(scene.render_video(settings, video))
        raise stop

    monkeypatch.setattr(script, "render_video", render_one_frame)
    assert script.main([*arguments, "--seed", "1"]) in (1, 130)
    assert not (tmp_path / "annotations" / "train.json").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    monkeypatch.undo()
    assert script.main(arguments) == 0
    assert (tmp_path / "annotations" / "train.json").exists()


# -------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "161x128"], "even sides"),
        (["--size", "64x64"], "128 to 4096"),
        (["--videos", "0"], "at least 1"),
        (["--frames", "-3"], "at least 1"),
        (["--seed", "-1"], "negative"),
    ],
)
def test_impossible_values_are_named(tmp_path: Path, capsys, options: list[str], message: str):
    assert script.main(["--output", str(tmp_path), "--split", "test", *options]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", ["320", "320x", "axb", "-2x128"])
def test_malformed_size_is_refused(tmp_path: Path, capsys, size: str):
    with pytest.raises(SystemExit):
        script.main(["--output", str(tmp_path), "--split", "test", f"--size={size}"])
    assert "WIDTHxHEIGHT" in capsys.readouterr().err


def test_output_that_cannot_be_a_folder(tmp_path: Path, capsys):
    (tmp_path / "file").write_text("")
    assert script.main(["--output", str(tmp_path / "file" / "demo"), "--split", "test", *SMALL]) == 1
    assert "cannot write to --output" in capsys.readouterr().err


@pytest.mark.parametrize("content", ['{"info": {"description": "real videos"}}', "[]", "{"])
def test_annotations_of_others_are_not_overwritten(tmp_path: Path, capsys, content: str):
    path = tmp_path / "annotations" / "train.json"
    path.parent.mkdir()
    path.write_text(content)
    assert script.main(["--output", str(tmp_path), "--split", "train", *SMALL, "--force"]) == 1
    assert "choose another --output" in capsys.readouterr().err
    assert path.read_text() == content


def test_missing_codecs_and_lost_frames_are_errors(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    arguments = ["--output", str(tmp_path), "--split", "test", *SMALL]
    with monkeypatch.context() as patch:
        patch.setattr(script, "CODEC", "none")
        assert script.main(arguments) == 1
    assert "MP4 video (none)" in capsys.readouterr().err
    monkeypatch.setattr(script.cv2, "VideoCapture", lambda path: cv2.VideoWriter())  # opens nothing
    assert script.main(arguments) == 1
    assert "0 of 3 frames" in capsys.readouterr().err
    assert list(tmp_path.glob("videos/*")) == []
