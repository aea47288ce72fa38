from __future__ import annotations

import json
import os

import pytest
from eventful_vitdet.errors import VideoWriteError
from eventful_vitdet.video import JsonLinesWriter


def test_json_lines_are_whole(tmp_path):
    path = tmp_path / "folder" / "d.jsonl"
    with pytest.raises(KeyboardInterrupt), JsonLinesWriter(str(path)) as lines:
        lines.write({"frame": 0})
        lines.write({"frame": 1})
        raise KeyboardInterrupt
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"frame": 0}, {"frame": 1}]
    with pytest.raises(ValueError), JsonLinesWriter(str(path)) as lines:
        lines.write({"score": float("nan")})
    assert os.listdir(path.parent) == ["d.jsonl"] and path.read_text().count("\n") == 2


def test_json_lines_on_a_full_disk(tmp_path):
    path = tmp_path / "d.jsonl"
    with pytest.raises(VideoWriteError, match=r"d\.jsonl: cannot be written any further"):
        with JsonLinesWriter(str(path)) as lines:
            lines.write({"frame": 0})
            whole = lines._file
            lines._file = HalfFull(whole)
            lines.write({"frame": 1})
    assert path.read_text() == '{"frame": 0}\n'


class HalfFull:
    def __init__(self, file) -> None:
        self.file = file

    def write(self, data: bytes) -> int:
        return self.file.write(data[: len(data) // 2])

    def __getattr__(self, name: str):
        return getattr(self.file, name)
