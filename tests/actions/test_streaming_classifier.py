"""Recognition in running video: the same numbers as for clips, and what a video's times and sizes do."""

import numpy as np
import pytest
import torch
from eventful_vit import TopR
from eventful_vit.models.vivit import probabilities
from eventful_vitdet.actions.streaming_classifier import StreamingClassifier


def make_video(frames: int = 14, size=(40, 56)) -> np.ndarray:
    generator = np.random.default_rng(0)
    video = np.repeat(generator.integers(60, 190, (1, *size, 3)), frames, axis=0)
    for t in range(frames):
        video[t, 8:24, 2 * t : 2 * t + 16] += generator.integers(-50, 50, (16, 16, 1))
    return video.clip(0, 255).astype(np.uint8)


def run(model, video, times, fps=30.0):
    with StreamingClassifier(model, fps) as classifier:
        results = [classifier.add(image, seconds) for image, seconds in zip(video, times)]
    return [result for result in results if result is not None]


def at(fps: float, frames: int) -> list[float]:
    return [5 + n / fps for n in range(frames)]


def test_every_step_is_classified_over_the_steps_before(tiny_classifier):
    model, video = tiny_classifier(), make_video()
    results = run(model, video, at(30, 14))
    assert [result.step for result in results] == list(range(7))
    assert [result.flushed for result in results] == [True] + [False] * 6
    assert [result.probabilities is not None for result in results] == [False] * 3 + [True] * 4
    frames = model.views.centre(model.views.prepare(torch.from_numpy(video).permute(0, 3, 1, 2)))
    with torch.no_grad():
        model.reset()
        features = torch.cat([model.vivit.step_features(part[None]) for part in frames.split(2)])
        for result in results[3:]:
            window = features[result.step - 3 : result.step + 1]
            expected = probabilities(model.vivit.classify(window[None, None]))
            for name, values in expected.items():
                np.testing.assert_allclose(result.probabilities[name], values[0], atol=1e-5)


def test_the_first_window_is_a_clip_of_one_view(tiny_classifier):
    model, video = tiny_classifier(MODEL__VIVIT__VIEWS=1, MODEL__VIVIT__CROPS=1), make_video(8)
    last = run(model, video, at(30, 8))[-1]
    with torch.no_grad():
        [output] = model([{"clip": torch.from_numpy(video).permute(0, 3, 1, 2)}])
    for name, values in probabilities(output["logits"]).items():
        np.testing.assert_allclose(last.probabilities[name], values, atol=1e-5)


def test_later_steps_cost_less(tiny_classifier):
    model = tiny_classifier(MODEL__EVENTFUL__ATTENTION="tokenwise")  # whose counts are the same in all later steps
    model.set_policy(TopR(2))
    macs = [sum(result.macs.values()) for result in run(model, make_video(), at(30, 14))]
    assert macs[1] == macs[2] < macs[0] and macs[2] < macs[4] == macs[6]  # full windows have a temporal model


@pytest.mark.parametrize("fps, frames, steps", [(60, 28, 7), (30, 14, 7), (15, 7, 6), (59.94, 28, 7)])
def test_frames_are_taken_at_the_models_rate(tiny_classifier, fps, frames, steps):
    results = run(tiny_classifier(), make_video(frames, (40, 80)), at(fps, frames))
    assert results[-1].step == steps - 1


def test_a_long_gap_fills_the_window_once(tiny_classifier):
    results = run(tiny_classifier(), make_video(3), [0.0, 1 / 30, 1000.0])
    assert results[-1].step == 4 and results[-1].probabilities is not None


def test_every_frame_counts_without_a_rate(tiny_classifier):
    assert run(tiny_classifier(), make_video(), [0.0] * 14, fps=0)[-1].step == 6
    assert run(tiny_classifier(MODEL__VIVIT__STRIDE=2), make_video(), [0.0] * 14, fps=0)[-1].step == 2


def test_another_size_and_time_running_back_are_refused(tiny_classifier):
    model = tiny_classifier().train()
    with StreamingClassifier(model, 30.0) as classifier:
        classifier.add(make_video()[0], 1.0)
        with pytest.raises(ValueError, match=r"frames were \(40, 56\) and are now \(48, 56\)"):
            classifier.add(make_video(1, (48, 56))[0], 1.1)
        with pytest.raises(ValueError, match="a frame at 0.500 s after one at 1.000 s"):
            classifier.add(make_video()[0], 0.5)
        classifier.reset()
        classifier.add(make_video(1, (48, 56))[0], 0.5)
    assert model.training and not model.vivit.spatial.observers


def test_a_reset_is_followed_by_a_flush(tiny_classifier):
    model, video = tiny_classifier(), make_video(4)
    with StreamingClassifier(model, 30.0) as classifier:
        first = [classifier.add(image, n / 30) for n, image in enumerate(video)]
        classifier.reset()
        again = [classifier.add(image, n / 30) for n, image in enumerate(video)]
    assert [r.flushed for r in first + again if r] == [True, False, True, False]
