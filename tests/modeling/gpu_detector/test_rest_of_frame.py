"""Frames behind the Transformer with fixed sizes against Detectron2's own code. On a GPU, recorded ones too."""

import copy
import logging

import pytest
import torch
from eventful_vit.ops import tf32
from eventful_vitdet.errors import ConfigError
from eventful_vitdet.modeling import gpu_detector
from torch import nn

SMALL = {
    "MODEL__RPN__PRE_NMS_TOPK_TEST": 40,
    "MODEL__RPN__POST_NMS_TOPK_TEST": 8,
    "MODEL__ROI_BOX_HEAD__POOLER_RESOLUTION": 2,
    # Cells as large as these would else have dozens of samples (test_region_pooling.py).
    "MODEL__ROI_BOX_HEAD__POOLER_SAMPLING_RATIO": 1,
    "MODEL__ROI_MASK_HEAD__POOLER_SAMPLING_RATIO": 1,
}
CASCADE = {
    "MODEL__ROI_HEADS__NAME": "CascadeROIHeads",
    "MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": True,
}
FEW = {"MODEL__ROI_HEADS__SCORE_THRESH_TEST": 0.3, "TEST__DETECTIONS_PER_IMAGE": 5}
MASKS = {"MODEL__MASK_ON": True, "TEST__DETECTIONS_PER_IMAGE": 4}


@pytest.fixture
def small_model(tiny_model):
    """Triton's interpreter needs milliseconds for each program."""
    return lambda **settings: tiny_model(**{**SMALL, **settings})


def frames(count: int, streams: int = 2) -> list[list[dict]]:
    """Frames of up to two streams, of different sizes, and resized differently."""
    generator = torch.Generator().manual_seed(0)
    sizes = [((80, 96), {"height": 120, "width": 144}), ((96, 64), {})]
    return [
        [
            {
                "image": torch.randint(0, 255, (3, *size), generator=generator, dtype=torch.uint8),
                "video_id": stream,
                "frame_id": number,
                **more,
            }
            for stream, (size, more) in enumerate(sizes[:streams])
        ]
        for number in range(count)
    ]


@pytest.fixture
def on_gpu(device, monkeypatch):
    """Have a detector compute its frames as on a GPU. The returned list has an entry for every frame that was."""
    from eventful_vitdet.modeling.gpu_detector import rest_of_frame

    computed = []

    def for_frame(rest, detector):
        if not hasattr(rest, "made"):
            rest.made = rest_of_frame.RestOfFrame(detector, detector.vit.compute_dtype)
        possible = rest.made.is_possible(device)
        computed.append(possible)
        return rest.made if possible else None

    monkeypatch.setattr(gpu_detector.RestOnGPU, "for_frame", for_frame)
    return computed


def run(model, device, videos):
    model = copy.deepcopy(model).to(device)
    return [[out["instances"].to("cpu") for out in model(batch)] for batch in videos]


def assert_same(found, expected) -> None:
    """Scores are softmaxes of sums of a few hundred products around 1, whose rounding in float32 is some 1e-6."""
    for ours, theirs in zip(sum(found, []), sum(expected, [])):
        assert ours.image_size == theirs.image_size
        assert set(ours.get_fields()) == set(theirs.get_fields())
        assert len(ours) == len(theirs)
        torch.testing.assert_close(ours.scores, theirs.scores, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours.pred_boxes.tensor, theirs.pred_boxes.tensor, atol=1e-3, rtol=1e-5)
        assert torch.equal(ours.pred_classes, theirs.pred_classes)
        if theirs.has("pred_masks"):
            assert (ours.pred_masks != theirs.pred_masks).float().mean() < 1e-3


@pytest.mark.parametrize("settings", [{}, CASCADE, FEW, MASKS], ids=["faster", "cascade", "few", "masks"])
def test_detections_are_detectron2s(device, small_model, request, settings):
    # On a GPU, the second frame is recorded and the third one repeats it.
    count = 3 if device.type == "cuda" else 1 if settings else 2
    model, videos = small_model(**settings), frames(count)
    expected = run(model, torch.device("cpu"), videos)
    assert any(len(found) for found in sum(expected, []))
    computed = request.getfixturevalue("on_gpu")
    assert_same(run(model, device, videos), expected)
    assert computed == [True] * len(videos)


def test_too_few_candidates_are_noticed(on_gpu, device, small_model, monkeypatch):
    """With a budget of candidates that does not suffice, Detectron2's own choice is taken."""
    from eventful_vitdet.modeling.gpu_detector import fixed_detections

    model, videos = small_model(), frames(1, streams=1)
    enough = run(model, device, videos)
    monkeypatch.setattr(fixed_detections, "CANDIDATES", 8)
    assert_same(run(model, device, videos), enough)


