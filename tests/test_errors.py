"""Which errors are the user's, how they read, and that none of ours is raised as a plain one."""

import ast
import inspect
import pickle
import re
from pathlib import Path

import eventful_vitdet
import pytest
from eventful_vitdet import errors
from eventful_vitdet.errors import (
    DISK_FULL,
    ConfigError,
    FileError,
    UserError,
    VideoReadError,
    describe_error,
    is_for_user,
)

PACKAGE = Path(eventful_vitdet.__file__).parent
PLAIN = ("ValueError", "KeyError", "OSError", "RuntimeError", "FileNotFoundError", "PermissionError", "Exception")
FOR_A_USER = re.compile(r"--[a-z]|\b(MODEL|INPUT|DATASETS|DATALOADER|SOLVER|TEST)\.[A-Z]|OUTPUT_DIR")


def test_errors_are_described_in_one_line():
    assert describe_error(ValueError("first\n  second  line\n")) == "first second  line"
    assert describe_error(EOFError()) == "EOFError"
    assert describe_error(ValueError("the name \x1b[31mred\x07 and ü")) == r"the name \x1b[31mred\x07 and ü"
    worker = (
        "Caught VideoReadError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  ...\n"
    )
    assert describe_error(VideoReadError(worker + "data.VideoReadError: a: b.mp4: damaged\n")) == "a: b.mp4: damaged"
    assert describe_error(FileError(13, "Permission denied", "a/b")) == "a/b: Permission denied"
    assert describe_error(FileError("a/b: is a folder")) == "a/b: is a folder"


def test_all_classes_but_plain_ones_are_for_the_user():
    classes = [value for _, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__]
    assert len(classes) > 10 and all(issubclass(value, UserError) for value in classes)
    assert issubclass(ConfigError, ValueError) and issubclass(FileError, OSError)  # for those who catch Python's own


def test_a_full_disk_is_for_the_user_whoever_meets_it():
    assert all(is_for_user(OSError(number, "full")) for number in DISK_FULL)
    assert not is_for_user(OSError(2, "No such file")) and not is_for_user(None) and not is_for_user(ValueError("x"))


@pytest.mark.parametrize("error", [FileError(13, "Permission denied", "x"), ConfigError("x"), FileError("x")])
def test_errors_survive_the_way_between_processes(error):
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is type(error) and describe_error(copied) == describe_error(error)


def test_what_names_a_key_or_an_option_is_raised_as_the_users_error():
    """Plain errors are shown as defects: a message about a key or an option belongs to a class of errors.py.

    The embedded part of Detectron2 knows no such class; `config_errors` speaks for it.
    """
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0]
        if part == "embedded":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
                continue
            name = ast.unparse(node.exc.func)
            texts = [n.value for n in ast.walk(node.exc) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            if name in PLAIN and FOR_A_USER.search(" ".join(texts)):
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {name}")
    assert found == []
