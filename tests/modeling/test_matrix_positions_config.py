"""MODEL.VIT.REL_POS_RESIZE: the paper's rule, for weights of another size."""

import pytest
import torch
from eventful_vitdet.checkpoint import VideoCheckpointer
from eventful_vitdet.errors import CheckpointError

MATRIX = {"MODEL.VIT.REL_POS_RESIZE": "matrix"}


def frame(size: int) -> dict:
    return {"image": torch.rand(3, size, size, generator=torch.Generator().manual_seed(0)) * 255}


def test_tables_of_the_file_are_used_as_they_are(tiny_model, tmp_path):
    large = tiny_model(**{"MODEL.VIT.IMG_SIZE": 128})
    with torch.no_grad():
        large.vit.blocks[1].attn.rel_pos_h.normal_()
    path = str(tmp_path / "large.pth")
    torch.save({"model": large.state_dict()}, path)

    outputs = {}
    for rule in ("table", "matrix"):
        settings = {"MODEL.VIT.REL_POS_IMG_SIZE": 128, "MODEL.VIT.REL_POS_RESIZE": rule}
        model = tiny_model(**settings)
        VideoCheckpointer(model).load(path)
        assert torch.equal(model.vit.blocks[1].attn.rel_pos_h, large.vit.blocks[1].attn.rel_pos_h)
        with torch.no_grad():
            outputs[rule] = model.backbone(model.preprocess_image([frame(96)]).tensor)["p4"]
    plain = tiny_model()
    VideoCheckpointer(plain).load(path)
    with torch.no_grad():
        resized = plain.backbone(plain.preprocess_image([frame(96)]).tensor)["p4"]
    torch.testing.assert_close(outputs["table"], resized)  # resized when loaded, or when it is used
    assert (outputs["matrix"] - resized).abs().max() > 1e-3


def test_a_table_of_another_size_is_not_resized_by_the_other_rule(tiny_model, tmp_path):
    path = str(tmp_path / "large.pth")
    torch.save({"model": tiny_model(**{"MODEL.VIT.IMG_SIZE": 128}).state_dict()}, path)
    with pytest.raises(CheckpointError, match=r"set MODEL.VIT.REL_POS_IMG_SIZE to the size .*\(15, 12\) to \(11, 12\)"):
        VideoCheckpointer(tiny_model(**MATRIX)).load(path)


def test_an_unknown_rule_is_named(tiny_model):
    with pytest.raises(ValueError, match="rel_pos_resize = 'Matrix' is unknown"):
        tiny_model(**{"MODEL.VIT.REL_POS_RESIZE": "Matrix"})
