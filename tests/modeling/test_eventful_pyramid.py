"""The eventful pyramid equals the dense layers on what its gate sent on, and counts what it runs."""

import pytest
import torch
from eventful_vit import Policy, Streams
from eventful_vitdet import Threshold, TopFraction, TopR, count_operations
from eventful_vitdet.errors import ConfigError
from eventful_vitdet.modeling.pyramid import EventfulPyramid
from eventful_vitdet.modeling.pyramid.convolution import IncrementalConvolution
from eventful_vitdet.modeling.pyramid.strips import STRIP_WIDTH, STRIPS_AT_ONCE
from torch import nn

LEVELS = {
    "MODEL__SIMPLE_PYRAMID__SCALE_FACTORS": [4.0, 2.0, 1.0, 0.5],
    "MODEL__ANCHOR_GENERATOR__SIZES": [[8], [16], [32], [64], [96]],
    "MODEL__RPN__IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL__ROI_HEADS__IN_FEATURES": ["p2", "p3", "p4", "p5"],
}
DIM, CHANNELS, ANCHORS = 24, 16, 3


@pytest.fixture
def detector(tiny_model):
    def make(**overrides):
        return tiny_model(**{**LEVELS, "MODEL__EVENTFUL__PYRAMID__ENABLED": True, **overrides})

    return make


@pytest.fixture
def strips_always(monkeypatch):
    """Whatever changed is computed in strips, also where maps are so small that computing all takes less time."""
    monkeypatch.setattr(IncrementalConvolution, "_dense_streams", lambda _, covered: [False] * len(covered))


@pytest.fixture(params=["strips", "measured choice"])
def both_ways(request):
    if request.param == "strips":
        request.getfixturevalue("strips_always")


class Reference:
    """What the gate should have sent on, kept independently of it, and the dense layers on it."""

    def __init__(self, model) -> None:
        self.model = model
        self.tokens = None
        self.state = Streams()

    def check(self, features, flushed, policy=None):
        """Run a frame, and compare everything with Detectron2's own modules on the tokens sent on so far."""
        maps = self.model.eventful_pyramid(features, flushed, policy, self.state)
        mask = self.state.trace.gates["pyramid"].selection.mask()
        tokens = features.flatten(2).transpose(1, 2)
        if self.tokens is None or self.tokens.shape != tokens.shape:
            self.tokens = torch.full_like(tokens, torch.nan)
        self.tokens = torch.where(mask[..., None], tokens, self.tokens)
        expected = self.dense(self.tokens.transpose(1, 2).unflatten(2, features.shape[2:]))
        for ours, theirs in zip((list(maps.features.values()), maps.logits, maps.deltas), expected):
            assert len(ours) == len(theirs)
            for level, other in zip(ours, theirs):
                # Layer norms bring all maps to a scale of one; rounding of fp32 stays below this.
                torch.testing.assert_close(level, other, atol=2e-5, rtol=1e-4)
        return maps, mask

    def dense(self, features):
        backbone, rpn = self.model.backbone, self.model.proposal_generator
        with torch.no_grad():
            maps = [stage(features) for stage in backbone.stages]
            if backbone.top_block is not None:
                maps += backbone.top_block(maps[-1])
            by_name = dict(zip(backbone.output_shape(), maps))
            logits, deltas = rpn.rpn_head([by_name[name] for name in rpn.in_features])
        logits = [level.permute(0, 2, 3, 1).flatten(1) for level in logits]
        return maps, logits, [level.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3) for level in deltas]


def backbone_output(streams=1, grid=(6, 6)) -> torch.Tensor:
    """(B, D, h, w), a view of tokens as the backbone's output is."""
    return torch.randn(streams, *grid, DIM).permute(0, 3, 1, 2)


def move(features, places) -> torch.Tensor:
    """A copy in which the tokens at (stream, line, column) have moved, by 1 or more."""
    features = features.clone()
    for stream, line, column in places:
        features[stream, :, line, column] += 1 + torch.rand(DIM)
    return features


