"""Actions in a running video, steered by a control: what each step says, and when the window begins again."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from eventful_vitdet.actions.action_names import action_names
from eventful_vitdet.actions.streaming_classifier import StreamingClassifier
from eventful_vitdet.actions.video_recogniser import VideoRecogniser
from eventful_vitdet.errors import ConfigError, DetectionError
from eventful_vitdet.predictor import load_model
from eventful_vitdet.structures import SourceFrame

from .test_streaming_classifier import make_video

WINDOW = 4  # steps


def make_frames(frames: int = 16, start: int = 0, sequence: int = 0) -> list[SourceFrame]:
    video = make_video(frames, (40, 80))
    return [
        SourceFrame(start + n, sequence, (start + n) / 30, image[..., ::-1], "a.mp4") for n, image in enumerate(video)
    ]


@pytest.fixture
def run(tiny_classifier_cfg, tiny_classifier):
    def run(frames, model=None, **overrides):
        cfg = tiny_classifier_cfg(MODEL__VIVIT__STRIDE=1, MODEL__VIVIT__FPS=30.0, **overrides)
        model = model or tiny_classifier(MODEL__VIVIT__STRIDE=1)
        with VideoRecogniser(cfg, model, action_names(cfg)) as recogniser:
            return [recogniser.recognise(frame) for frame in frames]

    return run


def test_steps_say_what_the_streaming_classifier_says(run, tiny_classifier):
    frames, model = make_frames(), tiny_classifier(MODEL__VIVIT__STRIDE=1)
    results = run(frames, model)
    assert [result is not None for result in results] == [False, True] * 8
    results = results[1::2]
    with StreamingClassifier(model, 30.0) as classifier:
        expected = [classifier.add(np.ascontiguousarray(frame.image[..., ::-1]), frame.seconds) for frame in frames]
    for result, step in zip(results, expected[1::2]):
        assert result.step == step.step and result.cost.flushed == step.flushed
        assert result.cost.macs == step.macs and result.cost.total_seconds > 0
        if step.probabilities is None:
            assert result.best is None and result.window == (step.step + 1, WINDOW)
            continue
        assert result.window == (WINDOW, WINDOW)
        name, score = result.best["verb"][0]
        assert name == f"verb {step.probabilities['verb'].argmax()}"
        assert score == pytest.approx(step.probabilities["verb"].max())
        scores = [score for _, score in result.best["noun"]]
        assert len(scores) == 3 and scores == sorted(scores, reverse=True)


def test_a_schedule_counts_frames(run):
    keys = {"MODEL__EVENTFUL__CONTROLLER__NAME": "schedule", "MODEL__EVENTFUL__CONTROLLER__SCHEDULE": "0:9,8:2"}
    results = run(make_frames(), **keys)[1::2]
    assert [result.budget for result in results] == ["top-r 9"] * 4 + ["top-r 2"] * 4
    assert results[6].cost.total_macs < results[3].cost.total_macs


def test_the_dense_model_has_no_budget(run, tiny_classifier):
    model = tiny_classifier(MODEL__VIVIT__STRIDE=1, MODEL__EVENTFUL__ENABLED=False)
    results = run(make_frames(), model)[1::2]
    assert {result.budget for result in results} == {"dense"} and not any(result.cost.flushed for result in results)


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(make_frames(4, start=16, sequence=1), id="another file"),
        pytest.param(make_frames(4), id="from the start"),
        pytest.param(make_frames(4, start=100), id="a jump ahead"),
        pytest.param([replace(f, image=f.image[:, :60]) for f in make_frames(4, start=16)], id="another size"),
    ],
)
def test_frames_that_do_not_follow_begin_a_window(run, second):
    results = run(make_frames() + second)
    assert results[15].best is not None
    assert results[17].best is None and results[17].window == (1, WINDOW) and results[17].cost.flushed
    assert results[17].step == 8


def test_a_scene_cut_begins_a_window(run):
    first, other = make_frames(), [replace(f, image=255 - f.image) for f in make_frames(10, start=16)]
    results = run(first + other, MODEL__EVENTFUL__CONTROLLER__SCENE_CUT=4.0)[1::2]
    assert results[8].scene_cut and results[9].cost.flushed and results[9].window == (1, WINDOW)


def test_scores_that_are_no_numbers_name_the_frame(run, tiny_classifier):
    model = tiny_classifier(MODEL__VIVIT__STRIDE=1)
    with torch.no_grad():
        model.vivit.heads["verb"].bias.fill_(float("nan"))
    with pytest.raises(DetectionError, match=r"not finite for frame 7 of a\.mp4"):
        run(make_frames(), model)


def test_a_model_without_weights_is_refused(tiny_classifier_cfg):
    with pytest.raises(ConfigError, match="MODEL.WEIGHTS is empty"):
        load_model(tiny_classifier_cfg())
