"""The videos of the data sets' tests serve here too."""

from data.conftest import HEIGHT, WIDTH, frame_number, grey_frame, make_frame, write_video

__all__ = ["HEIGHT", "WIDTH", "frame_number", "grey_frame", "make_frame", "write_video"]