MOVED = Threshold(0.5)


@pytest.mark.parametrize("grid", [(6, 6), (4, 9), (5, 3), (2, 7), (13, 22)])
@pytest.mark.parametrize("streams", [1, 3])
def test_random_selections_equal_dense_on_what_was_sent(detector, both_ways, grid, streams):
    reference = Reference(detector())
    features = backbone_output(streams, grid)
    reference.check(features, (True,) * streams, TopR(1))
    for r in (1, 4, 0, grid[0] * grid[1] // 2, 2):
        features = features + torch.randn(streams, DIM, *grid) * torch.rand(streams, 1, *grid)
        _, mask = reference.check(features, (False,) * streams, TopR(r))
        assert mask.sum(1).tolist() == [r] * streams


@pytest.mark.parametrize("place", [(0, 0), (0, 5), (5, 0), (5, 5), (0, 2), (2, 0), (3, 5), (5, 2), (2, 3)])
def test_single_tokens_at_the_borders(detector, strips_always, place):
    reference = Reference(detector())
    features = backbone_output()
    before, _ = reference.check(features, (True,), MOVED)
    before = {name: level.clone() for name, level in before.features.items()}
    after, mask = reference.check(move(features, [(0, *place)]), (False,), MOVED)
    assert mask.nonzero().tolist() == [[0, place[0] * 6 + place[1]]]
    # A token is 4 x 4 positions of p2, and the 3x3 convolution reaches one further: all other outputs are as they were.
    moved = (after.features["p2"] != before["p2"]).any(1)[0].nonzero()
    for axis in (0, 1):
        assert moved[:, axis].min() == max(4 * place[axis] - 1, 0)
        assert moved[:, axis].max() == min(4 * place[axis] + 4, 23)


def test_streams_select_and_flush_by_themselves(detector, both_ways):
    reference = Reference(detector())
    features = backbone_output(3)
    reference.check(features, (True, True, True), MOVED)
    features = move(features, [(0, 2, 2), (2, 0, 0), (2, 0, 1), (2, 5, 5)])
    _, mask = reference.check(features, (False, False, False), MOVED)
    assert mask.sum(1).tolist() == [1, 0, 3]
    features = move(features, [(0, 4, 4), (1, 0, 3)])
    _, mask = reference.check(features, (False, True, False), MOVED)
    assert mask.sum(1).tolist() == [1, 36, 0]
    # Fewer streams than before leave the others' state as it is; more begin by themselves.
    features = move(features, [(0, 1, 1)])
    reference.tokens = reference.tokens[:1]
    _, mask = reference.check(features[:1], (False,), MOVED)
    assert mask.sum(1).tolist() == [1]


def test_a_stream_that_was_never_seen_begins_in_full(detector, both_ways):
    reference = Reference(detector())
    features = backbone_output(2)
    reference.check(features[:1], (True,), MOVED)
    reference.tokens = torch.cat([reference.tokens, torch.full_like(reference.tokens, torch.nan)])
    _, mask = reference.check(features, (False, False), MOVED)
    assert mask.sum(1).tolist() == [0, 36]


def test_many_strips_are_computed_in_pieces(detector, strips_always):
    grid = (40, 60)
    positions = grid[0] * grid[1] * 16
    assert positions > 2 * STRIP_WIDTH * STRIPS_AT_ONCE
    reference = Reference(detector())
    features = backbone_output(1, grid)
    reference.check(features, (True,), MOVED)
    reference.check(features + (torch.rand(1, 1, *grid) < 0.6), (False,), MOVED)


def test_reset_forgets_one_stream_or_all(detector):
    model = detector()
    pyramid, features = model.eventful_pyramid, backbone_output(2)
    state = Streams()
    pyramid(features, (True, True), MOVED, state)
    state.reset([1, 7])
    pyramid(features, (False, False), MOVED, state)
    assert state.trace.gates["pyramid"].selection.counts == (0, 36)
    state.reset()
    pyramid(features, (False, False), MOVED, state)
    assert state.trace.gates["pyramid"].selection.counts == (36, 36) and state.nbytes > 0
    state.release()
    assert state.nbytes == 0


def test_another_grid_begins_in_full(detector):
    reference = Reference(detector())
    reference.check(backbone_output(2), (True, True), MOVED)
    with pytest.raises(ValueError, match="6 x 6 tokens and this frame 4 x 8"):
        reference.check(backbone_output(2, (4, 8)), (False, False), MOVED)
    _, mask = reference.check(backbone_output(2, (4, 8)), (True, True), MOVED)
    assert mask.all()


def test_an_interrupted_frame_begins_in_full(detector, monkeypatch):
    reference = Reference(detector())
    features = backbone_output()
    reference.check(features, (True,), MOVED)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(IncrementalConvolution, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        reference.check(move(features, [(0, 1, 1)]), (False,), MOVED)
    _, mask = reference.check(features, (False,), MOVED)
    assert mask.all()


def test_state_is_not_the_callers_tensor(detector):
    reference = Reference(detector())
    features = backbone_output()
    given = features.clone()
    reference.check(given, (True,), MOVED)
    given.fill_(7)
    _, mask = reference.check(features, (False,), MOVED)
    assert not mask.any()


def test_inference_mode_and_back(detector):
    reference = Reference(detector())
    with torch.inference_mode():
        reference.model.eventful_pyramid(backbone_output(), (True,), MOVED, reference.state)
    reference.check(backbone_output(), (True,), MOVED)
    reference.check(backbone_output(), (False,), TopR(5))


def test_weights_that_change_are_used(detector):
    model = detector()
    features = backbone_output()
    model.eventful_pyramid(features, (True,), MOVED, model.state.pyramid)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    Reference(model).check(features, (True,), MOVED)


@pytest.mark.parametrize("norm", ["", "BN"])
def test_other_norms_without_the_finest_level(tiny_model, both_ways, norm):
    # Detectron2 itself cannot build the finest level without a norm.
    model = tiny_model(MODEL__EVENTFUL__PYRAMID__ENABLED=True, MODEL__SIMPLE_PYRAMID__NORM=norm)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    reference = Reference(model)
    features = backbone_output()
    reference.check(features, (True,), MOVED)
    reference.check(move(features, [(0, 2, 3)]), (False,), MOVED)


def test_one_convolution_before_the_predictions(detector, both_ways):
    reference = Reference(detector(MODEL__RPN__CONV_DIMS=[-1]))
    features = backbone_output()
    reference.check(features, (True,), MOVED)
    reference.check(move(features, [(0, 2, 3)]), (False,), MOVED)


# Counting.


def token_macs(level: str) -> int:
    """Products from one token to its positions before the level's 3x3 convolution."""
    half, quarter = DIM // 2, DIM // 4
    return {
        "p2": 4 * DIM * half + 4 * 4 * half * quarter + 16 * quarter * CHANNELS,
        "p3": 4 * DIM * half + 4 * half * CHANNELS,
        "p4": DIM * CHANNELS,
        "p5": DIM * CHANNELS,
    }[level]


def test_counts_of_a_single_token(detector, strips_always):
    model = detector()
    features = backbone_output()
    model.eventful_pyramid(features, (True,), MOVED, model.state.pyramid)
    with count_operations(model) as counts:
        model.eventful_pyramid(move(features, [(0, 2, 2)]), (False,), MOVED, model.state.pyramid)
    # All that a token reaches fits into STRIP_WIDTH outputs but for p2 and p3: lines and what is used of them.
    sides = {"p2": (4, 24), "p3": (2, 12), "p4": (1, 6), "p5": (1, 3), "p6": (1, 2)}
    first = {"p2": 8, "p3": 4, "p4": 2, "p5": 1, "p6": 0}

    def reach(level: str, steps: int) -> int:
        side, length = sides[level]
        return min(first[level] + side + steps, length) - max(first[level] - steps, 0)

    def strip_outputs(level: str, steps: int) -> int:
        side = reach(level, steps)
        columns = side * (side + 2)  # one more on either side, beyond the map's border too
        return -(-(columns - 2) // STRIP_WIDTH) * STRIP_WIDTH

    product = 9 * CHANNELS * CHANNELS
    pyramid = 36 * DIM + sum(token_macs(name) + product * strip_outputs(name, 1) for name in ("p2", "p3", "p4", "p5"))
    # p6 takes every second line and column of p5; the changed ones are (0, 0) to (2, 2).
    proposals = 0
    for name in ("p2", "p3", "p4", "p5"):
        proposals += product * (strip_outputs(name, 2) + strip_outputs(name, 3))
        proposals += CHANNELS * ANCHORS * 5 * reach(name, 3) ** 2
    proposals += 2 * product * STRIP_WIDTH + CHANNELS * ANCHORS * 5 * 4
    assert counts.by_category() == {"pyramid": pyramid, "proposals": proposals}
    assert counts.backbone() == 0


def test_a_flush_counts_what_the_dense_layers_count(detector):
    model = detector()
    features = backbone_output(2)
    with count_operations(model) as ours:
        model.eventful_pyramid(features, (True, True), MOVED, model.state.pyramid)
    with count_operations(model) as theirs, torch.no_grad():
        maps = [stage(features) for stage in model.backbone.stages]
        model.proposal_generator.rpn_head(maps + model.backbone.top_block(maps[-1]))
    # The head is called outside of the detector here, but counted by its name in it.
    assert ours.by_category() == theirs.by_category()
    assert ours.by_category(0) == ours.by_category(1) == theirs.by_category(1)


def test_nothing_moves_nothing_is_computed(detector, both_ways):
    model = detector()
    features = backbone_output(2)
    before = model.eventful_pyramid(features, (True, True), MOVED, model.state.pyramid)
    kept = [level.clone() for level in (*before.features.values(), *before.logits, *before.deltas)]
    with count_operations(model) as counts:
        after = model.eventful_pyramid(features + 1, (False, False), TopR(0), model.state.pyramid)
    for level, other in zip(kept, (*after.features.values(), *after.logits, *after.deltas)):
        assert torch.equal(level, other)
    assert {name: macs for name, macs in counts.by_category(0).items() if macs} == {"pyramid": 36 * DIM}


def test_streams_are_counted_apart(detector, strips_always):
    model = detector()
    features = backbone_output(3)
    model.eventful_pyramid(features, (True,) * 3, MOVED, model.state.pyramid)
    with count_operations(model) as together:
        moved = move(features, [(0, 2, 2), (2, 2, 2), (2, 3, 3)])
        model.eventful_pyramid(moved, (False,) * 3, MOVED, model.state.pyramid)
    assert together.by_category(1) == {"pyramid": 36 * DIM, "proposals": 0}
    assert together.total(2) > together.total(0) > together.total(1)
    assert together.total() == sum(together.total(stream) for stream in range(3))


# In the detector.


def clip(frames: int, size=(96, 96)) -> list[torch.Tensor]:
    frame = torch.randint(0, 255, (3, *size), dtype=torch.uint8)
    out = []
    for t in range(frames):
        frame = frame.clone()
        frame[:, 16:32, 8 * t : 8 * t + 16] = torch.randint(0, 255, (3, 16, 16), dtype=torch.uint8)
        out.append(frame)
    return out


def detect(model, frame, frame_id, video_id=1):
    with torch.no_grad():
        return model([{"image": frame, "video_id": video_id, "frame_id": frame_id}])[0]["instances"]


def assert_same(a, b) -> None:
    assert len(a) == len(b)
    torch.testing.assert_close(a.scores, b.scores, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, atol=2e-3, rtol=1e-4)
    assert torch.equal(a.pred_classes, b.pred_classes)


def test_all_tokens_equal_the_dense_detector(detector, both_ways):
    model, dense = detector(MODEL__EVENTFUL__R=36), detector(MODEL__EVENTFUL__ENABLED=False)
    for t, frame in enumerate(clip(4)):
        assert_same(detect(model, frame, t), detect(dense, frame, t))
        assert model.state.trace.flushed == (t == 0,)
    assert model.state.pyramid.nbytes > 0
    assert dense.state.pyramid.nbytes == 0
    assert model.state_bytes() == model.state.vit.nbytes + model.state.pyramid.nbytes


def test_sequences_sizes_and_gaps(detector):
    model = detector(MODEL__VIT__IMG_SIZE_HW=[96, 128], MODEL__EVENTFUL__R=48)
    dense = detector(MODEL__VIT__IMG_SIZE_HW=[96, 128], MODEL__EVENTFUL__ENABLED=False)
    wide, small = clip(4, (80, 128)), clip(2, (64, 64))
    frames = [(wide[0], 0, 1), (wide[1], 1, 1), (wide[2], 5, 1), (small[0], 0, 2), (small[1], 1, 2), (wide[3], 2, 2)]
    flushed = []
    for frame, frame_id, video_id in frames:
        model.set_pyramid_policy(TopR(0))  # so that whatever is not flushed is visibly old
        begins = not flushed or (frame_id, video_id) in ((5, 1), (0, 2)) or frame is wide[3]
        found = detect(model, frame, frame_id, video_id)
        flushed.append(model.state.trace.flushed[0])
        assert flushed[-1] == begins
        if begins:
            assert_same(found, detect(dense, frame, frame_id, video_id))


def test_the_paper_figure_does_not_change(detector):
    model, without = detector(), detector(MODEL__EVENTFUL__PYRAMID__ENABLED=False)
    for t, frame in enumerate(clip(3)):
        with count_operations(model) as ours, count_operations(without) as theirs:
            detect(model, frame, t)
            detect(without, frame, t)
        ours, theirs, backbone = ours.by_category(), theirs.by_category(), (ours.backbone(), theirs.backbone())
        assert backbone[0] == backbone[1]
        assert {name: macs for name, macs in ours.items() if name not in ("pyramid", "proposals")} == {
            name: macs for name, macs in theirs.items() if name not in ("pyramid", "proposals")
        }
        assert set(ours) == set(theirs)


def test_switched_off_it_is_the_detector_without(detector):
    model, without = detector(), detector(MODEL__EVENTFUL__PYRAMID__ENABLED=False)
    assert without.eventful_pyramid is None
    assert list(model.state_dict()) == list(without.state_dict())
    model.eventful_pyramid.enabled = False
    for t, frame in enumerate(clip(3)):
        assert torch.equal(detect(model, frame, t).scores, detect(without, frame, t).scores)
    assert model.state.pyramid.nbytes == 0
    model.eventful_pyramid.enabled = True
    detect(model, clip(1)[0], 3)
    assert model.state.trace.flushed == (False,)
    assert model.state.trace.pyramid.gates["pyramid"].selection.counts == (36,)


def test_policies(detector):
    model = detector(MODEL__EVENTFUL__R=6)
    frames = iter(enumerate(clip(7)))

    def selected() -> int:
        t, frame = next(frames)
        detect(model, frame, t)
        return model.state.trace.pyramid.gates["pyramid"].selection.counts[0]

    assert selected() == 36
    assert selected() == 6
    model.set_policy(TopR(9))
    assert selected() == 9
    model.set_pyramid_policy(TopFraction(0.5))
    assert selected() == 18
    model.set_policy(TopR(3))
    assert selected() == 18
    model.set_pyramid_policy(None)
    assert selected() == 3
    assert detector(
        MODEL__EVENTFUL__PYRAMID__POLICY="top-r", MODEL__EVENTFUL__PYRAMID__R=5
    ).eventful_pyramid.policy == TopR(5)


class OneMore(Policy):
    """In each frame a token more than in the last one."""

    def next(self, memory, trace):
        tokens = (memory or 0) + 1
        return TopR(tokens), tokens


def test_the_pyramid_follows_a_policy_that_learns(detector):
    model = detector()
    model.set_policy(OneMore())
    for t, frame in enumerate(clip(4)):
        detect(model, frame, t)
        assert model.state.trace.pyramid.gates["pyramid"].selection.counts == ((36,) if t == 0 else (t + 1,))
    model.set_pyramid_policy(TopR(5))
    with pytest.raises(ConfigError, match="same for all frames.* a OneMore learns"):
        model.set_pyramid_policy(OneMore())
    assert model.eventful_pyramid.policy == TopR(5)
    with pytest.raises(ConfigError, match="same for all frames"):
        EventfulPyramid(model.backbone, model.proposal_generator, OneMore())


def test_a_frame_with_nan_changes_nothing(detector):
    model = detector()
    frames = [frame.float() for frame in clip(3)]
    detect(model, frames[0], 0)
    with pytest.raises(ValueError, match="NaN"):
        detect(model, frames[1] * torch.nan, 1)
    expected = detector()
    for t in (0, 2):
        wanted = detect(expected, frames[t], t // 2)
    found = detect(model, frames[2], 2)  # the refused frame leaves no gap
    assert model.state.trace.flushed == (False,)
    assert_same(found, wanted)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"MODEL__EVENTFUL__PYRAMID__POLICY": "best"}, "MODEL.EVENTFUL.PYRAMID.POLICY = 'best' is unknown"),
        (
            {"MODEL__EVENTFUL__PYRAMID__POLICY": "top-r", "MODEL__EVENTFUL__PYRAMID__R": -1},
            "MODEL.EVENTFUL.PYRAMID.R: TopR needs r >= 0",
        ),
        (
            {
                "MODEL__SIMPLE_PYRAMID__NORM": "GN",
                "MODEL__SIMPLE_PYRAMID__OUT_CHANNELS": 32,
                "MODEL__VIT__EMBED_DIM": 64,
            },
            "pyramid p2: GroupNorm cannot be updated position by position",
        ),
    ],
)
def test_settings_that_cannot_work_are_named(detector, overrides, message):
    with pytest.raises(ValueError, match=message):
        detector(**overrides)


