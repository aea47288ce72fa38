"""The configurations of Detectron2's published ViTDet models: every parameter has the name and shape of the file's."""

import json

import pytest
import torch
from detectron2.modeling import build_model
from eventful_vitdet.checkpoint import VideoCheckpointer
from eventful_vitdet.config_files import build_cfg
from eventful_vitdet.errors import CheckpointError
from eventful_vitdet.predictor import class_names
from eventful_vitdet.published_models import describe_origin

MODELS = [
    f"{data}/{heads}_vitdet_{size}"
    for data in ("coco", "lvis")
    for heads in ("mask_rcnn", "cascade_mask_rcnn")
    for size in "blh"
]
TRAINING_ONLY = "fed_loss_cls_weights"


def published_shapes(golden, model: str) -> dict[str, tuple]:
    """By name, as the published file has them; tests/golden/make_published_shapes.py."""
    shapes = {}
    for name, shape, *blocks in json.loads((golden / "published_shapes.json").read_text())[model]:
        names = [name.replace("*", str(block)) for block in blocks[0]] if blocks else [name]
        shapes.update(dict.fromkeys(names, tuple(shape)))
    return shapes


def weightless_model(cfg):
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return build_model(cfg)


@pytest.mark.parametrize("name", MODELS)
def test_all_parameters_have_the_published_names_and_shapes(golden, name):
    model = weightless_model(build_cfg(f"{name}.yaml"))
    found = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    expected = published_shapes(golden, name)
    assert found == {key: shape for key, shape in expected.items() if TRAINING_ONLY not in key}


def test_the_numbers_of_parameters_that_were_published(golden):
    counts = {name: len(published_shapes(golden, name)) for name in MODELS}
    assert counts["coco/mask_rcnn_vitdet_b"] == 245 and counts["coco/cascade_mask_rcnn_vitdet_b"] == 281


@pytest.mark.filterwarnings("ignore:.*meta parameter")
def test_nothing_of_a_published_file_is_left_over(golden, monkeypatch, caplog):
    name = "lvis/cascade_mask_rcnn_vitdet_b"  # of those whose files have more than the model
    shapes = published_shapes(golden, name)
    content = {"model": {key: torch.zeros(shape) for key, shape in shapes.items()}}
    monkeypatch.setattr("eventful_vitdet.checkpoint.read_checkpoint", lambda path: content)
    monkeypatch.setattr("eventful_vitdet.weight_sets.MAX_INFLATION", 1e9)
    with caplog.at_level("INFO", "eventful_vitdet"):
        VideoCheckpointer(weightless_model(build_cfg(f"{name}.yaml"))).load(__file__)
    total = sum(TRAINING_ONLY not in key for key in shapes)
    assert f"{total} of {total} parameters loaded, 0 in the file unused" in caplog.text


@pytest.mark.parametrize("name", MODELS)
def test_classes_have_names_and_each_file_an_address_of_its_own(name):
    cfg = build_cfg(f"{name}.yaml")
    names = class_names(cfg)
    assert len(names) == cfg.MODEL.ROI_HEADS.NUM_CLASSES == len(set(names))
    assert (names[0], names[-1]) == (("person", "toothbrush") if "coco" in name else ("aerosol_can", "zucchini"))
    data, file = name.split("/")
    assert f"/{data.upper()}/{file}/" in cfg.MODEL.WEIGHTS


def test_class_names_of_a_file(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("cat\ndog\n\n")
    cfg = build_cfg("coco/mask_rcnn_vitdet_b.yaml", ["MODEL.CLASS_NAMES", str(path), "MODEL.ROI_HEADS.NUM_CLASSES", 2])
    assert class_names(cfg) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["MODEL.ROI_HEADS.NUM_CLASSES", 30], "coco has 80 names, but MODEL.ROI_HEADS.NUM_CLASSES is 30"),
        (["MODEL.CLASS_NAMES", "cocoo"], "is 'cocoo': give one of coco, lvis, .*, or a text file"),
    ],
)
def test_class_names_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        class_names(build_cfg("coco/mask_rcnn_vitdet_b.yaml", changes))


@pytest.mark.parametrize("name", MODELS)
def test_a_published_file_in_another_configuration_is_recognised(golden, name):
    shapes = published_shapes(golden, name)
    assert describe_origin(shapes, {}).endswith(f": use configs/{name}.yaml")
    assert describe_origin(shapes, dict(shapes)) == ""
    shapes.pop("roi_heads.mask_head.predictor.weight")
    assert describe_origin(shapes, {}) == ""


@pytest.fixture
def load(monkeypatch):
    """Gives a configuration's model weights of these shapes; returns the error's message."""

    def load(shapes: dict[str, tuple], config: str) -> str:
        weights = {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}
        monkeypatch.setattr("eventful_vitdet.checkpoint.read_checkpoint", lambda path: {"model": weights})
        monkeypatch.setattr("eventful_vitdet.checkpoint.choose_set", lambda path, content, wanted: ("model", weights))
        with pytest.raises(CheckpointError) as error:
            VideoCheckpointer(weightless_model(build_cfg(f"{config}.yaml"))).load(__file__)
        return str(error.value)

    return load


@pytest.mark.filterwarnings("ignore:.*meta parameter")
@pytest.mark.parametrize("config", ["imagenet_vid/vitdet_b_1024", "demo/vitdet_tiny"])  # some shapes are equal; none is
def test_one_message_says_first_what_a_published_file_is(golden, load, caplog, config):
    message = load(published_shapes(golden, MODELS[0]), config)
    use = "The file is of a COCO Mask R-CNN with ViTDet-B: use configs/coco/mask_rcnn_vitdet_b.yaml. Other shape: "
    assert message.startswith(f"MODEL.WEIGHTS does not fit the model. {use}") and len(message) < 900
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.filterwarnings("ignore:.*meta parameter")
@pytest.mark.parametrize(
    ("name", "other", "configs"),
    [
        ("demo/vitdet_tiny", "coco/mask_rcnn_vitdet_b", "configs/demo/vitdet_tiny.yaml"),
        (
            "airborne_ir/vitdet_small",
            "demo/vitdet_tiny",
            "configs/airborne_vid/vitdet_small.yaml, configs/airborne_ir/vitdet_small.yaml",
        ),
        (
            "imagenet_vid/vitdet_b_1024",
            "coco/mask_rcnn_vitdet_b",
            "configs/imagenet_vid/vitdet_b_1024.yaml, configs/imagenet_vid/vitdet_b_1024_eventful_r512.yaml, "
            "configs/imagenet_vid/vitdet_b_1024_from_coco.yaml and 3 more",
        ),
    ],
)
def test_files_of_other_configurations_are_recognised(load, name, other, configs):
    shapes = {key: value.shape for key, value in weightless_model(build_cfg(f"{name}.yaml")).state_dict().items()}
    assert f"fit the model. The file has the sizes of {configs}. Other shape: " in load(shapes, other)
    shapes.pop("backbone.net.blocks.0.attn.proj.bias")
    message = load(shapes, name)
    assert "(is MODEL.* that of the checkpoint?). Not in the file: backbone.net.blocks.0.attn.proj.bias" in message
