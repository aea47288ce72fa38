"""PyTorch's compilers and exporters: they take the dense model, and leave the eventful one as it is."""

import io

import pytest
import torch
from eventful_vit import TopR, make_eventful
from torch._dynamo.utils import counters

from .adapters.tiny_library_models import timm_vit, tiny_video
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


def compiled_features(vit, video):
    """Features of a model's frames that `torch.compile` was called on; it has nothing to do after the first two."""
    torch.compiler.reset()
    compiled, features, attempts = torch.compile(vit, backend="eager"), [], []
    for frame in video:
        features.append(compiled(frame[None]))
        attempts.append(counters["frames"]["total"])
    assert attempts[1] > 0 and attempts[1] == attempts[-1]
    return features


@pytest.mark.parametrize("grad", [True, False])
def test_an_eventful_model_may_be_compiled_around(grad):
    video = make_video(5)
    expected = run(make_vit(policy=TopR(6)), video)
    with torch.set_grad_enabled(grad):
        features = compiled_features(make_vit(policy=TopR(6)), video)
    torch.testing.assert_close(torch.cat([maps["last_feat"] for maps in features]), expected, **CLOSE)


def test_an_adapted_model_may_be_compiled_around():
    vit, video = timm_vit(), tiny_video(5)[:, 0]
    plain, around = make_eventful(vit, policy=TopR(4)), make_eventful(vit, policy=TopR(4))
    with torch.no_grad():
        expected, features = [plain(frame[None]) for frame in video], compiled_features(around, video)
    torch.testing.assert_close(torch.cat(features), torch.cat(expected), **CLOSE)
