"""VideoClassifier: built from a configuration, weights of others, inputs of every kind, training."""

import pytest
import torch
from actions.conftest import tiny_classifier, tiny_classifier_cfg  # noqa: F401
from detectron2.modeling import build_model
from eventful_vit import TopR
from eventful_vitdet.checkpoint import VideoCheckpointer
from eventful_vitdet.errors import CheckpointError, ConfigError
from eventful_vitdet.modeling import VideoClassifier
from eventful_vitdet.predictor import load_detector


def clip(frames: int = 20, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, 3, 40, 56), generator=generator, dtype=torch.uint8)


def test_built_from_a_configuration(tiny_classifier):  # noqa: F811
    model = tiny_classifier()
    assert isinstance(model, VideoClassifier)
    assert model.heads == {"verb": 4, "noun": 3}
    assert model.vivit.steps == 4 and model.vivit.policy == TopR(5)
    [output] = model([{"clip": clip()}])
    assert {name: values.shape for name, values in output["logits"].items()} == {"verb": (4,), "noun": (3,)}


def test_all_kinds_of_inputs_agree(tiny_classifier):  # noqa: F811
    model = tiny_classifier()
    views = model.views
    frames, spans = views.prepare(clip()), views.frame_numbers(20)
    with torch.no_grad():
        [features] = model.features([{"clip": clip()}])
        outputs = model([{"clip": clip()}, {"frames": frames, "spans": spans}, {"features": features}])
    for output in outputs[1:]:
        for name, values in output["logits"].items():
            torch.testing.assert_close(values, outputs[0]["logits"][name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("prefix", ["", "vivit."])
def test_weights_with_and_without_the_prefix(tiny_classifier, tmp_path, prefix):  # noqa: F811
    source, target = tiny_classifier(), tiny_classifier()
    torch.nn.init.zeros_(target.vivit.heads["verb"].weight)
    torch.save({prefix + name: value for name, value in source.vivit.state_dict().items()}, tmp_path / "weights.pth")
    VideoCheckpointer(target).load(str(tmp_path / "weights.pth"))
    assert all(torch.equal(source.state_dict()[name], value) for name, value in target.state_dict().items())


def test_names_of_the_authors(golden, tmp_path, tiny_classifier_cfg):  # noqa: F811
    import numpy as np

    weights = {name: torch.from_numpy(value) for name, value in np.load(golden / "vivit_4x4_weights.npz").items()}
    torch.save(weights, tmp_path / "authors.pth")
    settings = {"MODEL__VIT__EMBED_DIM": 48, "MODEL__VIT__NUM_HEADS": 3, "MODEL__VIVIT__CLASSES": [["verb", 7]]}
    model = build_model(tiny_classifier_cfg(**settings))
    VideoCheckpointer(model).load(str(tmp_path / "authors.pth"))
    assert torch.equal(model.vivit.heads["verb"].weight, weights["classifier.weight"])
    assert model.vivit.spatial.pos_embed.shape[1] == 17  # resized from 3 x 3

    two_heads = build_model(tiny_classifier_cfg(**{**settings, "MODEL__VIVIT__CLASSES": [["verb", 7], ["noun", 3]]}))
    with pytest.raises(CheckpointError, match=r"Not in the file: .*vivit.heads.noun"):
        VideoCheckpointer(two_heads).load(str(tmp_path / "authors.pth"))
    others = build_model(tiny_classifier_cfg(**{**settings, "MODEL__VIVIT__CLASSES": [["verb", 8]]}))
    with pytest.raises(CheckpointError, match=r"vivit.heads.verb"):
        VideoCheckpointer(others).load(str(tmp_path / "authors.pth"))


def test_a_detector_is_refused_by_name(tiny_classifier, tiny_model, tmp_path):  # noqa: F811
    torch.save(tiny_model().state_dict(), tmp_path / "detector.pth")
    with pytest.raises(CheckpointError, match="holds no parameter of this model: found names such as backbone.net"):
        VideoCheckpointer(tiny_classifier()).load(str(tmp_path / "detector.pth"))


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"MODEL__VIVIT__CLASSES": [["verb"]]}, "CLASSES has"),
        ({"MODEL__VIVIT__CLASSES": [["action", 3]]}, "cannot be the name of a head"),
        ({"MODEL__VIVIT__CLASSES": []}, "heads of one class or more"),
        ({"MODEL__VIVIT__TUBELET": [2, 8]}, "TUBELET is"),
        ({"MODEL__VIVIT__TUBELET": [3, 8, 8]}, "frames = 8 is not a multiple"),
        ({"MODEL__VIVIT__STRIDE": 0}, "stride of views must be 1 or larger"),
        ({"MODEL__EVENTFUL__KV_POOL": 2}, "KV_POOL and PYRAMID belong to detectors"),
        ({"INPUT__FORMAT": "BGR"}, "takes 'RGB'"),
    ],
)
def test_impossible_configurations_name_their_key(tiny_classifier_cfg, overrides, message):  # noqa: F811
    with pytest.raises(ValueError, match=message):
        build_model(tiny_classifier_cfg(**overrides))


def test_training_the_whole_model(tiny_classifier):  # noqa: F811
    model = tiny_classifier(MODEL__VIVIT__VIEWS=1, MODEL__VIVIT__CROPS=1).train()
    inputs = [{"clip": clip(seed=i), "labels": {"verb": i, "noun": 2}} for i in range(2)]
    losses = model(inputs)
    assert losses.keys() == {"loss_verb", "loss_noun"}
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_frozen_spatial_model_has_its_gates_on(tiny_classifier):  # noqa: F811
    model = tiny_classifier(MODEL__VIVIT__FREEZE_SPATIAL=True).train()
    inputs = [{"clip": clip(), "labels": {"verb": 1, "noun": 2}}]
    [cached] = model.features(inputs)
    losses = model(inputs)
    with_cached = model([{"features": cached, **inputs[0]}])
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(
        {name: loss.item() for name, loss in with_cached.items()}, abs=1e-5
    )
    sum(losses.values()).backward()
    assert all(parameter.grad is None for parameter in model.vivit.spatial.parameters())
    assert all(parameter.grad is not None for parameter in model.vivit.temporal.parameters())
    model.enabled = False
    assert not torch.allclose(model.features(inputs)[0], cached, atol=1e-3)


def test_training_with_gates_on(tiny_classifier):  # noqa: F811
    settings = {"MODEL__VIVIT__VIEWS": 1, "MODEL__VIVIT__CROPS": 1}
    inputs = [{"clip": clip(seed=i), "labels": {"verb": i, "noun": 2}} for i in range(2)]
    gated = tiny_classifier(**settings, MODEL__VIVIT__TRAIN_WITH_GATES=True).train()(inputs)
    frozen = tiny_classifier(**settings, MODEL__VIVIT__FREEZE_SPATIAL=True).train()(inputs)
    dense = tiny_classifier(**settings).train()(inputs)
    assert gated["loss_verb"].item() == pytest.approx(frozen["loss_verb"].item(), abs=1e-4)
    assert gated["loss_verb"].item() != pytest.approx(dense["loss_verb"].item(), abs=1e-3)


def test_what_needs_a_detector_says_so(tiny_classifier_cfg):  # noqa: F811
    with pytest.raises(ConfigError, match="a detector is needed here"):
        load_detector(tiny_classifier_cfg(MODEL__WEIGHTS="some.pth"))
