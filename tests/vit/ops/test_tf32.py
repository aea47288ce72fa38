"""PyTorch's settings for TF32, in its older terms and in its newer ones."""

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
HAS_NEW = hasattr(torch.backends.cuda.matmul, "fp32_precision")


def test_what_pytorch_begins_with():
    assert tf32.settings() == (False, True)


@pytest.mark.parametrize(("statement", "settings"), OLD + (NEW if HAS_NEW else []))
def test_settings(statement, settings):
    """In a process of its own: PyTorch cannot take back the newer ones."""
    code = f"import torch; {statement}; from eventful_vit.ops import tf32; assert tf32.settings() == {settings}"
    subprocess.run([sys.executable, "-c", code], check=True)
