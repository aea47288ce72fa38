from __future__ import annotations

import cv2
import pytest
from draw.conftest import CONFIG, picture
from eventful_vitdet.cli.figure_command import execute, parse
from eventful_vitdet.errors import VideoReadError


def test_it_wants_a_detector_for_its_video(repository, tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse(["--input", "v.mp4"])
    assert "--input and --config-file belong together" in capsys.readouterr().err
    assert parse([]).frames == 180
    with pytest.raises(SystemExit):
        parse(["--frames", "0"])
    assert "'0' is not a number, 1 or larger" in capsys.readouterr().err
    arguments = parse(["--config-file", str(repository / CONFIG), "--input", str(repository)])
    with pytest.raises(VideoReadError, match="no image and no video"):
        execute(arguments)
    cv2.imwrite(str(tmp_path / "0.png"), picture(0))
    arguments.input, arguments.budget = str(tmp_path / "0.png"), "5"
    with pytest.raises(ValueError, match="MODEL.WEIGHTS is empty"):
        execute(arguments)
