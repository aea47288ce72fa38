"""EventfulPredictor, by names and files as its users have them, with a detector that takes milliseconds."""

from __future__ import annotations

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from eventful_vit import Policy, Threshold, TopR
from eventful_vitdet import EventfulPredictor
from eventful_vitdet.control import RuntimeControl
from eventful_vitdet.controllers import Constant
from eventful_vitdet.errors import CheckpointError, ConfigError, MissingPackageError, VideoReadError
from eventful_vitdet.known_models import CONFIGS, DEFAULT_MODEL, KNOWN_MODELS, names_of_configs, place_of
from eventful_vitdet.predictor import VideoDetector
from eventful_vitdet.video import iterate_frames, open_source
from matplotlib.cbook import get_sample_data
from modeling.test_mask_heads import MASKS
from PIL import Image
from safetensors.torch import save_file
from video.encoded_videos import encode, numbered_image

ONLINE = "EVENTFUL_VITDET_ONLINE_TESTS"
NAMES = ["person", "motorcycle", "motorboat"]


@pytest.fixture
def files(tiny_cfg, tiny_model, tmp_path):
    """A configuration and weights, as files; settings are those of `tiny_cfg`."""
    (tmp_path / "names.txt").write_text("\n".join(NAMES))

    def make(**settings) -> dict:
        settings = {"MODEL__CLASS_NAMES": str(tmp_path / "names.txt"), **settings}
        save_file(tiny_model(**settings).state_dict(), tmp_path / "tiny.safetensors")
        (tmp_path / "tiny.yaml").write_text(tiny_cfg(**settings).dump())
        return {"model": tmp_path / "tiny.yaml", "weights": tmp_path / "tiny.safetensors", "min_score": 0.0}

    return make


@pytest.fixture
def video(tmp_path) -> str:
    return str(encode(tmp_path / "street.mp4", count=6, b_frames=0))


def same(left, right) -> bool:
    return np.array_equal(left.boxes, right.boxes) and np.array_equal(left.scores, right.scores)


def test_a_video_gives_what_the_detector_gives(files, video, tiny_cfg, tiny_model):
    results = list(EventfulPredictor(**files(), budget=6).stream(video))
    model = tiny_model()
    with VideoDetector(tiny_cfg(), model, RuntimeControl(model, Constant(TopR(6)))) as detector:
        expected = [detector.detect(frame).detections for frame in open_source(video).frames()]
    assert all(same(result, found) and len(result) == len(found.scores) > 0 for result, found in zip(results, expected))
    assert [result.number for result in results] == list(range(6))
    for result, frame in zip(results, iterate_frames(video)):
        assert np.array_equal(result.image, frame.image) and result.seconds == pytest.approx(frame.seconds)
    assert [result.cost.flushed for result in results] == [True] + [False] * 5
    assert results[1].budget == "top-r 6" and results[1].cost.total_gflops < results[0].cost.total_gflops
    assert results[0].class_names == [NAMES[index] for index in results[0].classes] and results[0].masks is None


def test_frames_of_ones_own_give_the_same_as_their_video(files, video):
    predictor = EventfulPredictor(**files())
    streamed = list(predictor.stream(video))
    for convert in (lambda image: image, lambda image: torch.from_numpy(image.copy()).permute(2, 0, 1)):
        predictor.reset()
        given = [predictor(convert(image), seconds) for _, seconds, image in iterate_frames(video)]
        assert all(map(same, given, streamed))
        assert [(result.number, result.seconds) for result in given] == [(r.number, r.seconds) for r in streamed]
        assert [result.cost.flushed for result in given] == [True] + [False] * 5
    assert predictor(numbered_image(0)).number == 6 and predictor(numbered_image(0)).seconds is None
    predictor.reset()
    again = predictor(numbered_image(0))
    assert again.number == 0 and again.cost.flushed


def test_a_frame_handed_in_is_not_changed_and_not_copied(files):
    frame = numbered_image(3)
    before = frame.copy()
    result = EventfulPredictor(**files())(frame)
    assert result.image is frame and np.array_equal(frame, before)
    assert "image" not in repr(result)  # a screen of pixels in front of the rest


