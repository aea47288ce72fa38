"""Image files as frames: stacks and animations page by page, with their times."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from eventful_vitdet.errors import VideoReadError
from eventful_vitdet.video import ImageSource, open_source, read_image_file
from eventful_vitdet.video.image_files import count_pages
from PIL import Image, TiffImagePlugin

from .conftest import frame_number, grey_frame

LOSSLESS = {"webp": {"lossless": True}, "avif": {"quality": 100}}


def save_pages(path, count: int, duration: int | None = None):
    pages = [Image.fromarray(grey_frame(number)) for number in range(count)]
    # So that pages differ in more than their level, which some formats would join.
    for number, page in enumerate(pages):
        page.putpixel((number, 0), (255, 0, 0))
    more = {} if duration is None else {"duration": duration}
    pages[0].save(path, save_all=True, append_images=pages[1:], **more, **LOSSLESS.get(path.suffix[1:], {}))
    return path


@pytest.mark.parametrize("suffix", ["tif", "webp", "gif", "png"])
def test_all_pages_are_frames(tmp_path, suffix):
    path = save_pages(tmp_path / f"stack.{suffix}", 5, None if suffix == "tif" else 200)
    source = open_source(str(path))
    assert isinstance(source, ImageSource) and (source.num_frames, source.name) == (5, str(path))
    frames = list(source.frames())
    assert [frame_number(frame.image) for frame in frames] == [0, 1, 2, 3, 4]
    step = 1 / 30 if suffix == "tif" else 0.2
    assert [frame.seconds for frame in frames] == pytest.approx([step * i for i in range(5)])
    assert [(f.index, f.step, frame_number(f.image)) for f in source.frames(1, 2)] == [(1, 2, 1), (3, 2, 3)]
    assert frame_number(read_image_file(str(path))) == 0  # as a data set lists it


def test_stacks_in_a_folder_of_images(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), grey_frame(7))
    save_pages(tmp_path / "1.tif", 3)
    cv2.imwrite(str(tmp_path / "2.png"), grey_frame(8))
    source = open_source(str(tmp_path))
    assert source.num_frames == 5
    assert [frame_number(frame.image) for frame in source.frames()] == [7, 0, 1, 2, 8]
    assert [(frame.index, frame_number(frame.image)) for frame in source.frames(3)] == [(3, 2), (4, 8)]


def test_smaller_copies_and_previews_are_no_frames(tmp_path):
    page, small = Image.fromarray(grey_frame(3)), Image.fromarray(grey_frame(3, 32, 24))
    with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / "pyramid.tif"), new=True) as file:
        page.save(file, "TIFF")
        file.newFrame()
        small.save(file, "TIFF", tiffinfo={254: 1})
    with Image.open(tmp_path / "pyramid.tif") as image:
        assert image.n_frames == 2
    assert count_pages(str(tmp_path / "pyramid.tif")) == 1
    page.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[small])
    with Image.open(tmp_path / "phone.jpg") as image:
        assert image.n_frames == 2
    assert count_pages(str(tmp_path / "phone.jpg")) == 1


def test_a_picture_in_place_of_an_animation_is_no_frame(tmp_path):
    first, *pages = [Image.fromarray(grey_frame(number)) for number in range(4)]
    path = str(tmp_path / "v.png")
    first.save(path, save_all=True, append_images=pages, default_image=True, duration=[100, 200, 300])
    frames = list(open_source(path).frames())
    assert [frame_number(frame.image) for frame in frames] == [1, 2, 3]
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.1, 0.3])


def test_a_stack_that_is_cut_short(tmp_path):
    path = save_pages(tmp_path / "stack.gif", 5, 100)
    path.write_bytes(path.read_bytes()[:-300])
    seen = []
    with pytest.raises(VideoReadError, match=r"stack\.gif: cannot be read as an image"):
        seen.extend(frame_number(frame.image) for frame in open_source(str(path)).frames())
    assert seen == list(range(len(seen)))


def test_orientation(tmp_path):
    image = Image.fromarray(np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3))
    exif = Image.Exif()
    exif[274] = 6
    image.save(tmp_path / "a.png", exif=exif)
    assert read_image_file(str(tmp_path / "a.png")).shape == (64, 48, 3)
    assert read_image_file(str(tmp_path / "a.png"), upright=False).shape == (48, 64, 3)
