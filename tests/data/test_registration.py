from __future__ import annotations

import importlib
import json

import eventful_vitdet.data
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from eventful_vitdet.data import ReadRules, default_test_root, load_frames, register_coco_vid, register_test_json
from eventful_vitdet.errors import DatasetError

from .conftest import make_document


@pytest.fixture
def name():
    yield "test_registration_set"
    if "test_registration_set" in DatasetCatalog.list():
        DatasetCatalog.pop("test_registration_set")
        MetadataCatalog.pop("test_registration_set")


def test_registered_set_loads_and_sets_its_metadata(write_dataset, name):
    json_file, root = write_dataset(make_document({1: [0, 1]}))
    register_coco_vid(name, json_file, root)
    assert len(DatasetCatalog.get(name)) == 2
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes == ["cat", "dog"]
    assert metadata.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}
    assert (metadata.json_file, metadata.image_root) == (json_file, root)
    assert metadata.evaluator_type == "coco_vid"


def test_a_file_that_changed_between_loads_is_read_anew(write_dataset, name):
    document = make_document({1: [0, 1]})
    register_coco_vid(name, *write_dataset(document))
    DatasetCatalog.get(name)
    document["categories"][0]["name"] = "lynx"
    write_dataset(document)
    DatasetCatalog.get(name)
    assert MetadataCatalog.get(name).thing_classes == ["lynx", "dog"]


def test_registering_twice(write_dataset, name):
    json_file, root = write_dataset(make_document({1: [0]}))
    register_coco_vid(name, json_file, root)
    register_coco_vid(name, json_file, root)
    with pytest.raises(DatasetError, match=f"'{name}' is already taken by {json_file}"):
        register_coco_vid(name, json_file, root + "/elsewhere")


def test_second_import_is_safe():
    importlib.reload(eventful_vitdet.data)
    assert "airborne_vid_val" in DatasetCatalog.list()


def test_builtin_set_is_found_where_the_variable_points_when_it_is_loaded(write_dataset, tmp_path, monkeypatch):
    document = make_document({1: [0]})
    document["categories"] = [{"id": i + 1, "name": n} for i, n in enumerate("airplane bird drone helicopter".split())]
    write_dataset(document)
    for folder in ("a", "b"):
        target = tmp_path / folder / "airborne_vid"
        (target / "annotations").mkdir(parents=True)
        (target / "videos").symlink_to(tmp_path / "videos")
        (target / "annotations" / "val.json").write_text(json.dumps(document))
        monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / folder))
        frames = DatasetCatalog.get("airborne_vid_val")
        assert frames[0]["file_name"] == str(target / "videos" / "1.avi")
        assert MetadataCatalog.get("airborne_vid_val").image_root == str(target)


@pytest.mark.parametrize("name", ["airborne_vid_train_more", "airborne_ir_train", "airborne_ir_val"])
def test_airborne_sets_lie_in_the_folder_of_their_camera(name, write_dataset, tmp_path, monkeypatch):
    document = make_document({1: [0]})
    document["categories"] = [{"id": i + 1, "name": n} for i, n in enumerate("airplane bird drone helicopter".split())]
    write_dataset(document)
    camera, split = name[len("airborne_") :].split("_", 1)
    target = tmp_path / f"airborne_{camera}"
    (target / "annotations").mkdir(parents=True)
    (target / "videos").symlink_to(tmp_path / "videos")
    (target / "annotations" / f"{split}.json").write_text(json.dumps(document))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert [frame["file_name"] for frame in DatasetCatalog.get(name)] == [str(target / "videos" / "1.avi")]


def test_builtin_set_with_other_classes_is_refused(write_dataset, tmp_path, monkeypatch):
    write_dataset(make_document({1: [0]}))
    (tmp_path / "airborne_vid" / "annotations").mkdir(parents=True)
    (tmp_path / "annotations" / "set.json").rename(tmp_path / "airborne_vid" / "annotations" / "val.json")
    (tmp_path / "videos").rename(tmp_path / "airborne_vid" / "videos")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(DatasetError, match="'airborne_vid_val' has .*airplane"):
        DatasetCatalog.get("airborne_vid_val")


def test_absent_builtin_set_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(DatasetError, match=f"{tmp_path}/demo_vid/annotations/test.json.*set DETECTRON2_DATASETS"):
        DatasetCatalog.get("demo_vid_test")


@pytest.mark.parametrize("name", ["imagenet_vid_val", "imagenet_det_30_train", "imagenet_vid_archive_vid_minival"])
def test_imagenet_vid_has_its_classes_before_it_is_loaded(name):
    metadata = MetadataCatalog.get(name)
    assert len(metadata.thing_classes) == len(set(metadata.thing_classes)) == len(set(metadata.wnids)) == 30
    assert (metadata.thing_classes[9], metadata.wnids[9]) == ("domestic_cat", "n02121808")
    assert metadata.thing_dataset_id_to_contiguous_id == {i: i - 1 for i in range(1, 31)}
    assert metadata.evaluator_type == "coco_vid"


def test_videos_with_absent_files_stop_or_are_skipped(write_dataset, name, tmp_path, caplog):
    register_coco_vid(name, *write_dataset(make_document({1: [0, 1], 2: [0], 3: [4]})))
    assert load_frames(name, "skip") == (DatasetCatalog.get(name), [])
    (tmp_path / "videos" / "2.avi").unlink()
    with pytest.raises(DatasetError, match="1 of the 3 files it names do not exist"):
        load_frames(name, "stop")
    frames, (bad,) = load_frames(name, "skip")
    assert [frame["video_id"] for frame in frames] == [1, 1, 3]
    assert (bad.video_id, bad.name, bad.file_name) == (2, "2", str(tmp_path / "videos" / "2.avi"))
    assert f"{name}: skipping video 2: {bad.file_name}: does not exist" in caplog.text
    for number in (1, 3):
        (tmp_path / "videos" / f"{number}.avi").unlink()
    with pytest.raises(DatasetError, match="not one video can be used, the first because of: .*1.avi: does not exist"):
        load_frames(name, "skip")
    with pytest.raises(ValueError, match="TEST.ON_BAD_VIDEO .* must be 'stop' or 'skip', found 'ignore'"):
        load_frames(name, "ignore")


def test_rules_reach_the_file_of_a_registered_name(write_dataset, name):
    document = make_document({1: [0, 1]})
    document["annotations"][0]["bbox"][3] = 0
    register_coco_vid(name, *write_dataset(document))
    with pytest.raises(DatasetError, match="1 of 2 boxes have no area"):
        load_frames(name)
    for way in ("stop", "skip"):
        frames, _ = load_frames(name, way, ReadRules(empty_boxes="drop"))
        assert [len(frame["annotations"]) for frame in frames] == [0, 1]


def test_default_test_root():
    assert default_test_root("/data/set/annotations/val.json") == "/data/set"
    assert default_test_root("/data/set/val.json") == "/data/set"


def test_test_json_is_registered_with_its_default_root(write_dataset, tmp_path):
    json_file, _ = write_dataset(make_document({1: [0]}))
    name = register_test_json(json_file)
    assert DatasetCatalog.get(name)[0]["file_name"] == str(tmp_path / "videos" / "1.avi")
    assert register_test_json(json_file) == name
