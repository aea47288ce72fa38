"""Names of classes: by lists, by the data sets, by Kinetics-400, and numbers where nobody knows."""

import csv

import pytest
from eventful_vitdet.actions import register_action_csv
from eventful_vitdet.actions.action_names import action_names
from eventful_vitdet.errors import ConfigError, DatasetError

from .conftest import row, write_csv


@pytest.fixture
def epic(tiny_classifier_cfg, tmp_path):
    """A configuration whose test set is a CSV file of two clips."""
    rows = [
        row(narration_id="a", verb="take", noun="tap"),
        row(narration_id="b", verb_class="3", verb="cut", noun="tap"),
    ]
    name = register_action_csv(str(write_csv(tmp_path / "EPIC_100_validation.csv", rows)))
    return lambda **overrides: tiny_classifier_cfg(DATASETS__TEST=[name], DATASETS__TRAIN=[], **overrides)


def write_classes(path, keys) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("id", "key"), *enumerate(keys)])


def test_words_of_the_clips_name_classes(epic):
    assert action_names(epic()) == {"verb": ["verb 0", "take", "verb 2", "cut"], "noun": ["noun 0", "noun 1", "tap"]}


def test_the_data_sets_own_list_is_preferred(epic, tmp_path):
    write_classes(tmp_path / "EPIC_100_verb_classes.csv", ["take", "put", "wash", "open"])
    assert action_names(epic())["verb"] == ["take", "put", "wash", "open"]
    write_classes(tmp_path / "EPIC_100_verb_classes.csv", ["take", "put", "wash", "open", "close"])
    with pytest.raises(DatasetError, match=r"EPIC_100_verb_classes.csv, line 6: column id has 4, but there are 4"):
        action_names(epic())


def test_lists_of_the_configuration_come_first(epic, tmp_path):
    (tmp_path / "nouns.txt").write_text("pan\nknife\nlid\n")
    lists = [["noun", str(tmp_path / "nouns.txt")]]
    assert action_names(epic(MODEL__VIVIT__CLASS_NAMES=lists))["noun"] == ["pan", "knife", "lid"]
    assert action_names(epic(MODEL__VIVIT__CLASS_NAMES=lists))["verb"][1] == "take"


@pytest.mark.parametrize(
    "lists, message",
    [
        ([["adverb", "synthetic_nouns"]], r"has \['adverb', 'synthetic_nouns'\]; expected \[HEAD, FILE\].*verb, noun"),
        (["verb"], "has 'verb'; expected"),
        ([["verb", "synthetic_verbs"]], "synthetic_verbs has 8 names, but verb has 4 classes"),
        ([[["verb"], "verbs.txt"]], "expected \\[HEAD, FILE\\]"),
        ([["verb", "absent.txt"]], "MODEL.VIVIT.CLASS_NAMES is 'absent.txt': give one of coco, lvis"),
    ],
)
def test_lists_that_cannot_be_are_named(tiny_classifier_cfg, lists, message):
    with pytest.raises(ConfigError, match=message):
        action_names(tiny_classifier_cfg(MODEL__VIVIT__CLASS_NAMES=lists))


def test_classes_that_nobody_names_are_numbered(tiny_classifier_cfg, caplog):
    cfg = tiny_classifier_cfg(DATASETS__TEST=[], DATASETS__TRAIN=["epic_kitchens_train"])
    assert action_names(cfg)["noun"] == ["noun 0", "noun 1", "noun 2"]
    assert "MODEL.VIVIT.CLASS_NAMES can" in caplog.text


def test_kinetics_needs_no_data_set(tiny_classifier_cfg):
    cfg = tiny_classifier_cfg(MODEL__VIVIT__CLASSES=[["label", 400]], DATASETS__TEST=[], DATASETS__TRAIN=[])
    names = action_names(cfg)["label"]
    assert len(names) == 400 and names == sorted(names) and names[0] == "abseiling"


def test_labels_of_a_kinetics_file(tiny_classifier_cfg, tmp_path):
    columns = ["label", "youtube_id", "time_start", "time_end"]
    rows = [{"label": label, "youtube_id": "x", "time_start": 0, "time_end": 1} for label in ("yoga", "archery")]
    name = register_action_csv(str(write_csv(tmp_path / "val.csv", rows, columns)))
    cfg = tiny_classifier_cfg(MODEL__VIVIT__CLASSES=[["label", 2]], DATASETS__TEST=[name], DATASETS__TRAIN=[])
    assert action_names(cfg) == {"label": ["archery", "yoga"]}