def test_videos_side_by_side_disturb_each_other_by_flushes_only(files, video):
    predictor = EventfulPredictor(**files())
    alone = [result.boxes for result in predictor.stream(video)]
    mixed = zip(predictor.stream(video), predictor.stream(video, start=1))
    assert all(result.cost.flushed for pair in mixed for result in pair)  # each frame begins another sequence
    assert all(np.array_equal(a, r.boxes) for a, r in zip(alone, predictor.stream(video)))


def test_part_of_a_video(files, video):
    predictor = EventfulPredictor(**files())
    results = list(predictor.stream(video, start=1, end=5, every=2))
    assert [result.number for result in results] == [1, 3]
    assert [result.cost.flushed for result in results] == [True, False]  # a step is no gap
    for words, message in (({"start": 3, "end": 3}, "nothing from frame 3"), ({"every": 0}, "a step 1 or larger")):
        with pytest.raises(ConfigError, match=message):
            predictor.stream(video, **words)  # before any frame is asked for
    with pytest.raises(VideoReadError, match="absent.mp4: there is no such file"):
        predictor.stream("absent.mp4")


def test_the_budget_may_change_between_frames(files):
    predictor = EventfulPredictor(**files(MODEL__EVENTFUL__R=5))
    said, budgets = [], (None, 9, np.int64(3), "dense", 9, Threshold(0.5), None)
    for index, budget in enumerate(budgets):
        predictor.budget = budget
        assert predictor.budget is budget
        result = predictor(numbered_image(index))
        said.append((result.budget, result.cost.flushed))
    assert said == [
        ("top-r 5", True),
        ("top-r 9", False),
        ("top-r 3", False),
        ("dense", False),
        ("top-r 9", True),  # what was kept was older than the dense frame
        ("threshold 0.5", False),
        ("top-r 5", False),
    ]


class Unfit(Policy):
    def check(self, gates) -> None:
        raise ValueError("nothing for this gate")


@pytest.mark.parametrize("budget", [-1, 2.5, "128", True, [3], Unfit()])
def test_what_is_no_budget_changes_nothing(files, budget):
    predictor = EventfulPredictor(**files(), budget=7)
    with pytest.raises(ConfigError, match="a budget is a number of tokens|nothing for this gate"):
        predictor.budget = budget
    assert predictor.budget == 7 and predictor(numbered_image(0)).budget == "top-r 7"


def test_a_schedule_of_the_configuration(files, video):
    keys = {"MODEL.EVENTFUL.CONTROLLER.NAME": "schedule", "MODEL.EVENTFUL.CONTROLLER.SCHEDULE": "0:8,3:2"}
    predictor = EventfulPredictor(**files(), options=keys)
    assert [result.budget for result in predictor.stream(video)] == ["top-r 8"] * 3 + ["top-r 2"] * 3
    predictor.budget = 4
    assert {result.budget for result in predictor.stream(video)} == {"top-r 4"}


def test_streams_share_weights_and_nothing_else(files, video):
    predictor = EventfulPredictor(**files(), budget=6)
    frames = [numbered_image(number) for number in range(4)]
    others = [numbered_image(number)[::-1].copy() for number in range(4)]
    alone = []
    for images in (frames, others):
        predictor.reset()
        alone.append([predictor(image) for image in images])
    left, right = predictor.streams(2)
    for index, (image, other) in enumerate(zip(frames, others)):
        assert same(left(image), alone[0][index]) and same(right(other), alone[1][index])
    right.budget = 2
    assert (left.budget, predictor.budget, right(others[0]).budget) == (6, 6, "top-r 2")
    weights = [next(p._detector.model.parameters()).data_ptr() for p in (predictor, left, right)]
    assert len(set(weights)) == 1
    with pytest.raises(ConfigError, match="the number of streams must be 1 or larger, found 0"):
        predictor.streams(0)


def test_streams_run_in_threads_of_their_own(files):
    predictor = EventfulPredictor(**files(), budget=6)
    videos = [[np.roll(numbered_image(number), 7 * turn, axis=0) for number in range(12)] for turn in range(3)]
    alone = []
    for images in videos:
        predictor.reset()
        alone.append([predictor(image) for image in images])
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda p, images: [p(image) for image in images], predictor.streams(3), videos))
    for one, other in zip(alone, together):
        assert all(map(same, one, other))
        assert [result.cost.macs for result in one] == [result.cost.macs for result in other]


