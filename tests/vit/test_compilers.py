"""PyTorch's compilers and exporters: they take the dense model, and leave the eventful one as it is."""

import io

import pytest
import torch
from eventful_vit import TopR

from .small_models import CLOSE, dense, make_video, make_vit, run


def dense_model():
    return make_vit(enabled=False)


@pytest.mark.parametrize("grad", [True, False])
def test_compiled(grad):
    vit, frame = dense_model(), make_video(1)
    expected = dense(make_vit(), frame)
    torch.compiler.reset()
    compiled = torch.compile(vit, fullgraph=True, backend="aot_eager")
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(compiled(frame)["last_feat"].detach(), expected, **CLOSE)


def test_exported():
    vit, frame = dense_model(), make_video(1)
    program = torch.export.export(vit, (frame,))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    again = torch.export.load(file).module()
    torch.testing.assert_close(again(frame)["last_feat"].detach(), dense(make_vit(), frame), **CLOSE)


@pytest.mark.filterwarnings("ignore")
def test_traced():
    vit, frame = dense_model(), make_video(2)
    with torch.no_grad():
        traced = torch.jit.trace(vit, frame[:1], strict=False)
        torch.testing.assert_close(traced(frame[1:])["last_feat"], dense(make_vit(), frame[1:]), **CLOSE)


@pytest.mark.filterwarnings("ignore")
def test_a_frame_with_state_cannot_be_traced():
    with pytest.raises(RuntimeError, match="set model.enabled = False to trace the dense model"):
        torch.jit.trace(make_vit(), make_video(1), strict=False)


@pytest.mark.skipif(torch.__version__.startswith("2.4."), reason="needs torch 2.5 or later: Dynamo of 2.4 fails in it")
def test_an_eventful_model_may_be_compiled_around():
    vit, video = make_vit(policy=TopR(6)), make_video(4)
    expected = run(make_vit(policy=TopR(6)), video)
    compiled = torch.compile(vit, backend="eager")
    torch.testing.assert_close(torch.cat([compiled(frame[None])["last_feat"] for frame in video]), expected, **CLOSE)