def test_a_detector_without_says_so(detector):
    with pytest.raises(ValueError, match="set MODEL.EVENTFUL.PYRAMID.ENABLED"):
        detector(MODEL__EVENTFUL__PYRAMID__ENABLED=False).set_pyramid_policy(TopR(3))


def test_detectors_without_an_eventful_path_are_refused(detector):
    model = detector()
    with pytest.raises(ValueError, match="needs a SimpleFeaturePyramid .* found EventfulViT"):
        EventfulPyramid(model.vit, model.proposal_generator)
    with pytest.raises(ValueError, match="needs an RPN with Detectron2's StandardRPNHead, found NoneType"):
        EventfulPyramid(model.backbone, None)
    model.proposal_generator.rpn_head.conv = nn.Sequential()
    with pytest.raises(ValueError, match="MODEL.RPN.CONV_DIMS is empty"):
        EventfulPyramid(model.backbone, model.proposal_generator)
    model.proposal_generator.rpn_head = nn.Conv2d(1, 1, 1)
    with pytest.raises(ValueError, match="StandardRPNHead, found Conv2d"):
        EventfulPyramid(model.backbone, model.proposal_generator)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=1, stride=2),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 5, padding=2),
    ],
)
def test_other_convolutions_are_refused(layer):
    with pytest.raises(ValueError, match="here: expected a convolution of 3x3"):
        IncrementalConvolution("here", layer, "pyramid")
