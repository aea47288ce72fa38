"""tools/check_dataset.py for data sets of clips."""

from eventful_vitdet.cli.check_dataset_command import main


def test_the_exit_code_says_whether_all_is_well(clips_csv, capsys):
    assert main([str(clips_csv)]) == 0
    text = capsys.readouterr().out
    assert "complete; every clip was decoded" in text
    # 30 + 30 frames of a second, 27 of nine tenths.
    assert [line.split()[-1] for line in text.splitlines() if line.startswith(("clips", "frames"))] == ["3", "87"]
    assert "classes of verb" in text

    (clips_csv.parent / "P02" / "videos" / "P02_01.MP4").write_bytes(b"nothing")
    assert main([str(clips_csv), "--quick"]) == 0
    assert main([str(clips_csv)]) == 1
    text = capsys.readouterr().out
    assert f"clip b cannot be used: {clips_csv}, line 3: " in text and "NOT complete: 1 clips cannot be used" in text

    (clips_csv.parent / "P02" / "videos" / "P02_01.MP4").unlink()
    assert main([str(clips_csv), "--quick"]) == 1
    assert "line 3: there is no video" in capsys.readouterr().out


def test_classes_outside_the_head_are_refused(clips_csv, capsys):
    assert main([str(clips_csv), "--quick", "MODEL.VIVIT.CLASSES", '[["verb", 3], ["noun", 3]]']) == 1
    assert "line 4: column verb_class has 3, but there are 3 classes, 0 to 2" in capsys.readouterr().err


def test_known_numbers(clips_csv, monkeypatch, capsys):
    folder = clips_csv.parent.rename(clips_csv.parent.with_name("epic_kitchens"))
    (folder / "validation.csv").rename(folder / "EPIC_100_validation.csv")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(folder.parent))
    assert main(["epic_kitchens_validation", "--quick"]) == 1
    assert "9,668 clips are known" in capsys.readouterr().out
    assert main(["epic_kitchens_validation", "--quick", "--part"]) == 0
