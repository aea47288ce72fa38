"""Launches and state on paper are those of a frame that runs."""

from __future__ import annotations

import importlib

import pytest
import torch
from eventful_vit import Streams
from eventful_vit.ops import gpu
from eventful_vit.ops.gpu.tuning import uses_library
from eventful_vitdet.gpu_report.frame_times import drifting_frames
from eventful_vitdet.gpu_report.machine import interpreted_operators
from eventful_vitdet.gpu_report.paper_traffic import (
    Shape,
    block_steps,
    embedding_steps,
    frame_table,
    state_bytes,
    vitdet_b,
)
from eventful_vitdet.gpu_report.report_models import ALL_BFLOAT16, BFLOAT16, FLOAT32, TINY, build_vit
from torch.utils._python_dispatch import TorchDispatchMode

SIZE = 24
NO_WORK = ("empty", "empty_like", "new_empty", "empty_strided", "detach")


class Launches(TorchDispatchMode):
    """Counts Triton kernels, and PyTorch operations that start a kernel, from the first Triton kernel on."""

    def __init__(self, monkeypatch) -> None:
        from triton.runtime.interpreter import GridExecutor

        super().__init__()
        self._inside = False
        self.clear()
        launch = GridExecutor.__call__

        def counted(executor, *args, **named):
            if executor.fn.__name__ == "_look":  # for values that are not finite, before the frame begins
                return launch(executor, *args, **named)
            self.kernels += 1
            self._inside = True
            try:
                return launch(executor, *args, **named)
            finally:
                self._inside = False

        monkeypatch.setattr(GridExecutor, "__call__", counted)

    def clear(self) -> None:
        self.kernels, self.others = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.partition("::")[2]
        if self.kernels and not self._inside and not func.is_view and name not in NO_WORK:
            self.others += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif(gpu.load_kernels() is None, reason=f"kernels do not run: {gpu.why_unavailable()}")
@pytest.mark.skipif(torch.cuda.is_available(), reason="launches are counted in the interpreter")
@pytest.mark.parametrize(
    ("form", "library"),
    [
        (BFLOAT16, True),
        (ALL_BFLOAT16, False),
        # What the library adds to a layer does not depend on the types beside it.
        pytest.param(BFLOAT16, False, marks=pytest.mark.long),
        pytest.param(ALL_BFLOAT16, True, marks=pytest.mark.long),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_launches_of_a_later_frame(form, library, monkeypatch):
    for module in ("eventful_vit.ops.gpu.linear", "eventful_vitdet.gpu_report.paper_traffic"):
        monkeypatch.setattr(importlib.import_module(module), "uses_library", lambda *_: library)
    cpu = torch.device("cpu")
    model = build_vit(TINY, SIZE, form, cpu, 3)
    frames, state = drifting_frames(2, 1, SIZE, form.tokens, cpu), Streams()
    with interpreted_operators(), torch.no_grad():
        model(frames[0], state)
        with Launches(monkeypatch) as launches:
            model(frames[1], state)  # which makes the numbers of its budget, as frames do that somebody watches
            launches.clear()
            model(frames[0], state)
    shape = Shape((3, 3), TINY["embed_dim"], TINY["num_heads"], 4 * TINY["embed_dim"], TINY["window_size"], 3, form)
    inputs = 3 * TINY["patch_size"] ** 2
    steps = [*embedding_steps(shape, inputs), *block_steps(shape, True), *block_steps(shape, False)]
    assert launches.kernels == sum(step.kernels for step in steps)
    assert launches.others == sum(step.others for step in steps)
    assert state.nbytes == state_bytes(shape, 1, 1)


def test_the_table_adds_up_and_grows_with_the_budget():
    *rows, total = frame_table(1024, 512, BFLOAT16)
    for key in ("kernels", "others", "read", "written"):
        assert total[key] == sum(row[key] for row in rows) > 0
    assert frame_table(1024, 256, BFLOAT16)[-1]["read"] < total["read"]
    # Types are converted within the kernels: what is left are, in each block, flags set to zero, and the products of
    # three linear layers in the library, and one of the embedding's if that has it, too.
    by_library = 12 * 3 + uses_library(4096, 768, 768, True)
    assert frame_table(1024, 512, ALL_BFLOAT16)[-1]["others"] == total["others"] == 12 + by_library
    gates = next(row for row in rows if row["operator"] == "gate: error norms")
    # Of 36 gates, 24 compare 4096 tokens of 768 float32 values with references in bfloat16, and half of these add a
    # buffer first; the others compare bfloat16 with bfloat16.
    assert gates["kernels"] == 36 and gates["read"] == pytest.approx(36 * 4096 * 768 * 6, rel=1e-3)


def test_state_of_vitdet_b_and_forms_that_have_no_paper():
    assert state_bytes(vitdet_b(1024, 512, BFLOAT16), 8, 4) / 1e9 == pytest.approx(0.707, abs=1e-3)
    with pytest.raises(ValueError, match="float32: linear layers of float32 run in PyTorch's library"):
        vitdet_b(1024, 512, FLOAT32)
