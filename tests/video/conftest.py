"""The videos of the data sets' tests serve here too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the tests' folder, whatever pytest's import mode

from data.conftest import HEIGHT, WIDTH, frame_number, grey_frame, make_frame, write_video  # noqa: E402

__all__ = ["HEIGHT", "WIDTH", "frame_number", "grey_frame", "make_frame", "write_video"]
