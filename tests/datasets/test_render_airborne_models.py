"""Pictures of three-dimensional models: what is read of AC3D files, and what stands in the pictures."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import eventful_vitdet.data  # noqa: F401  (registers the data sets)
import numpy as np
import pytest
from detectron2.data import DatasetCatalog

SCRIPTS = Path(__file__).resolve().parents[2] / "datasets"
sys.path.insert(0, str(SCRIPTS))

import airborne_models as models  # noqa: E402
import airborne_pictures as pictures  # noqa: E402
import airborne_shapes as shapes  # noqa: E402
import render_airborne_models as script  # noqa: E402

POSE = script.pose
HEAD = 'AC3Db\nMATERIAL "" rgb 1 1 1  amb 1 1 1  emis 0 0 0  spec 0 0 0  shi 10  trans 0\n'


def polygon(points: list[tuple[float, float, float]], name: str, more: str = "", flags: str = "0x20") -> str:
    """An object with one polygon."""
    vertices = "".join(f"{x} {y} {z}\n" for x, y, z in points)
    corners = "".join(f"{corner} 0 0\n" for corner in range(len(points)))
    surface = f"numsurf 1\nSURF {flags}\nmat 0\nrefs {len(points)}\n{corners}"
    return f'OBJECT poly\nname "{name}"\n{more}numvert {len(points)}\n{vertices}{surface}kids 0\n'


WING = [(1, 0, -4), (2, 0, -4), (2, 0, 4), (1, 0, 4)]
BODY = [(-4, 0, 0), (4, 0, 0), (4, 1, 0)]


def world(*objects: str) -> str:
    return HEAD + f"OBJECT world\nkids {len(objects)}\n" + "".join(objects)


def write(folder: Path, text: str, name: str = "a.ac") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="latin-1")
    return folder / name


def test_axes_size_and_names(tmp_path):
    model = models.read_model(write(tmp_path, world(polygon(WING, "wing"), polygon(BODY, "body"))))
    assert model.names == ["wing", "body"]
    assert np.bincount(model.parts).tolist() == [2, 1]  # a square is two triangles
    points = model.triangles.reshape(-1, 3)
    assert np.ptp(points, axis=0).tolist() == [1, 1, pytest.approx(1 / 8, abs=0.01)]
    # AC3D: x backward, y up, z to the left
    assert points[:, 0].max() == 0.5 and points[model.parts.repeat(3) == 0][:, 0].max() < 0
    assert points[points[:, 0] == points[:, 0].min()][:, 2].max() > 0


def test_objects_in_objects_are_placed_by_all_of_them(tmp_path):
    turned = "rot 0 0 -1 0 1 0 1 0 0\nloc 3 0 0\n"  # rows are the images of x, y and z
    inner = polygon(BODY, "inner", "loc 0 0 1\n")
    outer = f'OBJECT group\nname "outer"\ndata 14\ntwo\nkids 9\nend\n{turned}kids 1\n{inner}'
    found = models.read_model(write(tmp_path, world(outer, polygon(WING, "wing"))))
    expected = np.asarray(BODY, np.float64) + (0, 0, 1)
    expected = expected @ np.asarray([[0, 0, -1], [0, 1, 0], [1, 0, 0]]) + (3, 0, 0)
    placed = world(polygon(expected.tolist(), "inner"), polygon(WING, "wing"))
    straight = models.read_model(write(tmp_path, placed, "b.ac"))
    np.testing.assert_array_equal(found.triangles, straight.triangles)
    assert found.names == straight.names == ["inner", "wing"]


def test_what_is_not_seen_is_left_out(tmp_path):
    line = polygon(BODY, "antenna", flags="0x22")
    small = polygon([(0, 0, 0), (0.01, 0, 0), (0, 0.01, 0)], "bolt")
    twice = polygon(WING, "wing2")
    shadow = polygon([(-90, 0, -90), (90, 0, -90), (0, 0, 90)], "Shadow")
    objects = (polygon(WING, "wing"), polygon(BODY, "body"), line, small, twice, shadow)
    model = models.read_model(write(tmp_path, world(*objects)))
    assert len(model.triangles) == 3 and np.ptp(model.triangles[..., 0]) == 1  # the longest of what is left


def test_a_file_may_end_before_the_last_object(tmp_path):
    text = world(polygon(WING, "wing"), polygon(BODY, "body")).replace("kids 2", "kids 3")
    assert len(models.read_model(write(tmp_path, text)).triangles) == 3
    # Or before the line that ends it.
    assert len(models.read_model(write(tmp_path, text.removesuffix("kids 0\n"))).triangles) == 3


GOOD = world(polygon(WING, "wing"), polygon(BODY, "body"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not an AC3D model, as it does not begin with AC3D"),
        ("solid stl\n", "not an AC3D model"),
        (HEAD, "no polygons"),
        (GOOD.replace("numvert 4", "numvert 999999999999"), "999999999999 lines should follow"),
        (GOOD.replace("numvert 4", "numvert -1"), "-1 lines should follow"),
        (GOOD.replace("numvert 4", "numvert"), "line 7"),
        (GOOD.replace("refs 4", "refs x"), "line 15"),
        (GOOD.replace("3 0 0\nkids", "9 0 0\nkids"), "none of the object's 4 vertices"),
        (GOOD.replace("3 0 0\nkids", "-1 0 0\nkids"), "none of the object's 4 vertices"),
        (GOOD.replace("1 0 -4", "nan 0 -4"), "not finite"),
        (GOOD.replace("1 0 -4", "1e300 0 -4"), "too large"),
        (GOOD.replace("1 0 -4", "1 -4"), "line 11"),
        (GOOD[: GOOD.index("refs 4")], "a polygon without corners"),
        (GOOD.replace("kids 2", "kids 2\nOOPS"), "an object should begin here, not 'OOPS'"),
        (HEAD + "OBJECT group\nkids 1\n" * 99, "more than 64 deep"),
        (world(polygon([(1, 1, 1)] * 3, "dot")), "no size"),
        (world(polygon([(1, 0, 0), (2, 0, 0), (3, 0, 0)], "line")), "no polygon has an area"),
    ],
)
def test_damaged_files_are_refused(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(models.ModelFileError) as error:
        models.read_model(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)


@pytest.mark.parametrize(("name", "added"), [("rotor", False), ("skid", True)])
def test_a_helicopter_gets_the_rotor_that_its_file_lacks(tmp_path, name, added):
    blade = [(-3, 2, -0.1), (3, 2, -0.1), (3, 2, 0.1)]
    model = models.read_model(write(tmp_path, world(polygon(BODY, "body"), polygon(blade, name))))
    shape = models.shape_of(model, np.random.default_rng(0), rotor=True)
    assert (len(shape.faces) > len(model.triangles)) == added
    assert len(models.shape_of(model, np.random.default_rng(0), rotor=False).faces) == len(model.triangles)


def test_thin_models_have_boxes_too(tmp_path):
    wing = [(0, 0, -10), (0.3, 0, -10), (0.3, 0, 10), (0, 0, 10)]
    body = [(-1, -0.1, 0), (4, -0.1, 0), (4, 0.1, 0), (-1, 0.1, 0)]
    model = models.read_model(write(tmp_path, world(polygon(wing, "wing"), polygon(body, "body"))))
    for seed in range(40):  # seen from the side, none of the pixels is covered by a tenth in some
        rng = np.random.default_rng(seed)
        picture = shapes.draw(models.shape_of(model, rng, rotor=False), rng, 64, 64, 12.0)
        assert min(picture.box[2:]) > 0


def counted_pose(task: tuple, seed: int) -> tuple:
    with open(os.environ["COUNTED_POSES"], "a") as file:
        file.write("x")
    return POSE(task, seed)


def test_an_error_does_not_wait_for_all_poses(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COUNTED_POSES", str(tmp_path / "poses"))
    monkeypatch.setattr(script, "pose", counted_pose)
    monkeypatch.setattr(pictures.cv2, "imwrite", lambda *_: False)  # a full disk
    arguments = ["--airplanes", str(write(tmp_path, GOOD)), "--output", str(tmp_path / "set")]
    assert script.main([*arguments, "--poses", "500"]) == 1
    assert "could not be written" in capsys.readouterr().err
    assert (tmp_path / "poses").stat().st_size < 250


def test_other_data_sets_stay(tmp_path, capsys):
    annotations, frame = tmp_path / "annotations" / "train.json", tmp_path / "frames" / "clip" / "0.jpg"
    arguments = ["--airplanes", str(write(tmp_path / "models", GOOD)), "--output", str(tmp_path), "--poses", "1"]
    frame.parent.mkdir(parents=True)
    frame.write_text("mine")
    assert script.main(arguments) == 1
    assert f"{tmp_path / 'frames'} was not written by this script: choose another --output" in capsys.readouterr().err
    annotations.parent.mkdir()
    for text in ('{"images": []}', "[]", "{", '{"info": {"description": "clips"}}'):
        annotations.write_text(text)
        assert script.main(arguments) == 1
        assert f"{annotations} was not written by this script" in capsys.readouterr().err
        assert frame.read_text() == "mine" and annotations.read_text() == text


def test_the_set_is_registered_and_complete(tmp_path, monkeypatch, capsys):
    plane, helicopter = write(tmp_path, GOOD), write(tmp_path, world(polygon(BODY, "body")), "b.ac")
    arguments = ["--airplanes", str(plane), str(plane), "--helicopters", str(helicopter), "--poses", "3"]
    for output in ("airborne_models", "again"):
        assert script.main([*arguments, "--output", str(tmp_path / output)]) == 0
    assert f"{tmp_path / 'again'}: 9 frames of 3 models" in capsys.readouterr().out
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    frames = DatasetCatalog.get("airborne_models_train")
    assert [frame["annotations"][0]["category_id"] for frame in frames] == [0] * 6 + [3] * 3
    # One frame per video, so that DATALOADER.TRAIN_FRAME_STRIDE leaves none out.
    assert len({frame["video_id"] for frame in frames}) == 9 and {frame["frame_id"] for frame in frames} == {0}
    for frame in frames:
        image = cv2.imread(frame["file_name"])
        assert image.shape == (pictures.HEIGHT, pictures.WIDTH, 3)
        same = Path(frame["file_name"].replace("airborne_models", "again"))
        assert same.read_bytes() == Path(frame["file_name"]).read_bytes()


def test_what_is_wrong_is_said(tmp_path, capsys):
    output = ["--output", str(tmp_path / "set")]
    with pytest.raises(SystemExit):
        script.main(output)
    message = "one of the arguments --airplanes --birds --drones --helicopters is required"
    assert message in capsys.readouterr().err
    assert script.main(["--drones", str(tmp_path / "gone.ac"), *output]) == 1
    assert str(tmp_path / "gone.ac") in capsys.readouterr().err
    assert script.main(["--drones", str(write(tmp_path, "no model")), *output]) == 1
    assert "not an AC3D model" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