def test_classes_and_scores(files, video):
    given = files()
    everything = list(EventfulPredictor(**given).stream(video))
    chosen = EventfulPredictor(**given, classes=["Motorboat", "person"])
    assert {name for result in chosen.stream(video) for name in result.class_names} <= {"motorboat", "person"}
    assert chosen.model_classes == tuple(NAMES)
    kept = [np.isin(result.classes, (0, 2)) for result in everything]
    assert all(np.array_equal(a.scores[k], b.scores) for a, k, b in zip(everything, kept, chosen.stream(video)))
    limit = float(np.median(everything[0].scores))
    strong = EventfulPredictor(**{**given, "min_score": limit})
    assert 0 < len(strong(everything[0].image)) == (everything[0].scores >= limit).sum() < len(everything[0])
    with pytest.raises(ConfigError, match="no class 'motorbike'; did you mean 'motorboat' or 'motorcycle'"):
        EventfulPredictor(**given, classes=["motorbike"])
    with pytest.raises(ConfigError, match="no class 'xyz'; it has 'person', 'motorcycle', 'motorboat'$"):
        EventfulPredictor(**given, classes=["xyz"])
    with pytest.raises(ConfigError, match="min_score must be from 0 to 1"):
        EventfulPredictor(**{**given, "min_score": 30})


def test_masks(files):
    given = files(**{key.replace(".", "__"): value for key, value in MASKS.items()})
    result = EventfulPredictor(**given)(numbered_image(0))
    height, width = result.image.shape[:2]
    assert len(result) > 0 and result.masks.shape == (len(result), height, width) and result.masks.dtype == bool
    for mask, (x0, y0, x1, y1) in zip(result.masks, result.boxes):
        outside = mask.copy()
        outside[max(0, int(y0) - 1) : int(y1) + 2, max(0, int(x0) - 1) : int(x1) + 2] = False
        assert not outside.any()
    assert result.masks.any() and result.masks is result.masks
    assert EventfulPredictor(**given, masks=False)(numbered_image(0)).masks is None
    instances = result.to_instances()
    assert instances.image_size == (height, width) and len(instances) == len(result)
    assert torch.equal(instances.pred_masks, torch.from_numpy(result.masks))
    assert np.array_equal(instances.pred_boxes.tensor.numpy(), result.boxes)
    assert instances.pred_classes.dtype == torch.int64
    with pytest.raises(ConfigError, match="the model has no masks"):
        EventfulPredictor(**files(), masks=True)


def test_the_form_of_supervision(files, monkeypatch):
    result = EventfulPredictor(**files())(numbered_image(0))
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingPackageError, match="pip install supervision"):
        result.to_supervision()
    monkeypatch.undo()
    pytest.importorskip("supervision", reason="supervision is not installed")
    nothing = EventfulPredictor(**{**files(), "min_score": 1.0})(numbered_image(0))
    for given in (result, nothing):
        found = given.to_supervision()
        assert len(found) == len(given) and np.array_equal(found.xyxy, given.boxes)
        assert np.array_equal(found.confidence, given.scores) and found.mask is None
        assert list(found.data["class_name"]) == given.class_names and list(found.class_id) == list(given.classes)
    masked = EventfulPredictor(**files(**{key.replace(".", "__"): value for key, value in MASKS.items()}))
    given = masked(numbered_image(0))
    assert len(given) > 0 and np.array_equal(given.to_supervision().mask, given.masks)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((8, 8), np.uint8), r"an array \(H, W, 3\) of uint8, RGB; found \(8, 8\) of uint8"),
        (np.zeros((8, 8, 3)), "of float64"),
        (np.zeros((0, 8, 3), np.uint8), r"found \(0, 8, 3\)"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"a tensor \(3, H, W\) of uint8, RGB; found \(8, 8, 3\)"),
        (torch.zeros(1, 3, 8, 8), r"found \(1, 3, 8, 8\) of torch.float32"),
        ("street.mp4", "found a str"),
    ],
)
def test_what_is_no_frame(files, frame, message):
    with pytest.raises(ConfigError, match=message):
        EventfulPredictor(**files())(frame)


