"""Reading frames of files, folders, streams and cameras, and writing videos. Images are BGR uint8, (H, W, 3)."""

import os

# Failures are reported in a line of our own; OpenCV's FFmpeg, which looks here at its first use, prints more.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

from .file_source import FileSource  # noqa: E402
from .image_files import encode_jpeg, encode_png, read_image_file  # noqa: E402
from .image_source import ImageSource  # noqa: E402
from .json_lines import JsonLinesWriter  # noqa: E402
from .opening import open_source  # noqa: E402
from .reading import VideoInfo, check_size, decode_video, iterate_frames, probe_video, read_frame  # noqa: E402
from .source import VideoSource  # noqa: E402
from .stream_source import StreamSource  # noqa: E402
from .video_writer import VideoWriter  # noqa: E402

__all__ = [
    "FileSource",
    "ImageSource",
    "JsonLinesWriter",
    "StreamSource",
    "VideoInfo",
    "VideoSource",
    "VideoWriter",
    "check_size",
    "decode_video",
    "encode_jpeg",
    "encode_png",
    "iterate_frames",
    "open_source",
    "probe_video",
    "read_frame",
    "read_image_file",
]