def test_limits_may_change_between_frames(on_gpu, device, small_model):
    model = small_model().to(device)
    # On a GPU, the last frame is recorded.
    for limit, batch in zip((7, 3, 7), frames(3 if device.type == "cuda" else 2, streams=1)):
        model.roi_heads.box_predictor.test_topk_per_image = limit
        (out,) = model(batch)
        assert len(out["instances"]) == limit


def test_new_weights_are_used(on_gpu, device, small_model):
    model = small_model().to(device)
    (batch,) = frames(1, streams=1)
    before = model(batch)[0]["instances"].scores
    nn.init.zeros_(model.roi_heads.box_predictor.cls_score.weight)
    nn.init.zeros_(model.roi_heads.box_predictor.cls_score.bias)
    after = model(batch)[0]["instances"].scores
    torch.testing.assert_close(after, torch.full_like(after, 0.25))
    assert not torch.allclose(before[:1], after[:1])


def test_what_is_compared_is_not_rounded_to_tf32(device):
    assert tf32.settings() == (False, False)


def test_a_short_type(on_gpu, device, small_model):
    videos = frames(1, streams=1)
    exact = run(small_model(), device, videos)
    rounded = run(small_model(MODEL__EVENTFUL__COMPUTE_DTYPE="bfloat16"), device, videos)
    for ours, theirs in zip(rounded[0], exact[0]):
        assert ours.scores.dtype is ours.pred_boxes.tensor.dtype is torch.float32
        torch.testing.assert_close(ours.scores[:3], theirs.scores[:3], atol=0.02, rtol=0.02)
        assert not torch.equal(ours.scores[:3], theirs.scores[:3])


def test_whoever_watches_sees_detectron2s_layers(on_gpu, device, small_model):
    model = small_model().to(device)
    seen = []
    (batch,) = frames(1, streams=1)
    expected = model(batch)
    handle = model.roi_heads.box_head.register_forward_hook(lambda *_: seen.append(1))
    watched = model(batch)
    handle.remove()
    assert seen and on_gpu == [True, False]
    assert_same([[out["instances"].to("cpu") for out in watched]], [[out["instances"].to("cpu") for out in expected]])


def test_a_class_with_another_forward(on_gpu, device, small_model, monkeypatch):
    model = small_model().to(device)
    (batch,) = frames(1, streams=1)
    model(batch)
    heads = type(model.roi_heads.box_head)
    written = heads.forward
    monkeypatch.setattr(heads, "forward", lambda head, x: 0 * written(head, x))
    (found,) = model(batch)
    monkeypatch.undo()
    assert on_gpu == [True, False]
    assert not len(found["instances"]) or found["instances"].scores.std() < 1e-6  # all regions look alike


def test_heads_that_are_not_known(on_gpu, device, small_model, caplog):
    """They get the proposals."""
    model, videos = small_model(), frames(1, streams=1)

    class OtherHeads(type(model.roi_heads)):
        pass

    expected = run(model, device, videos)
    model.roi_heads.__class__ = OtherHeads
    with caplog.at_level(logging.INFO):
        assert_same(run(model, device, videos), expected)
    assert "OtherHeads are no StandardROIHeads" in caplog.text


def test_a_pyramid_that_is_not_known(device, small_model):
    from eventful_vitdet.modeling.gpu_detector.rest_of_frame import RestOfFrame

    model = small_model()

    class OtherPyramid(type(model.backbone)):
        pass

    model.backbone.__class__ = OtherPyramid
    with pytest.raises(ConfigError, match="OtherPyramid is no SimpleFeaturePyramid"):
        RestOfFrame(model, None)


def test_copies_share_what_needs_no_change(device, small_model):
    from eventful_vitdet.modeling.gpu_detector.inference_copies import copy_for_inference

    head = small_model().roi_heads.box_head
    ours = dict(copy_for_inference(head, torch.bfloat16).named_parameters())
    same = dict(copy_for_inference(head, None).named_parameters())
    for name, parameter in head.named_parameters():
        is_norm = ".norm." in name
        assert ours[name].dtype is (torch.float32 if is_norm else torch.bfloat16)
        needs_other_layout = parameter.dim() == 4 and not parameter.is_contiguous(memory_format=torch.channels_last)
        assert (same[name].data_ptr() != parameter.data_ptr()) == needs_other_layout, name


def test_a_copy_of_a_detector_records_for_itself(small_model):
    model = small_model()
    assert copy.deepcopy(model)._rest_on_gpu is not model._rest_on_gpu
    assert model._rest_on_gpu.for_frame(model) is None  # on a CPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_recorded_frames_are_repeated(small_model):
    model = small_model().to("cuda")
    videos = frames(4)
    for batch in videos:
        model(batch)
    (kind,) = model._rest_on_gpu._rest._layers().kinds.values()
    assert kind.frames == 4 and kind.graph.refusal is None


