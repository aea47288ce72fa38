"""VideoRCNN: sequences begin and go on by themselves, streams do not mix, dense and eventful share weights."""

import pytest
import torch
from eventful_vitdet import TopR, count_operations
from eventful_vitdet.errors import ConfigError
from eventful_vitdet.modeling import VideoRCNN


def clip(frames: int, seed: int = 0, size=(80, 96)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    frame = torch.randint(0, 255, (3, *size), generator=generator, dtype=torch.uint8)
    out = []
    for t in range(frames):
        frame = frame.clone()
        frame[:, 16:32, 8 * t : 8 * t + 16] = torch.randint(0, 255, (3, 16, 16), generator=generator, dtype=torch.uint8)
        out.append(frame)
    return out


def item(image, video_id=1, frame_id=0, **more) -> dict:
    return {"image": image, "video_id": video_id, "frame_id": frame_id, **more}


def flushes(model, items) -> list[bool]:
    out = []
    with torch.no_grad():
        for one in items:
            model([one])
            out.append(model.state.trace.flushed[0])
    return out


def detect(model, *items) -> list:
    with torch.no_grad():
        return [out["instances"] for out in model(list(items))]


def assert_same(a, b, atol=1e-3) -> None:
    assert len(a) == len(b)
    torch.testing.assert_close(a.scores, b.scores, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, atol=atol, rtol=1e-4)
    assert torch.equal(a.pred_classes, b.pred_classes)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([(1, 0), (1, 1), (1, 2)], [True, False, False]),
        ([(1, 0), (1, 1), (2, 2), (2, 3)], [True, False, True, False]),
        ([(1, 0), (1, 1), (1, 3), (1, 4)], [True, False, True, False]),
        ([(1, 5), (1, 6), (1, 6)], [True, False, True]),
        ([(1, 5), (1, 6), (1, 2), (1, 3)], [True, False, True, False]),
        # A regular step that nobody announced is recognised from its second occurrence on.
        ([(1, 0), (1, 3), (1, 6), (1, 9)], [True, True, False, False]),
        ([("a", 0), ("a", 1), ("b", 2)], [True, False, True]),
    ],
)
def test_sequences_begin_by_themselves(tiny_model, enabled, ids, expected):
    model = tiny_model(MODEL__EVENTFUL__ENABLED=enabled)
    frames = clip(len(ids))
    assert flushes(model, [item(f, *place) for f, place in zip(frames, ids)]) == expected


def test_an_announced_step_is_no_gap(tiny_model):
    model = tiny_model()
    items = [item(f, 1, t, frame_step=3) for f, t in zip(clip(5), (0, 3, 6, 12, 15))]
    assert flushes(model, items) == [True, False, False, True, False]


def test_another_frame_size_begins_a_sequence(tiny_model):
    model = tiny_model()
    items = [item(clip(1)[0], 1, 0), item(clip(1, size=(64, 96))[0], 1, 1), item(clip(1, size=(64, 96))[0], 1, 2)]
    assert flushes(model, items) == [True, True, False]


def test_another_canvas_begins_a_sequence(tiny_model):
    model = tiny_model(MODEL__VIT__IMG_SIZE_HW=[80, 96])
    large, small = clip(2), clip(2, size=(64, 64))
    assert flushes(model, [item(large[0]), item(large[1], 1, 1), item(small[0], 2, 0), item(small[1], 2, 1)]) == [
        True,
        False,
        True,
        False,
    ]
    assert_same(
        detect(model, item(large[0], 3))[0], detect(tiny_model(MODEL__VIT__IMG_SIZE_HW=[80, 96]), item(large[0]))[0]
    )


def test_images_without_a_video_are_computed_in_full(tiny_model):
    model = tiny_model()
    assert flushes(model, [{"image": f} for f in clip(3)]) == [True, True, True]


def test_flush_equals_dense_and_budget_of_all_tokens_too(tiny_model):
    eventful, dense = tiny_model(MODEL__EVENTFUL__R=36), tiny_model(MODEL__EVENTFUL__ENABLED=False)
    for t, frame in enumerate(clip(3)):
        assert_same(detect(eventful, item(frame, 1, t))[0], detect(dense, item(frame, 1, t))[0])
    assert eventful.state.trace.flushed == (False,)


def test_switching_to_dense_and_back(tiny_model):
    model = tiny_model()
    frames = clip(6)
    begins = []
    for t, frame in enumerate(frames):
        model.enabled = t not in (2, 3)
        detect(model, item(frame, 1, t))
        begins.append(model.state.trace.flushed[0])
    assert begins == [True, False, False, False, False, False]
    model.enabled = False
    detect(model, item(frames[0], 2, 0))  # a new video, seen densely
    model.enabled = True
    detect(model, item(frames[1], 2, 1))
    assert model.state.trace.flushed == (True,)  # the state was that of video 1


def test_streams_in_one_batch_equal_separate_runs(tiny_model):
    model = tiny_model()
    a, b, c = clip(4, 1), clip(2, 2), clip(2, 3)
    alone = []
    for video_id, video in ((1, a), (2, b), (3, c)):
        model.reset()
        alone.append([detect(model, item(f, video_id, t))[0] for t, f in enumerate(video)])
    model.reset()
    second = [(2, 0, b[0]), (2, 1, b[1]), (3, 0, c[0]), (3, 1, c[1])]
    for t, (video_id, frame_id, frame) in enumerate(second):
        first, other = detect(model, item(a[t], 1, t), item(frame, video_id, frame_id))
        assert model.state.trace.flushed == (t == 0, frame_id == 0)
        assert_same(first, alone[0][t])
        assert_same(other, alone[video_id - 1][frame_id])


