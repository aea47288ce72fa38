"""One picture after the other through a real, tiny model."""

import itertools

import numpy as np
import pytest
import torch
from eventful_vitdet import Threshold, TopR
from eventful_vitdet.control import RuntimeControl, build_runtime_control
from eventful_vitdet.controllers import Constant, LatencyController
from eventful_vitdet.predictor import VideoDetector, share_weights
from eventful_vitdet.structures import FrameCost, SourceFrame


def picture(seed: int, height: int = 96, width: int = 96) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def frame(index: int, seed: int = 0, sequence: int = 0, size: tuple = (96, 96)) -> SourceFrame:
    return SourceFrame(index, sequence, index / 30, picture(seed, *size), "file")


def constant(model, policy) -> RuntimeControl:
    return RuntimeControl(model, Constant(policy))


def test_frames_follow_each_other_until_something_breaks(tiny_cfg, tiny_model):
    model = tiny_model()
    frames = [
        (frame(0), True),
        (frame(1), False),
        (frame(2, sequence=1), True),  # another file, or a stream that came back
        (frame(3, sequence=1), False),
        (frame(7, sequence=1), True),  # a seek
        (frame(8, sequence=1, size=(48, 64)), True),  # another size
        (frame(9, sequence=1, size=(48, 64)), False),
    ]
    with VideoDetector(tiny_cfg(MODEL__VIT__IMG_SIZE_HW="[96,96]"), model, constant(model, TopR(6))) as detector:
        for given, flushed in frames:
            result = detector.detect(given)
            assert result.cost.flushed is flushed, given.index
            assert result.budget == "top-r 6" and len(result.detections.scores) > 0
            assert result.cost.total_macs > 0 and 0 < result.cost.backbone_seconds < result.cost.total_seconds


def test_the_same_as_the_model_alone(tiny_cfg, tiny_model):
    model = tiny_model()
    with VideoDetector(tiny_cfg(), model, constant(model, TopR(6))) as detector:
        found = [detector.detect(frame(i, seed=i)).detections for i in range(3)]
    model.reset()
    for index, detections in enumerate(found):
        rgb = torch.from_numpy(picture(index)[:, :, ::-1].transpose(2, 0, 1).copy())
        with torch.no_grad():
            (output,) = model([{"image": rgb, "height": 96, "width": 96, "video_id": 0, "frame_id": index}])
        assert np.array_equal(detections.boxes, output["instances"].pred_boxes.tensor.numpy())


@pytest.mark.parametrize("sizes", [{"INPUT__MIN_SIZE_TEST": 48}, {"INPUT__MAX_SIZE_TEST": 64}])
def test_boxes_and_tokens_are_in_pixels_of_the_picture(tiny_cfg, tiny_model, sizes):
    model = tiny_model()
    with VideoDetector(tiny_cfg(**sizes), model) as detector:
        result = detector.detect(frame(0, size=(192, 256)))  # resized by 1 / 4, padded to 96 x 96
    assert result.token_grid == (6, 6) and result.token_area == (384, 384)
    assert result.detections.boxes[:, 2].max() > 64 and result.detections.boxes[:, 2].max() <= 256


def test_time_comes_from_the_clock_that_is_given(tiny_cfg, tiny_model):
    ticks = itertools.count(step=0.25)
    model = tiny_model()
    with VideoDetector(tiny_cfg(), model, clock=lambda: next(ticks)) as detector:
        costs = [detector.detect(frame(i)).cost for i in range(3)]
    # It is read before and after the frame, and before and after the Transformer.
    assert [(cost.backbone_seconds, cost.total_seconds) for cost in costs] == [(0.25, 0.75)] * 3


def test_a_model_with_shared_weights_has_a_state_of_its_own(tiny_cfg, tiny_model):
    model = tiny_model()
    twin = share_weights(model)
    twin.enabled = False
    assert all(a is b for a, b in zip(model.parameters(), twin.parameters()))
    cfg = tiny_cfg()
    with VideoDetector(cfg, model, constant(model, TopR(6))) as eventful:
        with VideoDetector(cfg, twin, constant(twin, TopR(6))) as dense:
            for index in range(3):
                sparse, full = eventful.detect(frame(index, index)), dense.detect(frame(index, index))
                assert sparse.cost.flushed is (index == 0)  # the dense run in between disturbs nothing
                assert full.budget == "dense" and not full.cost.flushed
                assert index == 0 or sparse.cost.total_macs < full.cost.total_macs
    assert model.enabled and not twin.enabled


def test_training_mode_and_hooks_are_put_back(tiny_cfg, tiny_model):
    model = tiny_model().train()
    with pytest.raises(ZeroDivisionError), VideoDetector(tiny_cfg(), model):
        assert not model.training
        raise ZeroDivisionError
    assert model.training and not any(module._forward_hooks for module in model.modules())


