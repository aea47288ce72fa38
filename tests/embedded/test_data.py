"""Catalogs, samplers, loaders, transforms and annotations."""

import itertools

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_train_loader
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.data.samplers import TrainingSampler
from detectron2.structures import BoxMode
from fvcore.transforms.transform import CropTransform
from PIL import Image
from torch.utils.data import SequentialSampler

NAME = "embedded_test_data"


@pytest.fixture
def dataset():
    """Ten registered images."""
    dicts = [{"file_name": f"{i}.jpg", "image_id": i, "width": 8, "height": 6} for i in range(10)]
    DatasetCatalog.register(NAME, lambda: dicts)
    MetadataCatalog.get(NAME).thing_classes = ["bird", "plane"]
    yield dicts
    DatasetCatalog.pop(NAME)
    MetadataCatalog.pop(NAME)


def test_catalog(dataset):
    assert DatasetCatalog.get(NAME) is dataset and NAME in DatasetCatalog.list()
    with pytest.raises(AssertionError, match=NAME):
        DatasetCatalog.register(NAME, list)
    with pytest.raises(KeyError, match=f"(?s)unheard_of.*{NAME}"):
        DatasetCatalog.get("unheard_of")


def test_metadata_is_kept_and_consistent(dataset):
    meta = MetadataCatalog.get(NAME)
    assert meta is MetadataCatalog.get(NAME) and meta.name == NAME
    meta.thing_classes = ["bird", "plane"]
    with pytest.raises(AssertionError, match="thing_classes"):
        meta.thing_classes = ["cat"]
    with pytest.raises(AttributeError, match="evaluator_type"):
        meta.evaluator_type  # noqa: B018
    assert meta.get("evaluator_type", "coco") == "coco"


def test_metadata_is_set_at_once_and_forgotten():
    meta = MetadataCatalog.get("test_set_at_once").set(thing_classes=["cat"], evaluator_type="coco")
    assert meta is MetadataCatalog.get("test_set_at_once") and "test_set_at_once" in MetadataCatalog.list()
    assert meta.as_dict() == {"name": "test_set_at_once", "thing_classes": ["cat"], "evaluator_type": "coco"}
    MetadataCatalog.remove("test_set_at_once")
    DatasetCatalog.register("test_set_at_once", list)
    DatasetCatalog.remove("test_set_at_once")
    assert "test_set_at_once" not in MetadataCatalog.list() + DatasetCatalog.list()
    for catalog in (MetadataCatalog, DatasetCatalog):
        with pytest.raises(KeyError):
            catalog.remove("test_set_at_once")


