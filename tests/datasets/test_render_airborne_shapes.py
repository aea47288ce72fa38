"""Drawn airborne objects: boxes hold what is seen, objects stay themselves, files are complete."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import eventful_vitdet.data  # noqa: F401  (registers the data sets)
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

SCRIPTS = Path(__file__).resolve().parents[2] / "datasets"
sys.path.insert(0, str(SCRIPTS))

import airborne_shapes as shapes  # noqa: E402
import render_airborne_shapes as script  # noqa: E402


def draw(name: str, seed: int, longest: float = 80) -> shapes.Picture:
    rng = np.random.default_rng(seed)
    return shapes.draw(shapes.SHAPES[name](rng), rng, 256, 320, longest)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("data") / "airborne_drawn"
    assert script.main(["--output", str(output), "--objects", "2", "--poses", "2"]) == 0
    return output


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_same_seed_same_picture(name):
    first, second = draw(name, 3), draw(name, 3)
    assert np.array_equal(first.image, second.image) and first.box == second.box
    assert not np.array_equal(first.image, draw(name, 4).image)


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_a_view_fills_its_canvas_and_no_more(name):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        colours, opacity = shapes.view(shapes.SHAPES[name](rng), rng)
        assert opacity.min() >= 0 and opacity.max() <= 1 + 1e-6 and 0 <= colours.min() and colours.max() <= 256
        rows, columns, _ = np.nonzero(opacity)
        longest = max(np.ptp(rows), np.ptp(columns)) + 1
        assert abs(longest - shapes.SHAPE_SIDE) <= 4  # smooth edges add a pixel or two
        # Colours are those of what is there times its opacity: nothing shines where nothing is.
        assert colours[opacity[..., 0] == 0].max(initial=0) == 0


@pytest.mark.parametrize("name", shapes.SHAPES)
@pytest.mark.parametrize("longest", [12, 60, 180])
def test_a_box_lies_in_the_image_and_is_as_loose_as_said(name, longest):
    for seed in range(6):
        x, y, width, height = draw(name, seed, longest).box
        assert 0 <= x and 0 <= y and x + width <= 320 and y + height <= 256
        assert max(width, height) <= 1.3 * longest + 16 + 4
        assert max(width, height) >= 0.5 * longest


def test_light_falls_on_what_faces_it():
    square = np.asarray([(0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)], np.float64)
    to_the_viewer, away = np.asarray((0, -1, 0)), np.asarray((0, 1, 0))
    assert shapes.light_on(square, to_the_viewer) == pytest.approx(1.0)
    assert shapes.light_on(square, away) == pytest.approx(shapes.AMBIENT)
    assert shapes.light_on(square[::-1], to_the_viewer) == pytest.approx(1.0)


def test_the_set_is_registered_and_complete(rendered, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(rendered.parent))
    frames = DatasetCatalog.get("airborne_drawn_train")
    assert MetadataCatalog.get("airborne_drawn_train").thing_classes == list(shapes.SHAPES)
    assert len(frames) == 4 * 2 * 2
    for frame in frames:
        image = cv2.imread(frame["file_name"])
        assert image.shape == (frame["height"], frame["width"], 3) == (script.HEIGHT, script.WIDTH, 3)
        assert len(frame["annotations"]) == 1
        name = list(shapes.SHAPES)[frame["annotations"][0]["category_id"]]
        assert Path(frame["file_name"]).parent.name.startswith(name)


def test_rendering_again_gives_the_same_bytes(rendered, tmp_path):
    assert script.main(["--output", str(tmp_path), "--objects", "2", "--poses", "2"]) == 0
    files = sorted(path.relative_to(rendered) for path in rendered.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all((rendered / path).read_bytes() == (tmp_path / path).read_bytes() for path in files)


def test_an_interrupted_rendering_leaves_what_was_there(rendered, tmp_path, monkeypatch, capsys):
    assert script.main(["--output", str(tmp_path), "--objects", "1", "--poses", "1"]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "pose", interrupt)
    assert script.main(["--output", str(tmp_path), "--objects", "1", "--poses", "1"]) == 130
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert "run it again" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert script.main(["--output", str(tmp_path / "file"), "--objects", "1", "--poses", "1"]) == 1
    assert f"cannot write to --output {tmp_path / 'file'}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main(["--output", str(tmp_path), "--objects", "0"])


def test_numbers_of_classes_are_those_of_the_other_airborne_sets(rendered):
    document = json.loads((rendered / "annotations" / "train.json").read_text())
    assert [c["name"] for c in document["categories"]] == ["airplane", "bird", "drone", "helicopter"]
    assert [c["id"] for c in document["categories"]] == [1, 2, 3, 4]