def test_policy_and_counts(tiny_model):
    model = tiny_model()
    frames = clip(4)
    totals = []
    for t, frame in enumerate(frames):
        model.set_policy(TopR(3 if t < 3 else 12))
        with count_operations(model) as counts:
            detect(model, item(frame, 1, t))
        totals.append(counts)
    flush, later, same, more = totals
    assert flush.backbone() > more.backbone() > max(later.backbone(), same.backbone())
    assert set(later.by_category()) >= {"embedding", "pyramid", "proposals", "heads", "linear", "gate"}
    assert later.by_category()["pyramid"] == flush.by_category()["pyramid"]


def test_boxes_come_in_original_pixels(tiny_model):
    model = tiny_model()
    frame = clip(1)[0]
    small = detect(model, item(frame))[0]
    large = detect(model, item(frame, 2, 0, height=160, width=192))[0]
    assert large.image_size == (160, 192)
    torch.testing.assert_close(large.pred_boxes.tensor, 2 * small.pred_boxes.tensor, atol=1e-3, rtol=1e-4)


def test_training_is_the_plain_detector(tiny_model):
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    model = tiny_model().train()
    target = Instances((80, 96), gt_boxes=Boxes(torch.tensor([[10.0, 10, 50, 50]])), gt_classes=torch.tensor([1]))
    with EventStorage():
        losses = model([{"image": clip(1)[0], "instances": target}])
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"}
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.vit.state_bytes() == 0


@pytest.mark.parametrize("size", [(80, 96), (64, 96)])
def test_training_on_clips_sees_what_gates_let_through(tiny_model, size):
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    model, frames = tiny_model(MODEL__VIT__DROP_PATH_RATE=0.0), clip(4, size=size)
    target = Instances(size, gt_boxes=Boxes(torch.tensor([[10.0, 10, 50, 50]])), gt_classes=torch.tensor([1]))
    seen = []
    model.backbone.net.register_forward_hook(lambda _, __, output: seen.append(output["last_feat"].detach()))
    for number, frame in enumerate(frames):
        detect(model, item(frame, frame_id=number))
    expected, seen[:] = list(seen), []
    with EventStorage():
        losses = model.train()([{"image": frames[-1], "earlier": frames[:-1], "instances": target}])
    for own, other in zip(seen, expected):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)
    assert len(seen) == 4
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    seen.clear()
    with EventStorage():
        model([{"image": frames[-1], "instances": target}])
    assert len(seen) == 1 and not torch.allclose(seen[0], expected[-1], rtol=1e-3, atol=1e-3)


def test_a_frame_larger_than_the_canvas_is_named(tiny_model):
    with pytest.raises(ValueError, match=r"video 7, frame 4: 100 x 80 pixels .* MODEL.VIT.IMG_SIZE = 96"):
        detect(tiny_model(), item(torch.zeros(3, 80, 100, dtype=torch.uint8), 7, 4))


def test_a_video_frame_without_a_number_is_named(tiny_model):
    with pytest.raises(KeyError, match="video 7 has no 'frame_id'"):
        detect(tiny_model(), {"image": clip(1)[0], "video_id": 7})


def test_a_failed_frame_starts_over(tiny_model):
    model = tiny_model()
    a = clip(3)
    detect(model, item(a[0], 1, 0))
    with pytest.raises(ValueError, match="do not fit"):
        detect(model, item(torch.zeros(3, 200, 200, dtype=torch.uint8), 1, 1))
    detect(model, item(a[1], 1, 1))
    assert model.state.trace.flushed == (True,)
    assert_same(detect(model, item(a[2], 1, 2))[0], detect_sequence(tiny_model(), a[1:])[-1])


def detect_sequence(model, frames) -> list:
    return [detect(model, item(f, 9, t))[0] for t, f in enumerate(frames)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"MODEL__EVENTFUL__POLICY": "best"}, "MODEL.EVENTFUL.POLICY = 'best' is unknown"),
        ({"MODEL__EVENTFUL__R": -1}, "MODEL.EVENTFUL.R: TopR needs r >= 0"),
        (
            {"MODEL__EVENTFUL__POLICY": "threshold", "MODEL__EVENTFUL__THRESHOLD": float("nan")},
            "MODEL.EVENTFUL.THRESHOLD: .*NaN",
        ),
        ({"MODEL__EVENTFUL__POLICY": "fraction", "MODEL__EVENTFUL__FRACTION": 1.5}, "MODEL.EVENTFUL.FRACTION"),
        ({"MODEL__EVENTFUL__GPU_CROSSOVER": -1.0}, "MODEL.EVENTFUL.GPU_CROSSOVER is -1.0; expected 0 or larger"),
        ({"MODEL__EVENTFUL__ATTENTION": "some"}, "MODEL.EVENTFUL: attention = 'some' is unknown"),
        ({"MODEL__EVENTFUL__GATE_REFERENCE": "some"}, "gate_reference = 'some' is unknown"),
        ({"MODEL__EVENTFUL__STATE_DTYPE": "int8"}, "STATE_DTYPE = 'int8' is unknown"),
    ],
)
def test_bad_config_values_name_their_key(tiny_model, overrides, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(**overrides)


def test_a_backbone_without_eventful_vit_is_refused_by_the_key_that_names_it(tiny_model):
    parts = tiny_model()
    with pytest.raises(ConfigError, match="MODEL.BACKBONE.NAME.*Identity has 0"):
        VideoRCNN(
            backbone=torch.nn.Identity(),
            proposal_generator=parts.proposal_generator,
            roi_heads=parts.roi_heads,
            pixel_mean=[0.0] * 3,
            pixel_std=[1.0] * 3,
        )
