"""What is told before anything is written."""

from __future__ import annotations

import os

import pytest
from eventful_vitdet.draw.annotated_video import AnnotateOptions
from eventful_vitdet.draw.frame_files import check_files
from eventful_vitdet.errors import VideoWriteError
from eventful_vitdet.video import ImageSource


@pytest.mark.parametrize("make", [os.link, os.symlink])
def test_an_input_is_not_overwritten_under_another_name(tmp_path, make):
    video, other = str(tmp_path / "in.mp4"), str(tmp_path / "other.mp4")
    with open(video, "wb"):
        pass
    make(video, other)
    source = ImageSource([video], [1], video)
    for options, output in ((AnnotateOptions(), other), (AnnotateOptions(save_json=other), str(tmp_path / "o.mp4"))):
        with pytest.raises(VideoWriteError, match="other.mp4: is the input itself, or a part of it; write to another"):
            check_files(source, output, options)
    new = str(tmp_path / "new.mp4")
    check_files(source, new, AnnotateOptions())
    with pytest.raises(VideoWriteError, match="new.mp4: is given for two outputs"):
        check_files(source, new, AnnotateOptions(save_json=new))
