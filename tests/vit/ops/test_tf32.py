"""PyTorch's settings for TF32, in its older terms and in its newer ones."""

import json
import subprocess
import sys

import pytest
import torch
from eventful_vit.ops import tf32

OLD = [
    ("torch.backends.cuda.matmul.allow_tf32 = True", (True, True)),
    ("torch.set_float32_matmul_precision('high')", (True, True)),
    ("torch.backends.cudnn.allow_tf32 = False", (False, False)),
]
NEW = [
    ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", (True, True)),
    ("torch.backends.cudnn.conv.fp32_precision = 'ieee'", (False, False)),
    ("torch.backends.fp32_precision = 'tf32'", (True, True)),
    ("torch.backends.fp32_precision = 'ieee'", (False, False)),
]
STATEMENTS = OLD + (NEW if hasattr(torch.backends.cuda.matmul, "fp32_precision") else [])
IN_FORKS = """
import json, os, sys, torch
from eventful_vit.ops import tf32
for statement in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        exec(statement)
        print(json.dumps(tf32.settings()), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, statement
"""
"""A program that runs each statement in a process of its own, since PyTorch cannot take back the newer ones. They are
forked: importing PyTorch takes seconds."""


def test_what_pytorch_begins_with():
    assert tf32.settings() == (False, True)


def test_switched_off_for_a_while():
    before = tf32.settings()
    with pytest.raises(ZeroDivisionError), tf32.switched_off():
        assert tf32.settings() == (False, False)
        raise ZeroDivisionError
    assert tf32.settings() == before


@pytest.fixture(scope="module")
def found():
    """What the settings are after each statement."""
    words = [sys.executable, "-c", IN_FORKS, *dict(STATEMENTS)]
    lines = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return dict(zip(dict(STATEMENTS), map(tuple, map(json.loads, lines))))


@pytest.mark.parametrize(("statement", "settings"), STATEMENTS)
def test_settings(statement, settings, found):
    assert found[statement] == settings