def test_sampler_is_a_sequence_of_permutations():
    sampler = TrainingSampler(7, seed=3)
    drawn = list(itertools.islice(sampler, 21))
    passes = [drawn[i : i + 7] for i in (0, 7, 14)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3  # shuffled anew: 1 in 5040 for a pair to be equal
    assert list(itertools.islice(TrainingSampler(7, seed=3), 21)) == drawn


def _loader(dataset, num_workers=0, **options):
    cfg = get_cfg()
    cfg.merge_from_list(["DATALOADER.NUM_WORKERS", num_workers, "SOLVER.IMS_PER_BATCH", 2])
    return build_detection_train_loader(cfg, mapper=_numbered, dataset=dataset, **options)


def _numbered(element):
    return {**element, "number": element["image_id"]}


def test_loader_batches_what_the_mapper_makes(dataset):
    batches = list(itertools.islice(_loader(dataset), 5))
    assert all(len(batch) == 2 for batch in batches)
    assert sorted(element["number"] for batch in batches for element in batch) == list(range(10))


def test_loader_with_workers_and_a_sampler(dataset):
    # Where the workers' shares meet differs between versions of Detectron2; all of them begin like this.
    loader = _loader(dataset, num_workers=2, sampler=SequentialSampler(dataset))
    elements = sum(itertools.islice(loader, 3), [])
    assert len({element["number"] for element in elements}) == 6
    assert {element["number"] for element in elements} >= {0, 1, 2, 3}


def test_aspect_ratio_groups():
    shapes = [{"width": 8 if i % 3 else 5, "height": 6, "image_id": i} for i in range(9)]
    for batch in itertools.islice(_loader(shapes), 10):
        assert len(batch) == 2 and len({element["width"] for element in batch}) == 1


def _image(height=40, width=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "size, short, longest, expected",
    [
        ((480, 640), 800, 1333, (800, 1067)),  # 640 * 800 / 480 = 1066.67
        ((640, 480), 800, 1333, (1067, 800)),
        ((300, 900), 800, 1333, (444, 1333)),  # the long edge decides: 300 * 1333 / 900 = 444.3
        ((500, 500), 640, 1024, (640, 640)),
        ((101, 33), 17, 1000, (52, 17)),  # 52.03
    ],
)
def test_resize_shortest_edge_shape(size, short, longest, expected):
    seen = T.AugInput(np.zeros((*size, 3), np.uint8))
    T.ResizeShortestEdge(short, longest)(seen)
    assert seen.image.shape == (*expected, 3)


def test_resize_moves_boxes_and_pixels():
    image = _image()
    seen = T.AugInput(image, boxes=np.array([[6.0, 4.0, 30.0, 20.0]]))
    T.ResizeShortestEdge(80, 1000)(seen)
    np.testing.assert_allclose(seen.boxes, [[12.0, 8.0, 60.0, 40.0]])
    expected = Image.fromarray(image).resize((120, 80), Image.BILINEAR)
    np.testing.assert_array_equal(seen.image, np.asarray(expected))


def test_flip():
    image = _image()
    seen = T.AugInput(image, boxes=np.array([[6.0, 4.0, 30.0, 20.0]]))
    T.RandomFlip(1.0)(seen)
    np.testing.assert_array_equal(seen.image, image[:, ::-1])
    np.testing.assert_allclose(seen.boxes, [[30.0, 4.0, 54.0, 20.0]])  # 60 wide
    vertical = T.RandomFlip(1.0, horizontal=False, vertical=True)
    np.testing.assert_array_equal(vertical.get_transform(image).apply_image(image), image[::-1])
    assert isinstance(T.RandomFlip(0.0).get_transform(image), T.NoOpTransform)
    with pytest.raises(ValueError):
        T.RandomFlip(horizontal=True, vertical=True)


@pytest.mark.parametrize("weight", [0.5, 1.0, 1.5])
def test_colour_augmentations(weight):
    image = _image()
    pixels = image.astype(np.float64)
    others = {T.RandomBrightness: 0.0, T.RandomContrast: pixels.mean()}
    for kind, other in others.items():
        seen = T.AugInput(image, boxes=np.array([[1.0, 2.0, 3.0, 4.0]]))
        kind(weight, weight)(seen)
        expected = np.clip(weight * pixels + (1 - weight) * other, 0, 255)
        assert seen.image.dtype == np.uint8
        # Conversion to uint8 truncates, and float32 arithmetic can fall just below an integer.
        assert np.abs(seen.image - expected).max() < 1 + 1e-3
        np.testing.assert_array_equal(seen.boxes, [[1.0, 2.0, 3.0, 4.0]])


def test_a_list_composes_and_an_augmentation_may_ask_for_boxes():
    class CropToFirstBox(T.Augmentation):
        def get_transform(self, image, boxes):
            x0, y0, x1, y1 = boxes[0].astype(int)
            return CropTransform(x0, y0, x1 - x0, y1 - y0)

    image = _image()
    seen = T.AugInput(image, boxes=np.array([[6.0, 4.0, 30.0, 20.0]]))
    steps = [T.RandomFlip(1.0), CropToFirstBox(), T.ResizeShortestEdge(32, 1000)]
    transforms = T.AugmentationList(steps)(seen)
    # flipped: 30 ... 54, cropped to 24 x 16, doubled
    assert seen.image.shape == (32, 48, 3)
    np.testing.assert_allclose(seen.boxes, [[0.0, 0.0, 48.0, 32.0]])
    np.testing.assert_allclose(transforms.apply_box(np.array([[6.0, 4.0, 30.0, 20.0]])), seen.boxes)
    np.testing.assert_array_equal(transforms.apply_image(image), seen.image)


def test_annotations_to_instances():
    annotations = [
        {"bbox": [1.0, 2.0, 3.0, 4.0], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 5},
        {"bbox": np.array([5.0, 5.0, 5.0, 9.0]), "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0},
    ]
    instances = utils.annotations_to_instances(annotations, (24, 40))
    assert instances.image_size == (24, 40)
    assert instances.gt_boxes.tensor.tolist() == [[1.0, 2.0, 4.0, 6.0], [5.0, 5.0, 5.0, 9.0]]
    assert instances.gt_boxes.tensor.dtype == torch.float32
    assert instances.gt_classes.tolist() == [5, 0] and instances.gt_classes.dtype == torch.int64
    empty = utils.annotations_to_instances([], (24, 40))
    assert len(empty) == 0 and empty.gt_boxes.tensor.shape == (0, 4) and empty.gt_classes.dtype == torch.int64
