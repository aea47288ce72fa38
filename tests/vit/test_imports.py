"""What importing eventful_vit brings, in one fresh process: importing PyTorch takes seconds."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys, torch
before, path = set(sys.modules), list(sys.path)
import eventful_vit
new = {name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
of_torch = {"torch", "triton"} | ({"sympy", "mpmath"} if torch.__version__.startswith("2.4.") else set())
assert new - of_torch == {"eventful_vit"}, new
assert path == sys.path

from eventful_vit.ops.cpu.build import load_library
assert not load_library.cache_info().currsize  # nothing is compiled where no CPU tensor needs it

try:
    eventful_vit.make_eventful(torch.nn.Linear(2, 2))
except ValueError as error:
    assert "known are timm's" in str(error)
else:
    raise AssertionError
assert not {"timm", "transformers", "torchvision", "segment_anything"} & set(sys.modules)
"""


@pytest.mark.skipif(not hasattr(sys, "stdlib_module_names"), reason="needs Python 3.10, which lists its modules")
def test_nothing_but_torch_is_imported_and_nothing_compiled():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