def test_weights_that_cannot_be_fetched_may_be_put_in_place(files, tmp_path, monkeypatch, caplog):
    def fail(*_args, **_kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlretrieve", fail)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    given = files()
    address = "https://models.example.org/tiny/model_final.safetensors"
    place = tmp_path / "cache" / "tiny" / "model_final.safetensors"
    with pytest.raises(CheckpointError) as caught:
        EventfulPredictor(**{**given, "weights": address})
    assert address in str(caught.value) and f"put it at {place}" in str(caught.value)
    assert "Failed to download" not in caplog.text
    place.parent.mkdir(parents=True, exist_ok=True)
    given["weights"].rename(place)
    assert len(EventfulPredictor(**{**given, "weights": address})(numbered_image(0))) > 0


def test_models_that_do_not_exist(files):
    with pytest.raises(ConfigError, match="no model of that name; did you mean coco/mask_rcnn_vitdet_"):
        EventfulPredictor("coco/mask_rcnn_vitdet_x")
    with pytest.raises(ConfigError, match="names no weights; give them: weights=FILE"):
        EventfulPredictor(files()["model"])
    with pytest.raises(ConfigError, match="'abacus' is no device"):
        EventfulPredictor(**files(), device="abacus")
    with pytest.raises(ConfigError, match="MODEL.VIT.DEPHT"):
        EventfulPredictor(**files(), options={"MODEL.VIT.DEPHT": 3})


def test_a_committed_model_by_its_name(repository):
    predictor = EventfulPredictor("demo/vitdet_tiny", device="cpu")
    assert predictor.model_classes == ("disc", "square", "triangle", "star", "ring", "cross")
    assert predictor(np.zeros((256, 320, 3), np.uint8)).cost.flushed


def test_known_models_are_those_of_the_documentation(repository):
    table = (repository / "docs" / "models.md").read_text()
    listed = dict(re.findall(r"^\| `((?:coco|lvis)/\w+)\.yaml` \|(.*)\|$", table, re.MULTILINE))
    published = [model for model in KNOWN_MODELS if not model.file]
    assert [model.name for model in published] == list(listed) and DEFAULT_MODEL in listed
    for model in published:
        box_ap, mask_ap, _, megabytes, file = listed[model.name].split("|")
        assert (model.box_ap, model.mask_ap, model.megabytes) == (float(box_ap), float(mask_ap), int(megabytes))
        assert f"({model.address()})" in file
    for model in KNOWN_MODELS:
        assert (CONFIGS / f"{model.name}.yaml").is_file() and model.name in names_of_configs()
        assert not model.file or round((repository / model.file).stat().st_size / 1e6) == model.megabytes


def test_where_addresses_are_kept(monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", "/kept")
    assert str(place_of("https://user:word@example.org:80/a/b.pth")) == "/kept/a/b.pth"
    assert str(place_of("detectron2://ViTDet/b.pkl")) == "/kept/detectron2/ViTDet/b.pkl"
    assert [place_of(word) for word in ("a/b.pth", "https://example.org/uc?id=3", "ftp://x/y", "https://x/")] == [
        None
    ] * 4


@pytest.mark.long
@pytest.mark.skipif(ONLINE not in os.environ, reason=f"{ONLINE} is not set: the weights (444 MB) are not fetched")
@pytest.mark.parametrize("budget", ["dense", 256])
def test_a_published_model_finds_a_person(budget):
    """The default model on the portrait that matplotlib brings: one person, from head to waist, in a uniform."""
    with get_sample_data("grace_hopper.jpg") as file:
        portrait = np.asarray(Image.open(file).convert("RGB"))
    height, width = portrait.shape[:2]
    predictor = EventfulPredictor(DEFAULT_MODEL, budget=budget)
    for _ in range(2):  # a frame computed in full, and one that updates tokens
        found = predictor(portrait)
        best = int(np.argmax(found.scores))
        assert found.class_names[best] == "person" and found.scores[best] > 0.9
        left, top, right, bottom = found.boxes[best]
        assert (right - left) * (bottom - top) > 0.6 * height * width
        assert found.masks[best][height // 3, width // 2] and not found.masks[best][5, 5]
