"""The eventful ViT against the reference sequences in tests/golden (vit_8x8*), frame by frame."""

import json

import numpy as np
import pytest
import torch
from eventful_vit import EventfulViT, Threshold, TopR, count_operations

OPTIONS = {
    "dense": {"enabled": False},
    "dense_pool2": {"enabled": False, "kv_pool": 2},
    "tokenwise": {"attention": "tokenwise"},
    "tokenwise_gate_before_ln": {"attention": "tokenwise", "gate_before_norm": True},
    "tokenwise_stgt": {"attention": "tokenwise", "gate_reference": "previous-frame"},
    "matmul1": {"attention": "query-key"},
    "temporal": {"attention": "full"},
    "temporal_all": {"attention": "full"},
    "temporal_threshold": {"attention": "full"},
    "temporal_budget": {"attention": "full"},
    "temporal_pool2": {"attention": "full", "kv_pool": 2},
}
CATEGORIES = {
    "linear_flops": "linear",
    "bias_flops": "bias",
    "matmul_flops": "matmul",
    "einsum_flops": "position",
    "add_flops": "add",
    "gate_flops": "gate",
    "accumulator_flops": "accumulator",
}
# Ten times the reference's own float32 rounding, a thousandth of the effect of one wrongly selected token.
ATOL, RTOL = 5e-5, 1e-4


@pytest.fixture(scope="module")
def reference(golden):
    return {
        "model": json.loads((golden / "vit_8x8.json").read_text()),
        "weights": {name: torch.from_numpy(w) for name, w in np.load(golden / "vit_8x8_weights.npz").items()},
        "sequence": dict(np.load(golden / "vit_8x8_sequence.npz")),
        "selections": json.loads((golden / "vit_8x8_selections.json").read_text())["selections"],
    }


def build(reference, **options) -> EventfulViT:
    model = reference["model"]["model"]
    names = ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "use_rel_pos", "window_size")
    vit = EventfulViT(
        img_size=64,
        window_block_indexes=model["window_block_indexes"],
        pretrain_img_size=model["pretrain_img_size"],
        **{name: model[name] for name in names},
        **options,
    )
    vit.load_state_dict(reference["weights"], strict=True)
    return vit.eval()


def policy_of(variant: dict, frame: int):
    value = variant["policy_value_per_frame"][frame]
    return Threshold(value) if variant["policy"] == "threshold" else TopR(int(value))


@pytest.mark.parametrize("name", OPTIONS)
def test_sequence_and_counts(reference, name):
    variant = reference["model"]["variants"][name]
    vit = build(reference, **OPTIONS[name])
    frames = torch.from_numpy(reference["sequence"]["frames"])
    for t, frame in enumerate(frames):
        if variant["policy"]:
            vit.set_policy(policy_of(variant, t))
        with torch.no_grad(), count_operations(vit) as counts:
            out = vit(frame[None])["last_feat"][0]
        expected = torch.from_numpy(reference["sequence"][f"out.{name}"][t])
        torch.testing.assert_close(out, expected, atol=ATOL, rtol=RTOL, msg=lambda m, t=t: f"frame {t}: {m}")
        check_counts(counts, variant["counts_per_frame"][t])


def check_counts(counts, expected: dict) -> None:
    ours = counts.by_category()
    for theirs, category in CATEGORIES.items():
        assert ours.get(category, 0) == expected.get(theirs, 0), category
    assert counts.backbone() == expected["total"]
    assert counts.total() - counts.backbone() == ours["embedding"]


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in ("dense", "dense_pool2", "temporal_all")])
def test_selected_tokens(reference, name):
    variant, vit = reference["model"]["variants"][name], build(reference, **OPTIONS[name])
    for t, frame in enumerate(torch.from_numpy(reference["sequence"]["frames"])):
        vit.set_policy(policy_of(variant, t))
        vit(frame[None])
        for gate, expected in reference["selections"][name][t].items():
            ours = vit.state.trace.gates.get(gate.removesuffix("_gate"))
            if ours is None or expected.get("zero_tie"):  # forced gates of the attention; arbitrary choices
                continue
            mask = ours.selection.mask()[0]
            assert mask.nonzero().flatten().tolist() == expected["index"], f"frame {t}, {gate}"


def test_every_block_output(reference):
    vit = build(reference, **OPTIONS["temporal"])
    vit.set_policy(TopR(16))
    expected = torch.from_numpy(reference["sequence"]["blocks.temporal"])
    outputs = []
    for block in vit.blocks:
        block.register_forward_hook(lambda block, args, output: outputs.append(output))
    for t, frame in enumerate(torch.from_numpy(reference["sequence"]["frames"])):
        outputs.clear()
        vit(frame[None])
        for i, out in enumerate(outputs):
            ours = out[0].t().unflatten(1, (8, 8))
            torch.testing.assert_close(ours, expected[t, i], atol=ATOL, rtol=RTOL)
