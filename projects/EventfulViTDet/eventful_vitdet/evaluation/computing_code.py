"""A hash of the code that detections and counts come from; comments and layout do not change it."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import detectron2
import eventful_vit

OURS = (
    "modeling",
    "video",
    "budget_words.py",
    "budgets.py",
    "masks.py",
    "structures.py",
    "timing.py",
    "data/input_preparation.py",
    "data/listed_frames.py",
    "data/video_shards.py",
    "data/video_test_loader.py",
    "evaluation/detection_table.py",
    "evaluation/recorder.py",
    "evaluation/run.py",
    "evaluation/stored_detections.py",
    "evaluation/timed_frames.py",
)
"""Files and folders of this package that a frame passes on its way from the video to the record."""
DETECTRON2 = ("layers", "modeling", "structures")
"""Those of Detectron2."""


def hash_our_code(names: Iterable[str] = OURS) -> str:
    """A hash of files and folders of this package: those that a frame passes on its way from the video to the record,
    or others."""
    return hash_code(Path(__file__).resolve().parents[1], names)


def hash_transformer() -> str:
    """The same for all of `eventful_vit`; the fingerprint has an entry of its own for its compiled kernels."""
    return hash_code(Path(eventful_vit.__file__).resolve().parent, ["."])


def hash_detectron2() -> str:
    """The same for Detectron2, the embedded part or an installed one."""
    return hash_code(Path(detectron2.__file__).resolve().parent, DETECTRON2)


def hash_code(package: Path, names: Iterable[str]) -> str:
    """A hash of some modules, and folders of modules, of a package. Raises FileNotFoundError if one is not there."""
    digest = hashlib.blake2b(digest_size=4)
    for name in names:
        path = package / name
        if not path.exists():
            raise FileNotFoundError(f"{path}: is listed as code that results depend on, but is not there")
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(package).as_posix().encode() + _hash_source(file.read_bytes()))
    return digest.hexdigest()


@functools.cache
def _hash_source(source: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for word in describe_tree(ast.parse(source)):
        digest.update(word.encode(errors="surrogatepass") + b"\0")
    return digest.digest()


def describe_tree(node: ast.AST) -> Iterator[str]:
    """A syntax tree as words, in order. Docstrings are left out, and so are fields that only some versions of Python
    have, which are empty in code that all versions read."""
    yield type(node).__name__
    for name, value in ast.iter_fields(node):
        items = value if isinstance(value, list) else [value]
        items = [item for item in items if item is not None and not _is_text_alone(item)]
        if items:
            yield name
        for item in items:
            if isinstance(item, ast.AST):
                yield from describe_tree(item)
            else:
                yield repr(item)
    yield "."


def _is_text_alone(node: object) -> bool:
    """Whether this is a statement that consists of a string: a docstring, or the description of an attribute."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
