"""Reading frames of files, folders, streams and cameras, and writing videos.

`read_frame` and `iterate_frames` are for everybody: they give RGB images. Sources and writers, and all other parts of
the package, exchange BGR images. All are uint8, (H, W, 3).
"""

from .file_source import FileSource
from .image_files import encode_jpeg, encode_png, read_image_file
from .image_source import ImageSource
from .json_lines import CsvWriter, JsonLinesWriter
from .opening import check_distinct, open_source, open_sources
from .sound_copy import SoundCopy
from .source import VideoSource, check_part
from .stream_source import StreamSource
from .video_file import NumberedImage, VideoFile, VideoInfo, iterate_frames, probe_video, read_frame
from .video_writer import VideoWriter

__all__ = [
    "CsvWriter",
    "FileSource",
    "ImageSource",
    "JsonLinesWriter",
    "NumberedImage",
    "SoundCopy",
    "StreamSource",
    "VideoFile",
    "VideoInfo",
    "VideoSource",
    "VideoWriter",
    "check_part",
    "encode_jpeg",
    "encode_png",
    "iterate_frames",
    "check_distinct",
    "open_source",
    "open_sources",
    "probe_video",
    "read_frame",
    "read_image_file",
]
