"""CSV files of clips: what is read, and what is refused, by file, line and column."""

import pytest
from eventful_vitdet.actions import load_action_set, register_action_csv
from eventful_vitdet.errors import ConfigError, DatasetError

from .conftest import row, write_csv, write_video

HEADS = {"verb": 97, "noun": 300}


def load(path, heads=HEADS, root=None, **options):
    return load_action_set(register_action_csv(str(path), root and str(root)), heads, **options)


def test_epic_kitchens_columns_times_and_places(clips_csv):
    clips = load(clips_csv).clips
    assert [clip.clip_id for clip in clips] == ["a", "b", "c"]
    assert [clip.labels for clip in clips] == [
        {"verb": 1, "noun": 2},
        {"verb": 0, "noun": 1},
        {"verb": 3, "noun": 0},
    ]
    assert [(clip.start, clip.stop) for clip in clips] == [(0.5, 1.5), (0.5, 1.5), (1.0, 1.9)]
    assert [clip.path.rpartition("/")[2] for clip in clips] == ["P01_01.mp4", "P02_01.MP4", "P01_01.mp4"]
    assert clips[1].place == f"{clips_csv}, line 3"


def test_only_the_heads_that_a_model_has(clips_csv):
    assert load(clips_csv, {"verb": 97}).clips[0].labels == {"verb": 1}


def test_folders_of_frames(tmp_path):
    (tmp_path / "validation" / "frames" / "00000").mkdir(parents=True)
    clips = load(write_csv(tmp_path / "EPIC_100_validation.csv", [row()])).clips
    assert clips[0].path.endswith("validation/frames/00000")


@pytest.mark.parametrize(
    "values, message",
    [
        ({"start_timestamp": "00:00:02.00"}, r"line 2: stop_timestamp .00:00:01.50. is not after start_timestamp"),
        ({"stop_timestamp": "soon"}, r"line 2: column stop_timestamp has 'soon'; expected a time"),
        ({"verb_class": "97"}, r"line 2: column verb_class has 97, but there are 97 classes"),
        ({"noun_class": "-1"}, r"line 2: column noun_class has '-1'; expected a number"),
        ({"verb_class": ""}, r"line 2: column verb_class is empty"),
        ({"video_id": ""}, r"line 2: column video_id is empty"),
    ],
)
def test_lines_that_cannot_be_are_refused(tmp_path, values, message):
    write_video(tmp_path / "videos" / "P01_01.mp4", 5)
    with pytest.raises(DatasetError, match=message):
        load(write_csv(tmp_path / "clips.csv", [row(**values)]))


def test_missing_columns_are_named(tmp_path):
    path = write_csv(tmp_path / "clips.csv", [row()], [name for name in row() if name != "noun_class"])
    with pytest.raises(DatasetError, match="clips.csv: column noun_class is missing"):
        load(path)


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "lists no clips"),
        ("a,b\n1,2\n", "columns are neither those of EPIC-Kitchens"),
        ("video_id\n\xff\xfe", "column start_timestamp is missing"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, content, message):
    path = tmp_path / "clips.csv"
    path.write_text(content)
    with pytest.raises(DatasetError, match=message):
        load(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "clips.csv"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DatasetError, match="cannot be read as CSV"):
        load(path)


def test_a_clip_that_is_there_twice_is_refused(tmp_path):
    write_video(tmp_path / "videos" / "P01_01.mp4", 5)
    with pytest.raises(DatasetError, match="line 3: clip a is already in line 2"):
        load(write_csv(tmp_path / "clips.csv", [row(narration_id="a"), row(narration_id="a")]))


def test_missing_videos_stop_or_are_left_out(clips_csv):
    (clips_csv.parent / "videos" / "P01_01.mp4").unlink()
    with pytest.raises(DatasetError, match=r"line 2: there is no video .* for clip a below .*, and 1 more"):
        load(clips_csv)
    found = load(clips_csv, on_bad_clip="skip")
    assert [clip.clip_id for clip in found.clips] == ["b"]
    assert [bad.clip_id for bad in found.bad_clips] == ["a", "c"]


@pytest.mark.parametrize("missing", [False, True])
def test_what_to_do_about_bad_clips_is_one_of_two_words(clips_csv, missing):
    """Where there is none, too: a word with a typing error would only count when there is one."""
    if missing:
        (clips_csv.parent / "videos" / "P01_01.mp4").unlink()
    message = r"TEST\.ON_BAD_VIDEO .*DATALOADER\.ON_BAD_VIDEO\) must be 'stop' or 'skip', found 'Stop'"
    with pytest.raises(ConfigError, match=message):
        load(clips_csv, on_bad_clip="Stop")


def test_kinetics(tmp_path):
    write_video(tmp_path / "val" / "abc_000005_000015.mp4", 5)
    write_video(tmp_path / "val" / "zumba" / "x-y_000000_000010.mkv.mp4", 5)
    (tmp_path / "val" / "zumba" / "x-y_000000_000010.mkv.mp4").rename(
        tmp_path / "val" / "zumba" / "x-y_000000_000010.mp4"
    )
    columns = ("label", "youtube_id", "time_start", "time_end", "split")
    rows = [
        {"label": "zumba", "youtube_id": "x-y", "time_start": "0", "time_end": "10"},
        {"label": "abseiling", "youtube_id": "abc", "time_start": "5", "time_end": "15"},
    ]
    path = write_csv(tmp_path / "val.csv", rows, columns)
    clips = load(path, {"label": 2}).clips
    assert [(clip.clip_id, clip.labels, clip.start, clip.stop) for clip in clips] == [
        ("x-y_000000_000010", {"label": 1}, 0.0, None),
        ("abc_000005_000015", {"label": 0}, 0.0, None),
    ]
    with pytest.raises(DatasetError, match="has 2 labels, but the model 400 classes"):
        load(path, {"label": 400})
    with pytest.raises(DatasetError, match="style of Kinetics, which has no classes for head 'verb'"):
        load(path, HEADS)
    (tmp_path / "classes.txt").write_text("abseiling\ndancing\nzumba\n")
    assert [clip.labels["label"] for clip in load(path, {"label": 3}).clips] == [2, 0]


def test_the_hash_follows_content_and_not_place(clips_csv, tmp_path):
    before = load(clips_csv).hash
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("videos", "P02", "validation.csv"):
        (tmp_path / name).rename(moved / name)
    assert load(moved / "validation.csv").hash == before
    text = (moved / "validation.csv").read_text()
    (moved / "validation.csv").write_text(text.replace("00:00:01.9", "00:00:01.8"))
    assert load(moved / "validation.csv").hash != before


def test_unknown_names(monkeypatch, tmp_path):
    with pytest.raises(DatasetError, match="no registered data set of actions; there are: .*epic_kitchens_validation"):
        load_action_set("nowhere", HEADS)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(DatasetError, match="EPIC_100_validation.csv: does not exist"):
        load_action_set("epic_kitchens_validation", HEADS)
