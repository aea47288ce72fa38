"""Which budget is recommended, what is proposed where none does, and when a measurement is called noisy."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eventful_vitdet.budget_advice import MeasuredBudget, Measurement, describe_noise, other_work, recommend, ways_out
from eventful_vitdet.config_files import build_cfg


def budget(r: int | None, ms: float, agreement: float | None = None, backbone: float = 0.5) -> MeasuredBudget:
    return MeasuredBudget(
        r=r,
        milliseconds=ms,
        milliseconds_95=1.2 * ms,
        uncertainty=1.0,
        spread=0.1,
        backbone_milliseconds=backbone * ms,
        gflops=1.0,
        agreement=agreement,
        state_bytes=0,
        timed_frames=10,
        full_milliseconds=None,
    )


def measurement(*budgets: MeasuredBudget) -> Measurement:
    return Measurement(
        budgets=list(budgets),
        tokens=4096,
        picture=(576, 1024),
        frames=12,
        interrupted=False,
        others=0.0,
        device="cpu",
        threads=2,
    )


USUAL = (budget(None, 200), budget(1024, 120, 99.2), budget(512, 80, 97.04), budget(256, 60, 96.96), budget(64, 40, 70))


@pytest.mark.parametrize(
    ("target", "least", "r"),
    [
        (150, 0, 1024),
        (100, 0, 256),  # agrees as well as 512, as far as is shown
        (100, 97, 512),
        (50, 0, 64),
        (50, 90, "none"),
        (30, 0, "none"),
        (250, 0, None),
        (200, 99.9, None),
    ],
)
def test_the_budget_that_agrees_best_of_those_that_are_fast_enough(target, least, r):
    advice = recommend(measurement(*USUAL), target, least)
    assert ("none" if advice.budget is None else advice.budget.r) == r


def test_reasons():
    reasons = {target: recommend(measurement(*USUAL), target).reason for target in (300, 80.5, 60.5, 50, 30)}
    assert reasons[300] == "no budget is needed, the dense model takes 200 ms (95th percentile 240)"
    assert reasons[80.5].startswith("r = 256 takes 60 ms (95th percentile 72) and agrees with the dense model to 97.0")
    assert "too close to the target to be sure" in reasons[60.5] and "too close" not in reasons[80.5]
    assert "70.0 percent, so look at its detections first" in reasons[50]
    assert (
        reasons[30] == "nothing that was measured reaches 30 ms: r = 64, the fastest, takes 40 ms (95th percentile 48)"
    )
    both = recommend(measurement(*USUAL), 50, 90).reason
    assert both == "no budget reaches both 50 ms and an agreement of 90: r = 64 takes 40 ms with 70.0"


def test_without_any_sure_detection_the_largest_budget_is_taken():
    advice = recommend(measurement(budget(None, 200), budget(512, 80), budget(256, 60)), 100, 95)
    assert advice.budget.r == 512 and "agreement is unknown" in advice.reason


def proposals(cfg, model="my.yaml", target=30.0, budgets=USUAL, **changes):
    return ways_out(replace(measurement(*budgets), **changes), cfg, model, target)


@pytest.fixture(scope="module")
def coco_cfg():
    return build_cfg("coco/cascade_mask_rcnn_vitdet_l")


def test_smaller_frames_have_the_keys_that_the_configuration_needs(coco_cfg):
    *_, smaller = proposals(coco_cfg)
    # 40 ms at 1024 pixels are 27 or less at 841 and less, the next multiple of 64.
    assert dict(zip(smaller.pairs[::2], smaller.pairs[1::2])) == {
        "INPUT.MAX_SIZE_TEST": "832",
        "INPUT.MIN_SIZE_TEST": "832",
        "MODEL.VIT.IMG_SIZE": "832",
    }
    assert smaller.what == "frames of 832 in place of 1024 pixels: about 26 ms by area"
    free = build_cfg("demo/vitdet_tiny")
    assert proposals(free)[-1].pairs == ("INPUT.MAX_SIZE_TEST", "832")
    assert not [candidate for candidate in proposals(free, target=1.0) if "frames" in candidate.what]


def test_smaller_models_are_of_the_same_kind(coco_cfg):
    names = {"h": "coco/mask_rcnn_vitdet_h", "b": "lvis/cascade_mask_rcnn_vitdet_b", "end": "coco/mask_rcnn_vitdet_b"}
    found = {key: [c.model for c in proposals(coco_cfg, name) if c.model] for key, name in names.items()}
    assert found == {"h": ["coco/mask_rcnn_vitdet_l"], "b": ["lvis/mask_rcnn_vitdet_b"], "end": []}
    assert [c.model for c in proposals(coco_cfg, "configs/coco/mask_rcnn_vitdet_l.yaml") if c.model] == [
        "coco/mask_rcnn_vitdet_b"
    ]


def test_an_eventful_pyramid_is_proposed_where_it_may_help(coco_cfg):
    heavy = (budget(None, 200), budget(256, 60, 96.0, backbone=0.2))
    assert proposals(coco_cfg, budgets=heavy)[0].pairs == ("MODEL.EVENTFUL.PYRAMID.ENABLED", "True")
    light = (budget(None, 200), budget(256, 60, 96.0, backbone=0.8))
    has_one = build_cfg("coco/cascade_mask_rcnn_vitdet_l", ["MODEL.EVENTFUL.PYRAMID.ENABLED", True])
    others = [proposals(coco_cfg, budgets=light), proposals(has_one, budgets=heavy)]
    others.append(proposals(coco_cfg, budgets=heavy, device="cuda:0"))
    assert not any("PYRAMID" in word for found in others for candidate in found for word in candidate.pairs)


def test_fewer_tokens_are_proposed_down_to_the_floor_if_that_can_be_enough(coco_cfg):
    large = (budget(None, 200), budget(1024, 100, 99.0, backbone=0.8))
    assert proposals(coco_cfg, target=50, budgets=large)[0].budget == 256
    assert all(c.budget is None for c in proposals(coco_cfg, target=40, budgets=large))  # 20 ms + 80 / 4 are no less
    assert all(c.budget is None for c in proposals(coco_cfg, target=30))


def test_noise_is_told_with_its_signs():
    quiet = measurement(*USUAL)
    assert describe_noise(quiet) is None and describe_noise(replace(quiet, others=None)) is None
    busy = describe_noise(replace(quiet, others=0.66))
    assert "other programs took 66 % of the machine's cores" in busy and "spread" not in busy
    wide = describe_noise(measurement(*(replace(budget, spread=0.4) for budget in USUAL)))
    assert "spread over 40 % of their median" in wide and "other programs" not in wide


def test_work_of_others_is_what_is_left_of_the_cores_time(tmp_path, monkeypatch):
    monkeypatch.setattr(other_work, "STAT", tmp_path / "stat")
    monkeypatch.setattr(other_work.os, "sysconf", lambda name: 100)
    times = iter([(1.0, 0.0), (2.0, 1.0)])
    monkeypatch.setattr(other_work.os, "times", lambda: other_work.os.times_result((*next(times), 0, 0, 0)))
    (tmp_path / "stat").write_text("cpu  1000 0 0 1000 0 0 0 0 0 0\ncpu0 0\n")
    before = other_work.WorkSoFar.now()
    # Of 10 s, cores were idle for 3 and waited for a disk for 1; 2 s of the others are this process's own.
    (tmp_path / "stat").write_text("cpu  1500 0 50 1300 100 0 0 50 0 0\n")
    assert other_work.share_of_others(before, other_work.WorkSoFar.now()) == pytest.approx(0.4)
    (tmp_path / "stat").write_text("intr 5\n")
    assert other_work.WorkSoFar.now() is None and other_work.share_of_others(before, None) is None
