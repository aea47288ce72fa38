"""The estimate of how well loose labels can be met, on objects whose looseness is known."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "datasets"
sys.path.insert(0, str(SCRIPTS))

import label_ceiling as script  # noqa: E402

HEIGHT, WIDTH = 120, 160


def picture(box: tuple[int, int, int, int], sky: int = 150, grey: int = 40) -> np.ndarray:
    """A sky with an even object that fills a box."""
    image = np.full((HEIGHT, WIDTH, 3), sky, np.uint8)
    x, y, width, height = box
    image[y : y + height, x : x + width] = grey
    return image


def write_set(folder: Path, name: str, boxes: list[tuple[int, ...]], loosen) -> Path:
    """A COCO-VID file of one video, in which one object is at these places."""
    frames = folder / "frames" / name
    frames.mkdir(parents=True)
    images, annotations = [], []
    for number, box in enumerate(boxes):
        cv2.imwrite(str(frames / f"{number:06d}.png"), picture(box))
        file = f"frames/{name}/{number:06d}.png"
        images.append({"id": number, "video_id": 1, "frame_id": number, "file_name": file})
        label = [float(value) for value in loosen(*box)]
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1, "bbox": label, "instance_id": 1, "iscrowd": 0}
        )
        annotations[-1]["area"] = label[2] * label[3]
    document = {
        "categories": [{"id": 1, "name": "drone"}],
        "videos": [{"id": 1, "name": name, "width": WIDTH, "height": HEIGHT}],
        "images": images,
        "annotations": annotations,
    }
    path = folder / "annotations" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def twice(x: int, y: int, width: int, height: int) -> tuple[float, ...]:
    """Labels that are twice as large as their objects."""
    return x - width / 2, y - height / 2, 2 * width, 2 * height


def drawn(count: int, seed: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(seed)
    places = zip(rng.integers(30, 100, count), rng.integers(30, 70, count))
    return [(int(x), int(y), int(rng.integers(8, 24)), int(rng.integers(6, 18))) for x, y in places]


def table(printed: str) -> dict[str, list[float]]:
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    return {row[0]: [float(value) for value in row[1:]] for row in rows[2:]}


def test_an_object_is_outlined_within_its_label():
    box = (50, 40, 20, 12)
    assert script.outline(picture(box), twice(*box)) == box
    assert script.outline(picture(box), box) == box  # the surroundings come along
    image = picture(box)
    image[30:33, 42:45] = 40  # something smaller in the label, more than JOINED from the object
    assert script.outline(image, twice(*box)) == box


def test_what_cannot_be_outlined():
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    assert script.outline(noise, (50, 40, 20, 12)) is None  # uneven surroundings
    assert script.outline(picture((50, 40, 20, 12), grey=148), (40, 34, 40, 24)) is None  # nothing stands out


def test_a_law_of_looseness_is_found_again():
    outlines = np.asarray(drawn(30, 1), float)
    sides = 3 * outlines[:, 2:] ** 0.7 * outlines[:, :1:-1] ** 0.2
    centres = outlines[:, :2] + outlines[:, 2:] / 2 + 0.1 * sides
    labels = np.concatenate([centres - sides / 2, sides], axis=1)
    assert np.allclose(script.Looseness(outlines, labels).labels(outlines), labels)


def test_labels_of_known_looseness_are_met(tmp_path, capsys):
    train = write_set(tmp_path, "train", drawn(12, 2), twice)
    val = write_set(tmp_path, "val", drawn(12, 3), twice)
    script.main(script.parse([str(train), str(val), "--every", "1"]))
    printed = capsys.readouterr().out
    assert "12 of 12 objects were outlined; the larger side takes 50% of its label's (median)" in printed
    rows = table(printed)
    assert rows["outlines"] == [100.0, 0.0, 0.0]  # an IoU of 1/4 each
    assert rows["outlines, made as loose as labels are"] == [100.0, 100.0, 100.0]


def test_labels_of_two_kinds_are_met_by_the_mean(tmp_path, capsys):
    factors = itertools.cycle([1.0, 2.5])

    def loose(x: int, y: int, width: int, height: int) -> tuple[float, ...]:
        more = (next(factors) - 1) / 2
        return x - more * width, y - more * height, (1 + 2 * more) * width, (1 + 2 * more) * height

    same = [(60, 50, 16, 12), (60, 50, 16, 12), (50, 40, 10, 16), (50, 40, 10, 16)] * 2
    train, val = (write_set(tmp_path, name, same, loose) for name in ("train", "val"))
    script.main(script.parse([str(train), str(val), "--every", "1"]))
    met = table(capsys.readouterr().out)["outlines, made as loose as labels are"]
    assert met == [100.0, 0.0, 0.0]  # sides by the root of 2.5 larger: an IoU of 1 / 2.5 with both


def test_labels_of_three_frames_before(tmp_path, capsys):
    moving = [(20 + 2 * frame, 40, 12, 12) for frame in range(10)]  # 6 pixels in three frames
    train, val = (write_set(tmp_path, name, moving, lambda *box: box) for name in ("train", "val"))
    script.main(script.parse([str(train), str(val), "--every", "1"]))
    assert table(capsys.readouterr().out)["labels of 3 frames before"] == [100.0, 0.0, 0.0]  # 6 x 12 of 18 x 12


def test_a_file_of_every_second_frame_has_no_labels_of_three_frames_before(tmp_path, capsys):
    whole = write_set(tmp_path, "val", drawn(12, 3), twice)
    document = json.loads(whole.read_text())
    document["images"] = document["images"][::2]
    document["annotations"] = document["annotations"][::2]
    whole.write_text(json.dumps(document))
    script.main(script.parse([str(whole), str(whole), "--every", "1"]))
    printed = capsys.readouterr().out
    assert "| labels of 3 frames before | - | - | - |" in printed and "nan" not in printed


def test_too_few_objects_are_said(tmp_path):
    train = write_set(tmp_path, "train", drawn(3, 7), twice)
    with pytest.raises(script.UserError, match="train.json: of 3 labels, 3 have an object that can be outlined"):
        script.main(script.parse([str(train), str(train), "--every", "1"]))


@pytest.mark.parametrize("every", ["0", "-1", "x"])
def test_a_thinning_that_is_none(every, capsys):
    with pytest.raises(SystemExit):
        script.parse(["a.json", "b.json", "--every", every])
    assert "--every" in capsys.readouterr().err
