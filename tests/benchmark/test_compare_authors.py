"""The comparison with the authors' code. Their code is not at hand here; a stand-in has its names and computes less."""

import json
import os
import sys

import pytest
import torch
from eventful_vit import EventfulViT
from eventful_vitdet.benchmark.authors_backbone import AuthorsViT, import_authors_code
from eventful_vitdet.checkpoint_names import adapt_names
from eventful_vitdet.cli.compare_authors_command import main
from eventful_vitdet.errors import ConfigError

CHECKOUT = "EVENTFUL_VITDET_AUTHORS_CODE"
SMALL = [
    *("MODEL.VIT.EMBED_DIM", "32", "MODEL.VIT.DEPTH", "2", "MODEL.VIT.NUM_HEADS", "2"),
    *("MODEL.VIT.WINDOW_BLOCKS", "[0]", "MODEL.VIT.WINDOW_SIZE", "2", "MODEL.VIT.REL_POS_IMG_SIZE", "96"),
    *("MODEL.DEVICE", "cpu"),
]
STAND_IN = {
    "base.py": """
import torch
class Counted(torch.nn.Module):
    def modules_of_type(self, kind): return [module for module in self.modules() if isinstance(module, kind)]
    def counting(self): pass
    def no_counting(self): pass
    def clear_counts(self): pass
    def total_counts(self): return {"linear_flops": 7}
""",
    "modules.py": "class TokenGate: pass\n",
    "policies.py": "class TokenNormTopK:\n    def __init__(self, k): self.k = k\n",
    "backbones.py": """
import torch
from eventful_transformer.base import Counted
class ViTBackbone(Counted):
    def __init__(self, **arguments):
        super().__init__()
        self.kept = torch.zeros(25)
    def load_state_dict(self, weights): self.names = set(weights)
    def forward(self, x): return 2 * x
""",
}


@pytest.fixture
def stand_in(tmp_path):
    """A folder that looks like a checkout. What is imported from it is forgotten after the test."""
    package = tmp_path / "checkout" / "eventful_transformer"
    package.mkdir(parents=True)
    for name, text in STAND_IN.items():
        (package / name).write_text(text)
    yield str(package.parent)
    for name in [name for name in sys.modules if name.partition(".")[0] == "eventful_transformer"]:
        del sys.modules[name]


def run(folder, tmp_path, *words):
    return main([folder, "--size", "64", "--budgets", "5", "--frames", "3", "--output", str(tmp_path / "out"), *words])


def test_another_result_is_seen(stand_in, tmp_path, capsys):
    assert run(stand_in, tmp_path, "--modes", "full", *SMALL) == 0
    rows = json.loads((tmp_path / "out" / "compare_authors.json").read_text())
    assert [(row["attention"], row["r"], row["same_operations"]) for row in rows] == [
        ("dense", None, False),
        ("full", 5, False),
    ]
    assert all(row["largest_difference"] > 0.1 for row in rows)
    assert all(row["authors"]["macs_by_category"]["linear"] == 7 for row in rows)
    assert all(row["authors"]["state_bytes"] == 100 and row["ours"]["seconds"] > 0 for row in rows)
    shown = capsys.readouterr().out
    assert shown.count(" no: ") == 2 and (tmp_path / "out" / "compare_authors.md").read_text() in shown


def test_mistakes(stand_in, tmp_path, capsys):
    mistakes = {
        (str(tmp_path / "nothing"),): "has no eventful_transformer/backbones.py",
        (stand_in, *SMALL, "MODEL.VIT.REL_POS_RESIZE", "table"): "REL_POS_RESIZE must be matrix",
        (stand_in, *SMALL, "MODEL.VIT.USE_ABS_POS", "False"): "always adds positions",
        (stand_in, "--budgets", "17", *SMALL): "a frame has only 16 tokens",
    }
    for (folder, *words), message in mistakes.items():
        assert run(folder, tmp_path, *words) == 1
        assert message in capsys.readouterr().err


def test_a_package_is_missing(stand_in):
    with open(os.path.join(stand_in, "eventful_transformer", "policies.py"), "a") as file:
        file.write("import no_such_package\n")
    with pytest.raises(ConfigError, match="needs no_such_package"):
        import_authors_code(stand_in)


def test_names_are_those_of_their_files(stand_in):
    """What goes into their backbone, read as one of their files, is the ViT again."""
    arguments = {"use_rel_pos": True, "rel_pos_img_size": 96, "rel_pos_resize": "matrix", "pretrain_img_size": 64}
    arguments |= {"window_size": 2, "window_block_indexes": [0]}
    vit = EventfulViT(img_size=64, embed_dim=32, depth=2, num_heads=2, **arguments)
    model = AuthorsViT(import_authors_code(stand_in), vit, "full", (4, 4))
    theirs = {f"backbone.{name}": torch.zeros(1) for name in model.backbone.names}
    found, _ = adapt_names(theirs, {})
    expected = {f"backbone.net.{name}" for name in vit.state_dict() if not name.startswith("patch_embed.")}
    assert set(found) == expected


@pytest.mark.skipif(CHECKOUT not in os.environ, reason=f"{CHECKOUT} does not name a checkout of the authors' code")
@pytest.mark.parametrize("pool", [1, 2])
def test_their_code(tmp_path, pool):
    """Same operations; outputs within rounding of float32 (measured: 2e-6 of the largest)."""
    words = ["--modes", "full", "query-key", "tokenwise", *SMALL, "MODEL.EVENTFUL.KV_POOL", str(pool)]
    assert run(os.environ[CHECKOUT], tmp_path, *words) == 0
    rows = json.loads((tmp_path / "out" / "compare_authors.json").read_text())
    assert len(rows) == 4 and all(row["same_operations"] and row["largest_difference"] < 2e-5 for row in rows)
