"""Which types rows have on their way through a block whose products are computed in a short type."""

import pytest
import torch
from eventful_vit import TopR

from .small_models import make_video, make_vit

SIZE = (32, 48)


def run_frames(vit):
    with torch.no_grad():
        return [vit(frame[None])["last_feat"] for frame in make_video(3, size=SIZE)]


def layer(vit, name):
    block = vit.blocks[0]
    return {"qkv": block.attn.qkv, "projection": block.attn.proj, "first": block.mlp.fc1}[name]


@pytest.mark.parametrize(
    "name, enabled", [("qkv", True), ("projection", True), ("first", True), ("qkv", False), ("first", False)]
)
@pytest.mark.parametrize("state_dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("before_norm", [False, True])
def test_a_layer_with_a_hook_is_given_rows_as_the_tokens_are(name, enabled, state_dtype, before_norm):
    """Its own code decides what to do with them; known layers round them to the type of the products."""
    options = {
        "policy": TopR(5), "state_dtype": state_dtype, "compute_dtype": torch.bfloat16, "gate_before_norm": before_norm
    }  # fmt: skip
    seen = []
    vit = make_vit(SIZE, **options, enabled=enabled)
    layer(vit, name).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dtype))
    run_frames(vit)
    assert set(seen) == {torch.float32} and len(seen) >= 3


def test_state_has_its_own_type():
    """That of the tokens, whatever the products' type is, unless it is given one."""
    for state_dtype in (None, torch.bfloat16):
        vit = make_vit(SIZE, policy=TopR(5), state_dtype=state_dtype, compute_dtype=torch.float16)
        assert all(features.dtype is torch.float32 for features in run_frames(vit))
        for name, slot in vit.state._slots.items():
            kept = ("sums", "normalisers", "references", "drift")
            expected = torch.float32 if name.endswith(kept) else state_dtype or torch.float32
            assert slot.dtype is expected, name