def scores(model, batch):
    return model(batch)[0]["instances"].scores


@pytest.fixture
def in_the_interpreter(monkeypatch):
    """A detector finds by itself what computes its frames, on a CPU too."""
    if torch.cuda.is_available():
        return
    monkeypatch.setattr(gpu_detector.RestOnGPU, "for_frame", _on_a_cpu_too(gpu_detector.RestOnGPU.for_frame))


def _on_a_cpu_too(for_frame):
    def of(rest, detector):
        class OnGPU:
            device = torch.device("cuda")
            __getattr__ = staticmethod(lambda name: getattr(detector, name))

        return for_frame(rest, OnGPU())

    return of


def test_other_stages_of_the_pyramid_are_used(in_the_interpreter, device, small_model):
    model, (batch,) = small_model().to(device), frames(1, streams=1)
    before = scores(model, batch)
    rest = model._rest_on_gpu._rest
    assert rest is not None and torch.equal(scores(model, batch), before) and model._rest_on_gpu._rest is rest
    stage = copy.deepcopy(model.backbone.stages[0])
    for parameter in stage.parameters():
        nn.init.normal_(parameter)
    model.backbone.stages[0] = stage
    assert not torch.allclose(scores(model, batch)[:1], before[:1])


@pytest.mark.parametrize("say", [lambda model: model.weights_changed(), lambda model: model.train().eval()])
def test_weights_that_changed_behind_pytorchs_back(say, in_the_interpreter, device, small_model, monkeypatch):
    monkeypatch.setattr("eventful_vit.weights._make_sampler", lambda tensors: None)  # as on a GPU
    model, (batch,) = small_model().to(device), frames(1, streams=1)
    scores(model, batch)
    model.roi_heads.box_predictor.cls_score.weight.data.zero_()
    model.roi_heads.box_predictor.cls_score.bias.data.zero_()
    say(model)
    after = scores(model, batch)
    torch.testing.assert_close(after, torch.full_like(after, 0.25))


def test_other_codings_of_boxes_are_used(device, small_model):
    from eventful_vitdet.modeling.gpu_detector.rest_of_frame import RestOfFrame

    for settings in ({}, CASCADE):
        model = small_model(**settings).to(device)
        layers = RestOfFrame(model, None)._layers()
        predictor = model.roi_heads.box_predictor
        codings = [model.proposal_generator, *(predictor if settings else [predictor])]
        for part in codings:
            before = layers.settings()
            part.box2box_transform.weights = (3.0, 3.0, 1.0, 1.0)
            assert layers.settings() != before


def change_limits(model, number):
    heads, rpn = model.roi_heads.box_predictor, model.proposal_generator
    heads.test_score_thresh, heads.test_nms_thresh = (0.05, 0.3, 0.9, 0.26)[number], (0.5, 0.3, 0.9, 1.0)[number]
    heads.test_topk_per_image = (5, -1, 0, 100)[number]
    rpn.nms_thresh, rpn.post_nms_topk = (0.7, 0.3, 0.7, 0.0)[number], {True: 8, False: (8, 4, 8, 3)[number]}


def use_sigmoids(model, number):
    model.roi_heads.box_predictor.use_sigmoid_ce = True


def one_anchor_is_nan(model, number):
    nn.init.constant_(model.proposal_generator.rpn_head.objectness_logits.bias[:1], torch.nan)


def nothing_is_good_enough(model, number):
    model.roi_heads.box_predictor.test_score_thresh = 1.1


CHANGES = [change_limits, use_sigmoids, one_anchor_is_nan, nothing_is_good_enough]


@pytest.mark.parametrize("change", CHANGES)
def test_changes_between_frames(change, device, small_model, request):
    model, videos, found = small_model(), frames(4 if change is change_limits else 1, streams=1), []
    for way in ("plain", "on_gpu"):
        if way == "on_gpu":
            request.getfixturevalue(way)
        detector, outputs = copy.deepcopy(model).to(device), []
        for number, batch in enumerate(videos):
            change(detector, number)
            outputs.append([out["instances"].to("cpu") for out in detector(batch)])
        found.append(outputs)
    assert_same(found[1], found[0])


def test_sizes_that_change_within_one_canvas(device, small_model, request):
    model, videos = small_model(), frames(3 if device.type == "cuda" else 2)
    for batch, lines in zip(videos, (0, 13, 6)):
        batch[0]["image"] = batch[0]["image"][:, : 80 - lines, : 96 - 2 * lines]
    expected = run(model, device, videos)
    request.getfixturevalue("on_gpu")
    assert_same(run(model, device, videos), expected)
