"""Training on clips: random views, kept features, and that a model learns from either."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from eventful_vit import TopR
from eventful_vit.models.clip_views import ClipViews
from eventful_vitdet.actions import action_sets, load_action_set, register_action_csv
from eventful_vitdet.actions import training_clips as module
from eventful_vitdet.actions.action_training import ActionTrainer
from eventful_vitdet.actions.feature_cache import feature_folder, feature_path, fill_feature_cache
from eventful_vitdet.actions.training_clips import ClipSampler, RandomViews
from eventful_vitdet.errors import DataError

from .conftest import row, write_csv, write_video

VIEWS = ClipViews(8, 2, (32, 32), 4, 3)
VIEWS_OF_MODEL = ClipViews(8, 1, (32, 32), 1, 1)


@pytest.fixture
def clips(clips_csv):
    return load_action_set(register_action_csv(str(clips_csv)), {"verb": 4, "noun": 3}).clips


@pytest.fixture
def training_cfg(tiny_classifier_cfg, clips_csv):
    name = register_action_csv(str(clips_csv))
    settings = {"DATASETS__TRAIN": (name,), "DATASETS__TEST": (), "SOLVER__IMS_PER_BATCH": 3, "SOLVER__BASE_LR": 0.01}
    settings.update(SOLVER__MAX_ITER=8, SOLVER__WARMUP_ITERS=1, SEED=1)
    return lambda **overrides: tiny_classifier_cfg(**{**settings, **overrides})


def test_views_are_at_random_times_and_places(clips):
    dataset = RandomViews(clips, VIEWS, 30.0, (1.0, 1.5))
    items = [dataset[0] for _ in range(8)]
    assert all(item["frames"].shape == (8, 3, 32, 32) for item in items)
    assert len({item["frames"][0].sum().item() for item in items}) > 4
    assert items[0]["labels"] == clips[0].labels


def test_frames_of_a_view_are_as_far_apart_as_in_evaluation(clips):
    dataset = RandomViews(clips, VIEWS, 30.0)
    for _ in range(20):
        span = dataset._span(20)
        assert np.diff(span).tolist() == [2] * 7 and 0 <= span[0] <= 4
    assert dataset._span(5) == [0, 2, 4, 4, 4, 4, 4, 4]


def test_clips_are_kept_while_there_is_memory(clips, monkeypatch):
    reads, read = [], module.read_frames
    monkeypatch.setattr(module, "read_frames", lambda frames, places: reads.append(1) or read(frames, places))
    dataset = RandomViews(clips, VIEWS, 30.0, memory_bytes=1)  # room for one
    torch.manual_seed(5)
    for _ in range(3):
        dataset[0], dataset[1]
    assert len(reads) == 1 + 3


def test_unreadable_clips_are_named(clips, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"nothing" * 99)
    broken = replace(clips[1], path=str(tmp_path / "broken.mp4"))
    with pytest.raises(DataError, match=r"line 3: clip b: .*broken.mp4"):
        RandomViews([broken], VIEWS, 30.0)[0]


def test_a_scale_below_one_leaves_no_room():
    with pytest.raises(ValueError, match="INPUT.SCALE_JITTER of clips"):
        RandomViews([], VIEWS, 30.0, (0.8, 1.2))


def test_passes_are_shuffled_and_a_resumed_one_is_another():
    sampler = ClipSampler(5, seed=3)
    stream = iter(sampler)
    first = [next(stream) for _ in range(10)]
    assert sorted(first[:5]) == sorted(first[5:]) == list(range(5)) and first[:5] != first[5:]
    sampler.images_before = 10
    stream = iter(sampler)
    assert [next(stream) for _ in range(10)] != first


def train(cfg):
    trainer = ActionTrainer(cfg)
    trainer.resume_or_load(resume=False)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    return trainer, before


def test_the_whole_model_learns(training_cfg, clips):
    cfg = training_cfg(DATALOADER__CLIP_MEMORY_MB=50, SOLVER__BASE_LR=0.003, SOLVER__MAX_ITER=16)
    trainer, before = train(cfg)
    model, inputs = trainer.model, [RandomViews(clips, VIEWS_OF_MODEL, 30.0)[i] for i in range(3)]
    after = {name: value.clone() for name, value in model.state_dict().items()}
    assert all(not torch.equal(before[name], after[name]) for name in after)
    loss_after = sum(model.train()(inputs).values())
    model.load_state_dict(before)
    assert loss_after < 0.9 * sum(model(inputs).values())
    assert Path(cfg.OUTPUT_DIR, "model_final.pth").is_file()


def test_fine_tuning_on_kept_features(training_cfg, tmp_path, monkeypatch):
    parsed, read_csv = [], action_sets.read_csv
    monkeypatch.setattr(action_sets, "read_csv", lambda path: parsed.append(path) or read_csv(path))
    settings = {"MODEL__VIVIT__FREEZE_SPATIAL": True, "DATALOADER__FEATURE_CACHE": str(tmp_path / "features")}
    cfg = training_cfg(**settings, MODEL__VIVIT__DROPOUT=0.5, SOLVER__MAX_ITER=2)
    trainer, before = train(cfg)
    assert len(parsed) == 1
    after = trainer.model.state_dict()
    changed = {name.split(".")[1] for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"temporal", "heads"}
    files = list((tmp_path / "features").rglob("*.npz"))
    assert len(files) == 3

    # Again: nothing is computed but what is missing.
    files[0].unlink()
    model, written = trainer.model, []
    features = model.features
    monkeypatch.setattr(model, "features", lambda inputs: written.append(1) or features(inputs))
    clips = load_action_set(cfg.DATASETS.TRAIN[0], model.heads).clips
    kept = fill_feature_cache(cfg, model, clips)
    assert len(written) == 1 and files[0].is_file()
    assert kept[0]["features"].shape == (6, 4, 24)
    torch.testing.assert_close(kept[2]["features"], features([{**_read(cfg, model, clips[2])}])[0])


def _read(cfg, model, clip):
    from eventful_vitdet.actions.clip_loader import ClipReader

    return ClipReader([clip], model.views, cfg.MODEL.VIVIT.FPS)[0]


def test_other_spatial_models_and_budgets_have_other_features(tiny_classifier, training_cfg, tmp_path):
    cfg, model = training_cfg(DATALOADER__FEATURE_CACHE=str(tmp_path)), tiny_classifier()
    first = feature_folder(cfg, model)
    torch.nn.init.zeros_(model.vivit.heads["verb"].weight)
    assert feature_folder(cfg, model) == first  # the spatial model's features are the same
    model.set_policy(TopR(7))
    assert feature_folder(cfg, model) != first
    model.set_policy(TopR(5))
    for changed in (
        {"MODEL__EVENTFUL__COMPUTE_DTYPE": "bfloat16"},
        {"MODEL__EVENTFUL__STATE_DTYPE": "bfloat16"},
        {"MODEL__VIT__NUM_HEADS": 4},
    ):
        other = training_cfg(DATALOADER__FEATURE_CACHE=str(tmp_path), **changed)
        assert feature_folder(other, tiny_classifier(**changed)) != first
    assert feature_folder(cfg, model) == first
    torch.nn.init.zeros_(model.vivit.spatial.norm.weight)
    assert feature_folder(cfg, model) != first


def test_clips_of_the_same_name_in_two_data_sets_have_features_of_their_own(
    tiny_classifier, training_cfg, clips, tmp_path
):
    cfg, model = training_cfg(DATALOADER__FEATURE_CACHE=str(tmp_path / "features")), tiny_classifier()
    first = fill_feature_cache(cfg, model, clips)[0]["features"]
    write_video(tmp_path / "other" / "videos" / "P01_01.mp4", size=(64, 64))
    [other] = load_action_set(
        register_action_csv(str(write_csv(tmp_path / "other" / "b.csv", [row(narration_id="a")]))),
        {"verb": 4, "noun": 3},
    ).clips
    assert (other.clip_id, other.start, other.stop) == (clips[0].clip_id, clips[0].start, clips[0].stop)
    assert not torch.equal(fill_feature_cache(cfg, model, [other])[0]["features"], first)
    torch.testing.assert_close(fill_feature_cache(cfg, model, clips)[0]["features"], first, rtol=0, atol=0)


def test_a_video_that_was_replaced_has_other_features(tiny_classifier, training_cfg, clips, tmp_path):
    cfg, model = training_cfg(DATALOADER__FEATURE_CACHE=str(tmp_path / "features")), tiny_classifier()
    first = fill_feature_cache(cfg, model, clips[:1])[0]["features"]
    write_video(Path(clips[0].path), size=(64, 64))
    kept = fill_feature_cache(cfg, model, clips[:1])
    assert not torch.equal(kept[0]["features"], first)
    Path(clips[0].path).unlink()
    with pytest.raises(DataError, match=r"line 2: clip a: .*P01_01.mp4: No such file"):
        kept[0]


def test_damaged_features_are_named(tiny_classifier, training_cfg, clips, tmp_path):
    cfg, model = training_cfg(DATALOADER__FEATURE_CACHE=str(tmp_path / "features")), tiny_classifier()
    kept = fill_feature_cache(cfg, model, clips)
    path = Path(feature_path(kept.folder, clips[1]))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=rf"{path.name}: cannot be read .* delete it"):
        kept[1]


def test_a_data_set_is_checked_before_training(training_cfg):
    with pytest.raises(Exception, match="no registered data set of actions"):
        ActionTrainer(training_cfg(DATASETS__TEST=("nowhere",)))
    with pytest.raises(ValueError, match="SOLVER.MAX_ITER must be 1 or larger"):
        ActionTrainer(training_cfg(SOLVER__MAX_ITER=0))


def test_a_resumed_training_continues(training_cfg, tmp_path):
    settings = {"MODEL__VIVIT__FREEZE_SPATIAL": True, "DATALOADER__FEATURE_CACHE": str(tmp_path / "features")}
    train(training_cfg(**settings, SOLVER__MAX_ITER=2))
    trainer = ActionTrainer(training_cfg(**settings, SOLVER__MAX_ITER=3))
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 2
    trainer.train()
    assert trainer._trainer.data_loader._sampler.images_before == 2 * 3
