"""Objects cut out of photos: which photos are used, what is cut out, and what stands in the pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import eventful_vitdet.data  # noqa: F401  (registers the data sets)
import numpy as np
import pytest
from detectron2.data import DatasetCatalog

SCRIPTS = Path(__file__).resolve().parents[2] / "datasets"
sys.path.insert(0, str(SCRIPTS))

import airborne_cutouts as cutouts  # noqa: E402
import airborne_labels as labels  # noqa: E402
import airborne_pictures as pictures  # noqa: E402
import airborne_shapes as shapes  # noqa: E402
import render_airborne_photos as script  # noqa: E402

TRIANGLE = np.asarray([(10, 40), (50, 24), (42, 44)])


def photo(*outlines: np.ndarray, side: int = 64, colour: tuple[int, int, int] = (40, 40, 60)) -> np.ndarray:
    """Objects before a sky that gets lighter towards the bottom."""
    rows = np.linspace(0, 40, side)[:, None, None]
    image = (np.asarray((220, 180, 150)) - rows + np.zeros((side, side, 1))).astype(np.uint8)
    for outline in outlines:
        cv2.fillPoly(image, [np.asarray(outline, np.int32)], colour)
    return image


@pytest.mark.parametrize("side", [64, 256])
def test_an_object_on_an_even_background_is_cut_out(side):
    cutout = cutouts.cut_out(photo(TRIANGLE * side // 64, side=side))
    scale = min(1.0, cutouts.LONGEST_SIDE / side) * side / 64
    height, width = cutout.opacity.shape
    assert abs(width - (41 * scale + 2 * cutouts.MARGIN)) <= 2 and abs(height - (21 * scale + 2 * cutouts.MARGIN)) <= 2
    assert cutout.opacity.max() > 0.9 and cutout.opacity[0, 0] == 0  # left above is sky
    sure = cutout.opacity > 0.9
    np.testing.assert_allclose(np.median(cutout.colours[sure], axis=0), (40, 40, 60), atol=3)
    area = cv2.contourArea(TRIANGLE.astype(np.int32)) * scale**2
    assert 0.8 * area < cutout.opacity.sum() < 1.5 * area  # the outline's own pixels, and soft edges
    np.testing.assert_allclose(cutout.background, (200, 160, 130), atol=3)


def test_photos_that_are_left_out():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    ground = photo(TRIANGLE)
    ground[50:] = 20
    left_out = {
        "uneven": noise,
        "on the ground": ground,
        "empty": photo(),
        "two objects": photo(TRIANGLE // 2, TRIANGLE // 2 + 30),
        "cut off": photo(TRIANGLE - (12, 0)),
        "hardly there": photo(TRIANGLE, colour=(190, 160, 130)),
        "small": photo(TRIANGLE // 12 + 30),
        "large": photo(TRIANGLE * 3 - 60),
        "a thin line": photo(side=400)[:4],
        "a hair": photo(side=400)[:1],
    }
    for name, image in left_out.items():
        assert cutouts.cut_out(image) is None, name


def test_small_things_beside_an_object_stay_behind():
    cutout = cutouts.cut_out(photo(TRIANGLE, [(4, 4), (7, 4), (7, 7), (4, 7)]))
    assert cutout.opacity.shape[1] <= 41 + 2 * cutouts.MARGIN + 1


def test_pictures_hold_the_object_in_its_box():
    cutout = cutouts.cut_out(photo(TRIANGLE))
    for seed in range(8):
        picture = cutouts.place(cutout, np.random.default_rng(seed), 256, 320)
        again = cutouts.place(cutout, np.random.default_rng(seed), 256, 320)
        assert np.array_equal(picture.image, again.image) and picture.box == again.box
        x, y, width, height = picture.box
        assert 0 <= x and 0 <= y and x + width <= 320 and y + height <= 256
        assert 11 <= max(width, height) <= 3 * 45 * 1.3 + 16 + 8


def test_the_set_is_registered_and_complete(tmp_path, monkeypatch, capsys):
    for name, image in (("a.jpg", photo(TRIANGLE)), ("sub/b.png", photo(TRIANGLE + 3)), ("no.png", photo())):
        (tmp_path / "planes" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "planes" / name), image)
    (tmp_path / "drones").mkdir()
    cv2.imwrite(str(tmp_path / "drones" / "c.PNG"), photo(TRIANGLE - 3))
    (tmp_path / "drones" / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "drones" / "empty.jpg").write_bytes(b"")
    (tmp_path / "drones" / "notes.txt").write_text("")
    folders = ["--airplanes", str(tmp_path / "planes"), "--drones", str(tmp_path / "drones"), "--poses", "2"]
    assert script.main([*folders, "--output", str(tmp_path / "airborne_photos")]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "airplanes: 2 of 3 photos have one object on an even background",
        "drones: 1 of 3 photos have one object on an even background",
        f"{tmp_path / 'airborne_photos'}: 6 frames of 3 objects",
    ]
    for name in ("broken.jpg", "empty.jpg"):
        assert f"{tmp_path / 'drones' / name}: not a picture that can be read; left out" in shown.err
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    frames = DatasetCatalog.get("airborne_photos_train")
    assert [frame["annotations"][0]["category_id"] for frame in frames] == [0] * 4 + [2] * 2
    # One frame per video, so that DATALOADER.TRAIN_FRAME_STRIDE leaves none out.
    assert len({frame["video_id"] for frame in frames}) == 6 and {frame["frame_id"] for frame in frames} == {0}
    assert all(cv2.imread(frame["file_name"]).shape == (pictures.HEIGHT, pictures.WIDTH, 3) for frame in frames)


def test_what_is_wrong_is_said(tmp_path, capsys):
    output = ["--output", str(tmp_path / "set")]
    with pytest.raises(SystemExit):
        script.main(output)
    assert "one of the arguments --airplanes --birds --drones --helicopters is required" in capsys.readouterr().err
    assert script.main(["--birds", str(tmp_path / "gone"), *output]) == 1
    assert f"{tmp_path / 'gone'}: there is no such folder" in capsys.readouterr().err
    assert script.main(["--birds", str(tmp_path), *output]) == 1
    assert "no photo has one object on an even background" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_classes_are_those_of_the_drawn_objects():
    assert tuple(shapes.SHAPES) == labels.CLASSES