def test_a_latency_target_steers_a_real_model_by_a_fake_clock(tiny_cfg, tiny_model):
    model = tiny_model()
    controller = LatencyController(100.0, 30)
    now, reads = 0.0, itertools.count(1)

    def clock() -> float:
        """Read four times per frame, which takes 10 ms and 5 for each updated token, all of it at its end."""
        nonlocal now
        now += 0.01 + 0.005 * model.vit.policy.r if next(reads) % 4 == 0 else 1e-5
        return now

    with VideoDetector(tiny_cfg(), model, RuntimeControl(model, controller), clock=clock) as detector:
        results = [detector.detect(frame(index, index)) for index in range(40)]
    # What the Transformer takes is tiny: as if hardly any of the time depended on r. Single steps are then far too
    # large, and still it settles at r = 18, which makes a frame of 100 ms.
    assert all(int(result.budget.split()[-1]) in (17, 18, 19) for result in results[25:])


def test_after_a_scene_cut_the_frame_can_still_be_drawn(tiny_cfg, tiny_model):
    model = tiny_model()
    images = [picture(0) for _ in range(3)] + [picture(1) for _ in range(3)]
    for index, image in enumerate(images):
        image[:32, 32 * (index % 3) : 32 * (index % 3) + 32] = 255  # an object of 4 of the 36 tokens
    results, updated = [], []
    with VideoDetector(tiny_cfg(), model) as detector:
        for index, image in enumerate(images):
            results.append(detector.detect(SourceFrame(index, 0, 0.0, image, "file")))
            updated.append(results[-1].gates["blocks.0.qkv"].selection.counts[0])
    assert [result.scene_cut for result in results] == [False, False, False, True, False, False]
    assert [result.cost.flushed for result in results] == [True, False, False, False, True, False]
    assert updated == [36, 6, 6, 6, 36, 6]


@pytest.mark.parametrize("size", [(96, 32), (32, 96)])
def test_a_scene_cut_is_seen_in_a_padded_frame(tiny_cfg, tiny_model, size):
    """Padded to 96 x 96, a third of which is the picture."""
    model = tiny_model()
    images = [picture(0, *size) for _ in range(3)] + [picture(1, *size) for _ in range(2)]
    for index, image in enumerate(images):
        corner = 32 * (index % 3)
        image[corner if size[0] > 32 else 0 :, corner if size[1] > 32 else 0 :][:16, :16] = 255  # one of 12 tokens
    with VideoDetector(tiny_cfg(), model) as detector:
        results = [detector.detect(SourceFrame(i, 0, 0.0, image, "file")) for i, image in enumerate(images)]
    assert [result.scene_cut for result in results] == [False, False, False, True, False]


def test_how_a_target_is_held_comes_with_the_frame(tiny_cfg, tiny_model):
    keys = {"MODEL__EVENTFUL__CONTROLLER__NAME": "gflops", "MODEL__EVENTFUL__CONTROLLER__TARGET_GFLOPS": 1}
    model = tiny_model()
    with VideoDetector(tiny_cfg(**keys), model) as detector:
        costs, targets = [], []
        for index in range(3):
            result = detector.detect(frame(index, index))
            costs.append(result.cost.total_gflops)
            targets.append(result.target)
        assert [target.reached for target in targets] == pytest.approx([sum(costs[:n]) / n for n in (1, 2, 3)])
        assert {(target.unit, target.target) for target in targets} == {("GFlops", 1.0)}
        model.enabled = False
        assert detector.detect(frame(3)).target is None
    with VideoDetector(tiny_cfg(), model, constant(model, TopR(6))) as detector:
        assert detector.detect(frame(0)).target is None


def test_threshold_policies_pass_through(tiny_cfg, tiny_model):
    model = tiny_model()
    with VideoDetector(tiny_cfg(), model, constant(model, Threshold(0.5))) as detector:
        assert detector.detect(frame(0)).budget == "threshold 0.5"


def test_a_scene_cut_in_a_real_model_flushes_the_next_frame(tiny_model, tiny_cfg):
    model = tiny_model()
    control = build_runtime_control(tiny_cfg(), model)
    scene, other = torch.rand(3, 96, 96) * 255, torch.rand(3, 96, 96) * 255
    moving = [scene.clone() for _ in range(3)]
    for index, image in enumerate(moving):
        image[:, :32, 32 * index : 32 * index + 32] = 255  # an object of 4 of the 36 tokens
    flushed, cuts = [], []
    for index, image in enumerate([*moving, other, other, other]):
        control.before_frame(index)
        with torch.no_grad():
            model([{"image": image, "height": 96, "width": 96, "video_id": 1, "frame_id": index}])
        trace = model.state.trace
        flushed.append(trace.flushed[0])
        cuts.append(control.after_frame(FrameCost(trace.flushed[0], {}, 0.01, 0.02), trace.vit))
    assert cuts == [False, False, False, True, False, False]
    assert flushed == [True, False, False, False, True, False]
