"""What a file is by its first bytes, for the message about a file that is not what its name says."""

from __future__ import annotations

HEAD_BYTES = 512
"""How much of the beginning of a file is looked at."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/"

_BY_FIRST_BYTES = (
    (LFS_POINTER, "a Git LFS pointer, not the file itself: run 'git lfs pull', or download the file"),
    (b"\x1f\x8b", "a gzip file: unpack it first"),
    (b"BZh", "a bzip2 file: unpack it first"),
    (b"\xfd7zXZ\x00", "an xz file: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"Rar!", "a rar archive: unpack it first"),
    (b"%PDF", "a PDF document: download the file again"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, h5py)"),
    (b"\x93NUMPY", "a single NumPy array"),
    (b"GGUF", "a GGUF file, of a language model"),
    (b"<?xml", "an XML document; perhaps a server's error message: download the file again"),
)


def describe_foreign(head: bytes) -> str | None:
    """What a file is that begins with `head`, and what to do about it; None for a kind that is not known here.

    Covers what downloads and version control leave in place of a file, and archives around it.
    """
    if not head:
        return "an empty file: download or copy it again"
    if not head.strip(b"\x00"):
        return "a file that begins with nothing but zero bytes: the download or copy was interrupted"
    for signature, description in _BY_FIRST_BYTES:
        if head.startswith(signature):
            return description
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<!--")):
        return "an HTML page, not the file itself: the address shows a page, perhaps a warning or a login"
    return None


def read_head(path: str) -> bytes:
    """The first bytes of a file. Raises OSError."""
    with open(path, "rb") as file:
        return file.read(HEAD_BYTES)
