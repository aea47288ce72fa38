"""Other types, autocast, copies, pickles, subclasses, hooks, and weights that change in mid-stream."""

import contextlib
import copy
import gc
import io
import multiprocessing
import os
import signal

import pytest
import torch
from eventful_vit import EventfulViT, TopR, count_operations, weights
from eventful_vit.layers import Mlp, run_mlp
from eventful_vit.models.vitdet_layers import Attention, PatchEmbed
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .small_models import CLOSE, dense, flushed, make_video, make_vit, randomise, run

pytestmark = pytest.mark.usefixtures("kernels_or_not")

TYPES = {torch.float32: 2e-5, torch.float64: 1e-9, torch.bfloat16: 0.1, torch.float16: 0.02}
"""How far frames may be from float64, relative to the largest value: 2^-8 and 2^-11 a rounding, dozens of them."""


# Types and ways to get a model.


def fresh(dtype=torch.float32):
    return make_vit(policy=TopR(12)).to(dtype)


def copied(dtype):
    vit = fresh(dtype)
    run(vit, make_video(3).to(dtype))
    return copy.deepcopy(vit)


def saved(dtype):
    vit = fresh(dtype)
    run(vit, make_video(3).to(dtype))
    file = io.BytesIO()
    torch.save(vit, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def built_in_inference_mode(dtype):
    with torch.inference_mode():
        return fresh(dtype)


def loaded(dtype):
    vit, other = fresh(dtype), fresh(dtype)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.zero_()
    run(vit, make_video(2).to(dtype))
    vit.load_state_dict(other.state_dict())
    return vit


class OwnMlp(Mlp):
    def forward(self, x):
        return super().forward(x)


def with_own_parts(dtype):
    vit = fresh(dtype)
    for block in vit.blocks:
        own = OwnMlp(24, 96)
        own.load_state_dict(block.mlp.state_dict())
        block.mlp = own.to(dtype)
    return vit.eval()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("make", [fresh, copied, saved, built_in_inference_mode, loaded, with_own_parts])
def test_every_type_every_way(dtype, autocast, make):
    """Eventful frames with all tokens selected are the dense model in float64, to the rounding of the type."""
    if autocast and dtype is not torch.float32:
        pytest.skip("autocast is for float32 models")
    video = make_video(4)
    expected = dense(fresh(torch.float64), video.double())
    vit = make(dtype)
    vit.set_policy(TopR(35))
    context = torch.autocast("cpu", dtype=torch.bfloat16) if autocast else contextlib.nullcontext()
    with context:
        outputs = [run(vit, video.to(dtype)), dense(vit, video.to(dtype))]
    tolerance = TYPES[torch.bfloat16] if autocast else TYPES[dtype]
    for out in outputs:
        assert (out.double() - expected).abs().max() < tolerance * expected.abs().max()


@pytest.mark.parametrize("dtype", TYPES)
def test_a_few_tokens_in_every_type(dtype):
    """Selections differ where errors are nearly equal, so this holds only that frames stay near the dense ones."""
    video = make_video(8)
    reference = run(make_vit(policy=TopR(12)), video)
    out = run(make_vit(policy=TopR(12)).to(dtype), video.to(dtype))
    assert out.dtype == dtype
    assert (out.float() - reference).abs().mean() < 0.05 * reference.abs().mean()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("compute_dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("enabled", [True, False])
def test_frames_of_another_type_under_autocast(dtype, compute_dtype, enabled):
    """Tokens have the type of the weights, as those of any frame."""
    vit, video = make_vit(policy=TopR(12), compute_dtype=compute_dtype, enabled=enabled), make_video(3).to(dtype)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        out = run(vit, video)
        vit.reset()
        assert out.dtype is torch.float32 and torch.equal(out, run(vit, video.float()))
        with pytest.raises(ValueError, match="got torch.uint8"):
            vit(video[:1].to(torch.uint8))


@pytest.mark.parametrize("weights, products", [(torch.float16, torch.bfloat16), (torch.bfloat16, torch.float16)])
@pytest.mark.parametrize("enabled", [True, False])
def test_weights_and_products_of_two_short_types(weights, products, enabled):
    """The residual stream keeps the type of the weights."""
    video, expected = make_video(3), dense(make_vit(), make_video(3))
    vit = make_vit(policy=TopR(35), compute_dtype=products, enabled=enabled).to(weights)
    with torch.no_grad():
        out = run(vit, video.to(weights))
    assert out.dtype is weights
    assert (out.float() - expected).abs().max() < TYPES[torch.bfloat16] * expected.abs().max()


def test_a_bright_frame_in_half_precision():
    """The sum of its values is infinite in float16, none of them is."""
    vit = make_vit(policy=TopR(12)).half()
    out = vit(torch.full((1, 3, 40, 56), 200.0, dtype=torch.float16))["last_feat"]
    assert out.isfinite().all()
    with pytest.raises(ValueError, match="NaN or infinity"):
        vit(torch.full((1, 3, 40, 56), torch.inf, dtype=torch.float16))


# Copies.


def test_copies_are_independent():
    vit, video = make_vit(policy=TopR(6)), make_video(6)
    run(vit, video[:3])
    twin = copy.deepcopy(vit)
    shared = copy.deepcopy(vit, {id(p): p for p in vit.parameters()})
    assert twin.state.nbytes == shared.state.nbytes == 0
    with torch.no_grad():
        twin.blocks[0].mlp.fc1.weight.mul_(2)
    expected = run(make_vit(policy=TopR(6)), video)
    assert torch.equal(run(vit, video[3:]), expected[3:])
    assert torch.equal(run(shared, video), expected)
    assert not torch.equal(run(twin, video), expected)
    assert shared.blocks[0].mlp.fc1.weight is vit.blocks[0].mlp.fc1.weight


def test_what_is_derived_from_weights_goes_with_them():
    from eventful_vit.ops import derived

    gc.collect()
    before = len(derived._entries)
    vit = make_vit(compute_dtype=torch.bfloat16)
    run(vit, make_video(2))
    assert len(derived._entries) > before
    del vit
    assert len(derived._entries) == before


def test_what_is_derived_for_frames_of_many_sizes_is_bounded():
    from eventful_vit.ops import derived

    vit = make_vit(policy=TopR(6))
    for tokens in range(2, 3 + 2 * derived.MAX_KINDS):
        vit.reset()
        vit(torch.randn(1, 3, 8, 8 * tokens))
    parameters = [parameter for name, parameter in vit.named_parameters() if "rel_pos_w" in name or name == "pos_embed"]
    kept = [len(derived._entries[id(parameter)].values) for parameter in parameters]
    assert max(kept) == derived.MAX_KINDS
    frames = make_video(3)
    vit.set_policy(TopR(35))
    vit.reset()
    torch.testing.assert_close(run(vit, frames), dense(vit, frames), **CLOSE)


# Weights that change in mid-stream.


def in_place(vit):
    with torch.no_grad():
        vit.blocks[1].mlp.fc2.weight.mul_(1.5)


def by_optimizer(vit):
    vit.train()
    optimizer = torch.optim.SGD(vit.parameters(), lr=0.05)
    vit(make_video(1))["last_feat"].square().mean().backward()
    optimizer.step()
    vit.zero_grad()
    vit.eval()


def by_state_dict(vit):
    vit.load_state_dict({name: 1.1 * value for name, value in vit.state_dict().items()})


def of_a_table(vit):
    with torch.no_grad():
        vit.blocks[2].attn.rel_pos_w.add_(0.3)


def of_an_eps(vit):
    for block in vit.blocks:
        block.norm1.eps = 0.5


def of_positions(vit):
    with torch.no_grad():
        vit.pos_embed.add_(0.3)


def by_replacing(vit):
    vit.blocks[0].attn.proj.bias = nn.Parameter(torch.randn(24))


def by_another_module(vit):
    torch.manual_seed(5)
    vit.blocks[0].attn.proj = nn.Linear(24, 24)


def by_data(vit):
    vit.blocks[1].norm2.weight.data = torch.full((24,), 1.5)


def ema_swap_behind_pytorchs_back(vit):
    for parameter in vit.parameters():
        parameter.data.mul_(1.05)


def one_seen_and_one_behind_pytorchs_back(vit):
    vit.blocks[0].mlp.fc1.weight.data.mul_(1.5)  # where it lay, in the same version, as by vit.half().float()
    in_place(vit)


def one_element_and_a_word(vit):
    vit.blocks[1].mlp.fc2.weight.data[7, 5] += 3
    vit.weights_changed()


CHANGES = [
    in_place, by_optimizer, by_state_dict, of_a_table, of_an_eps, of_positions, by_replacing, by_another_module,
    by_data, ema_swap_behind_pytorchs_back, one_seen_and_one_behind_pytorchs_back, one_element_and_a_word,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("compute_dtype", [None, torch.bfloat16])
def test_weights_that_change_in_mid_stream(change, compute_dtype, kernels_or_not):
    if change is ema_swap_behind_pytorchs_back and kernels_or_not == "pytorch":
        pytest.skip("without kernels, weights_changed() has to be called")
    vit, video = make_vit(policy=TopR(6), compute_dtype=compute_dtype), make_video(8)
    run(vit, video[:5])
    change(vit)
    out = vit(video[5][None])["last_feat"]
    assert flushed(vit) == (True,)
    later = run(vit, video[6:])
    assert flushed(vit) == (False,)
    new = make_vit(policy=TopR(6), compute_dtype=compute_dtype)
    new.load_state_dict(vit.state_dict())
    for module, other in zip(vit.blocks, new.blocks):
        other.norm1.eps = module.norm1.eps
    expected = run(new, video[5:])
    torch.testing.assert_close(torch.cat([out, later]), expected, **CLOSE)


def halved_mlp(vit):
    return Mlp, lambda mlp, x: 0.5 * run_mlp(mlp.parts, x)


def halved_layer(vit):
    forward = nn.Linear.forward
    return nn.Linear, lambda layer, x: 0.5 * forward(layer, x)


def halved_attention(vit):
    forward = Attention.forward
    return Attention, lambda attention, x: 0.5 * forward(attention, x)


def shifted_embedding(vit):
    forward = PatchEmbed.forward
    return PatchEmbed, lambda embedding, *args: forward(embedding, *args) + 1


def halved_subclass(vit):
    class Own(Mlp):
        pass

    vit.blocks[1].mlp.__class__ = Own
    return Own, lambda mlp, x: 0.5 * Mlp.forward(mlp, x)


CLASSES = [halved_mlp, halved_layer, halved_attention, shifted_embedding, halved_subclass]


@pytest.mark.parametrize("find", CLASSES)
@pytest.mark.parametrize("policy", [TopR(6), TopR(35)], ids=str)
def test_a_class_that_gets_another_forward_in_mid_stream(find, policy, monkeypatch):
    vit, video = make_vit(policy=policy), make_video(9)
    kind, forward = find(vit)
    before = run(vit, video[:5])
    with monkeypatch.context() as patch:
        patch.setattr(kind, "forward", forward)
        out = run(vit, video[5:7])
        torch.testing.assert_close(out, run(vit, video[5:7], vit.new_state()), **CLOSE)
        torch.testing.assert_close(out[:1], dense(vit, video[5:6]), **CLOSE)  # the stream began again
    assert not torch.allclose(out[0], before[-1], atol=1e-2)
    out = run(vit, video[7:])
    torch.testing.assert_close(out, run(vit, video[7:], vit.new_state()), **CLOSE)


def test_nothing_else_ends_a_stream():
    vit, video = make_vit(policy=TopR(6)), make_video(4)
    run(vit, video[:2])
    vit.state_dict()
    copy.deepcopy(vit)
    vit.eval()
    vit.requires_grad_(False)
    vit.blocks[0].register_forward_hook(lambda *_: None)
    run(vit, video[2:])
    assert flushed(vit) == (False,)


def test_training_in_between_ends_a_stream():
    vit, video = make_vit(), make_video(2)
    run(vit, video[:1])
    vit.train()
    vit.eval()
    run(vit, video[1:])
    assert flushed(vit) == (True,)


class Wrapped(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, *args):
        return self.block(*args)


def test_stochastic_depth_within_a_wrapper_is_refused():
    vit, video = make_vit(policy=TopR(6), drop_path_rate=0.9), make_video(2)
    vit.blocks[1] = Wrapped(vit.blocks[1]).train()
    with pytest.raises(ValueError, match=r"stochastic depth of blocks\.1\.block is in training mode"):
        run(vit, video)
    vit.eval()
    run(vit, video)


@pytest.mark.parametrize("frames", [0, 1, 5])
def test_stochastic_depth_in_training_mode_is_refused(frames):
    """Later frames computed branches that the dense model dropped."""
    vit, video = make_vit(policy=TopR(6), drop_path_rate=0.9), make_video(8)
    expected = run(copy.deepcopy(vit), video)
    for frame in video[:frames]:
        vit(frame[None])
    vit.blocks[1].train()
    with pytest.raises(ValueError, match=r"stochastic depth of blocks\.1 is in training mode.*call eval\(\)"):
        vit(video[frames][None])
    vit.eval()
    torch.testing.assert_close(run(vit, video[frames:]), expected[frames:], **CLOSE)  # no stream began again
    vit.blocks[0].train()  # it drops nothing
    run(vit, video[:1])
    assert flushed(vit) == (False,)


def test_another_type_ends_a_stream():
    vit, video = make_vit(), make_video(2)
    run(vit, video[:1])
    vit.double()
    vit(video[1:].double())
    assert flushed(vit) == (True,)


# User code inside of blocks.


class Doubled(Mlp):
    def forward(self, x):
        return 2 * super().forward(x)


class Shifted(Attention):
    def forward(self, x):
        return super().forward(x) + 1


class LoRA(nn.Module):
    """A linear layer with a correction of low rank beside it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, 2, bias=False)
        self.up = nn.Linear(2, layer.out_features, bias=False)

    def forward(self, x):
        return self.layer(x) + self.up(self.down(x))


def replace_mlp(vit):
    vit.blocks[1].mlp = Doubled(24, 96)


def replace_attention(vit):
    for i in (0, 1):  # with windows and without
        old = vit.blocks[i].attn
        vit.blocks[i].attn = Shifted(24, 2, True, True, input_size=(3, 3) if i == 0 else (5, 7))
        vit.blocks[i].attn.load_state_dict(old.state_dict())


def adapt(vit):
    vit.blocks[1].attn.qkv = LoRA(vit.blocks[1].attn.qkv)
    vit.blocks[2].mlp.fc1 = LoRA(vit.blocks[2].mlp.fc1)


def another_norm(vit):
    vit.blocks[1].norm1 = nn.RMSNorm(24, eps=1e-6)


def no_norm(vit):
    vit.blocks[1].norm2 = nn.Identity()


def another_activation(vit):
    vit.blocks[1].mlp.act = nn.ReLU()


def patched_forward(vit):
    layer = vit.blocks[1].mlp.fc2
    layer.forward = lambda x: nn.functional.linear(x, layer.weight)


def weight_norm(vit):
    layer = torch.nn.utils.parametrizations.weight_norm(vit.blocks[1].attn.proj)
    with torch.no_grad():
        layer.parametrizations.weight.original0.mul_(2)


def fewer_blocks(vit):
    vit.blocks = vit.blocks[:2]


EDITS = [
    replace_mlp, replace_attention, adapt, another_norm, no_norm, another_activation, patched_forward, weight_norm,
    fewer_blocks,
]  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("when", ["before", "in mid-stream"])
def test_user_code_runs_in_every_frame(edit, when):
    vit, video = make_vit(policy=TopR(35)), make_video(8)
    before = dense(vit, video)
    torch.manual_seed(3)
    if when == "before":
        edit(vit)
    else:
        run(vit, video[:4])
        edit(vit)
    vit.eval()
    outputs, expected = run(vit, video[4:]), dense(vit, video[4:])
    torch.testing.assert_close(outputs, expected, **CLOSE)
    assert (expected - before[4:]).abs().max() > 1e-3  # the edit does something


@pytest.mark.parametrize("edit", EDITS)
def test_a_still_video_converges_with_user_code(edit):
    vit = make_vit(policy=TopR(5))
    torch.manual_seed(3)
    edit(vit)
    vit.eval()
    video = make_video(2)
    still = torch.cat([video, video[-1:].repeat(90, 1, 1, 1)])
    torch.testing.assert_close(run(vit, still)[-1], dense(vit, video[-1:])[0], **CLOSE)


@pytest.mark.parametrize("enabled", [True, False])
def test_blocks_that_were_added_are_refused(enabled):
    vit, video = make_vit(policy=TopR(35), enabled=enabled), make_video(1)
    vit.blocks.append(copy.deepcopy(vit.blocks[1]))
    with pytest.raises(ValueError, match="has 4 blocks, and had 3 when it was made eventful"):
        vit(video)


@pytest.mark.parametrize("part", ["", "attn", "attn.proj", "mlp", "mlp.fc1", "norm1"])
def test_whoever_hooks_into_a_block_sees_it_at_work(part):
    vit, video, seen = make_vit(policy=TopR(35)), make_video(9), []
    run(vit, video[:4])
    hook = vit.blocks[2].get_submodule(part).register_forward_hook(lambda module, args, output: seen.append(output))
    outputs = run(vit, video[4:6])
    assert len(seen) == 2 and flushed(vit) == (False,)
    hook.remove()
    outputs = torch.cat([outputs, run(vit, video[6:])])
    assert len(seen) == 2
    torch.testing.assert_close(outputs, dense(vit, video[4:]), **CLOSE)


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("before", ["another video", "nothing"])
def test_a_video_that_began_under_a_hook(block, before):
    """A hooked attention runs as a whole and leaves no state."""
    vit, video = make_vit(policy=TopR(3)), make_video(3)
    if before == "another video":
        run(vit, make_video(2, seed=7))
        vit.reset()
    hook = vit.blocks[block].attn.register_forward_hook(lambda *args: None)
    run(vit, video[:1])
    hook.remove()
    still = video[:1].repeat(4, 1, 1, 1)
    torch.testing.assert_close(run(vit, still), dense(vit, still), **CLOSE)
    assert flushed(vit) == (False,) and vit.state.trace.gates["blocks.1.qkv"].selection.counts == (3,)


def test_streams_that_began_under_a_hook():
    vit, video = make_vit(policy=TopR(3)), make_video(1).repeat(3, 1, 1, 1)
    hook = vit.blocks[1].attn.register_forward_hook(lambda *args: None)
    vit(video)
    hook.remove()
    expected = dense(vit, video)
    for streams in (1, 3, 3, 2):
        torch.testing.assert_close(vit(video[:streams])["last_feat"], expected[:streams], **CLOSE)
        assert not any(flushed(vit))


def test_what_a_hook_keeps_stays_as_it_was():
    vit, video = make_vit(policy=TopR(6)), make_video(4)
    run(vit, video[:2])
    kept, copies = [], []
    for block in vit.blocks:
        block.register_forward_hook(lambda m, a, out: kept.append(out) or copies.append(out.clone()))
    run(vit, video[2:])
    assert len(kept) == 6 and all(torch.equal(ours, theirs) for ours, theirs in zip(kept, copies))


def test_a_hook_may_change_the_result():
    vit, video = make_vit(policy=TopR(35)), make_video(3)
    vit.blocks[2].mlp.register_forward_hook(lambda m, a, out: 2 * out)
    torch.testing.assert_close(run(vit, video), dense(vit, video), **CLOSE)


@pytest.mark.parametrize("grad", [True, False])
def test_operation_counters_see_the_operators(grad):
    vit = EventfulViT((48, 64), 8, embed_dim=24, depth=2, num_heads=2, use_rel_pos=True, enabled=False).eval()
    with torch.set_grad_enabled(grad), count_operations(vit) as counts, FlopCounterMode(display=False) as counter:
        vit(torch.randn(1, 3, 48, 64))
    ours = counts.by_category()
    assert counter.get_total_flops() == 2 * sum(ours[name] for name in ("linear", "matmul", "position", "embedding"))


# Threads and processes.


def test_the_number_of_threads_is_obeyed_between_frames(needs_kernels, monkeypatch):
    from eventful_vit.ops.cpu import library

    vit, video = make_vit(policy=TopR(6)), make_video(8)
    expected, asked = run(make_vit(policy=TopR(6)), video), []
    check = library._check
    monkeypatch.setattr(library, "_check", lambda status: (asked.append(torch.get_num_threads()), check(status)))
    before = torch.get_num_threads()
    outputs = []
    try:
        for number, frame in enumerate(video):
            torch.set_num_threads(1 + number % 3)
            outputs.append(vit(frame[None])["last_feat"])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.cat(outputs), expected) and set(asked) == {1, 2, 3}


def _child(vit, frame, expected):
    torch.set_num_threads(2)
    with torch.no_grad():
        equal = torch.equal(vit(frame)["last_feat"], expected)
    os._exit(0 if equal else 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_process_forked_after_frames_were_run(kernels_or_not):
    """PyTorch's own threads do not survive a fork, and its documentation says so; the kernels' do."""
    if kernels_or_not == "pytorch":
        pytest.skip("PyTorch's threads hang in a forked process")
    vit, video = make_vit((80, 112), policy=TopR(35)), make_video(3, size=(80, 112))
    run(vit, video[:2])
    expected = run(vit, video[2:])
    child = multiprocessing.get_context("fork").Process(target=_child, args=(vit, video[2:], expected))
    vit.reset()
    vit.enabled = False  # the child computes densely, with all threads
    expected.copy_(dense(vit, video[2:]))
    vit.enabled = False
    child.start()
    assert exit_code(child) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_process_forked_while_a_thread_looks_at_weights(needs_kernels):
    vit, video = make_vit(policy=TopR(12)), make_video(1)
    expected = run(vit, video)
    vit.reset()
    child = multiprocessing.get_context("fork").Process(target=_child, args=(vit, video, expected))
    with weights._looking.lock:  # as a thread does that the child will not have
        child.start()
    assert exit_code(child) == 0


def exit_code(child):
    child.join(20)
    if child.is_alive():
        os.kill(child.pid, signal.SIGKILL)
    return child.exitcode


# Other arguments of Detectron2's ViT.


@pytest.mark.parametrize(
    "options",
    [
        {"norm_layer": nn.LayerNorm},
        {"act_layer": nn.SiLU},
        {"residual_block_indexes": [1]},
        {"rel_pos_zero_init": False},
        {"use_act_checkpoint": True},
        {"drop_path_rate": 0.5},
    ],
)
def test_all_of_detectron2s_arguments(options):
    vit = make_vit(policy=TopR(35), **options)
    video = make_video(4)
    torch.testing.assert_close(run(vit, video), dense(vit, video), **CLOSE)
    vit.train()
    vit(video)["last_feat"].square().mean().backward()
    assert all(parameter.grad is not None for parameter in vit.parameters())


def test_tables_are_initialised_as_asked():
    zero = EventfulViT(64, 8, embed_dim=24, depth=1, num_heads=2, use_rel_pos=True)
    random = EventfulViT(64, 8, embed_dim=24, depth=1, num_heads=2, use_rel_pos=True, rel_pos_zero_init=False)
    assert zero.blocks[0].attn.rel_pos_h.abs().max() == 0 < random.blocks[0].attn.rel_pos_h.abs().max() < 0.1


def test_residual_blocks_have_detectron2s_names():
    vit = EventfulViT(64, 8, embed_dim=24, depth=1, num_heads=2, residual_block_indexes=[0])
    names = {name for name in vit.state_dict() if ".residual." in name}
    parts = [f"conv{i}.weight" for i in (1, 2, 3)] + [
        f"norm{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")
    ]
    assert names == {f"blocks.0.residual.{part}" for part in parts}
    before = vit.eval()(torch.ones(1, 3, 64, 64))["last_feat"]
    randomise(vit)
    assert not torch.equal(vit(torch.ones(1, 3, 64, 64))["last_feat"], before)
