from __future__ import annotations

import json

from data.test_plain_coco import export
from eventful_vitdet.cli.convert_coco_command import main


def test_what_was_made_and_what_looks_wrong(tmp_path, capsys):
    source = tmp_path / "result.json"
    source.write_text(json.dumps(export(["a_1.png", "a_2.png", "b_1.png"])))
    assert main([str(source), str(tmp_path / "annotations" / "out.json")]) == 0
    text = capsys.readouterr().out
    assert "2 videos, 3 frames, 3 boxes, 2 tracks; file names start from" in text
    assert "note: 3 of the files are not there; --images or --root" in text and "one frame only" not in text
    names = ["1_left.png", "2_right.png", "3_up.png"]
    source.write_text(json.dumps(export([f"{i}/{name}" for i, name in enumerate(names)])))
    assert main([str(source), str(tmp_path / "out.json")]) == 0
    assert "note: 3 of the videos have one frame only; --pattern" in capsys.readouterr().out


def test_a_mistake_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "absent.json"), str(tmp_path / "out.json")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/absent.json: cannot read the annotation file")
