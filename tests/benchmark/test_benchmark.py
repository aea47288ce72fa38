"""The benchmark's bookkeeping, on a model of a few milliseconds; times themselves are not tested."""

import json

import cv2
import pytest
import torch
from eventful_vit import ops
from eventful_vitdet.benchmark import benchmark, format_benchmark, format_profile, make_variants, plot_benchmark
from eventful_vitdet.benchmark.measure import moving_video, peak_memory
from eventful_vitdet.benchmark.variants import attend_by_library
from eventful_vitdet.cli.benchmark_command import main
from eventful_vitdet.config_files import build_cfg

OPTIONS = {
    "MODEL.DEVICE": "cpu",
    "MODEL.VIT.IMG_SIZE": 96,
    "MODEL.VIT.EMBED_DIM": 24,
    "MODEL.VIT.DEPTH": 2,
    "MODEL.VIT.NUM_HEADS": 2,
    "MODEL.VIT.WINDOW_SIZE": 3,
    "MODEL.VIT.WINDOW_BLOCKS": [0],
    "MODEL.SIMPLE_PYRAMID.OUT_CHANNELS": 16,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
}


@pytest.fixture(scope="module", autouse=True)
def small_products():
    """The rate of matrix products is that of small ones: not this machine's, but soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eventful_vitdet.benchmark.roofline.SHAPE", (64, 24, 96))
        yield


@pytest.fixture(scope="module")
def result(repository):
    options = [item for pair in OPTIONS.items() for item in pair]
    cfg = build_cfg(str(repository / "configs" / "Base-ViTDet.yaml"), options)
    variants = make_variants(["exact", "full"], ["float32", "bfloat16"], [4, 12], pyramid=True, library=True)
    return benchmark(cfg, variants, rounds=2, profile=True)


def test_rows_and_ratios(result):
    rows = {(line["dtype"], line["variant"]): line for line in result["rows"]}
    assert len(rows) == len(result["rows"]) == 2 * (2 + 3 * 2)
    dense, few, more = (rows["float32", name] for name in ("dense", "exact, r = 4", "exact, r = 12"))
    assert few["backbone_gmacs"] < more["backbone_gmacs"] < dense["backbone_gmacs"] < dense["total_gmacs"]
    assert dense["backbone_saving"] == dense["backbone_speedup"] == 1
    assert few["backbone_saving"] == dense["backbone_gmacs"] / few["backbone_gmacs"]
    assert all(0 < line["backbone_seconds"] < line["total_seconds"] for line in result["rows"])
    assert rows["float32", "exact, r = 4, eventful pyramid"]["total_gmacs"] != few["total_gmacs"]
    assert (
        rows["bfloat16", "exact, r = 4"]["state_bytes"]
        < few["state_bytes"]
        < rows["float32", "full, r = 4"]["state_bytes"]
    )
    json.dumps(result, allow_nan=False)


def test_profile_adds_up(result):
    profile = result["profiles"]["float32, exact, r = 4"]
    assert profile["linear layers, GELU"] > 0 and profile["global attention: sums"] > 0
    assert "dense attention" in result["profiles"]["float32, dense"]
    assert all(seconds > -1e-3 for profile in result["profiles"].values() for seconds in profile.values())


def test_tables_and_plot(result, tmp_path):
    assert "| exact, r = 12 " in format_benchmark(result)
    assert "| linear layers, GELU " in format_profile(result)
    plot_benchmark([result, result], str(tmp_path / "plot.png"))
    assert cv2.imread(str(tmp_path / "plot.png")).shape[1] > 800


def test_library_attention_gives_the_same():
    for window, pool in ((0, 1), (0, 2), (3, 1)):
        tables = [torch.randn(2 * size - 1, 8) for size in ((window, window) if window else (4, 6))]
        arguments = (torch.randn(2, 24, 48), torch.randn(48), tables, 2, 0.35, (4, 6, window, pool), torch.float32)
        torch.testing.assert_close(attend_by_library(*arguments), ops.attend(*arguments))


def test_moving_video_is_one_sequence_that_changes_in_part():
    video = moving_video(96)
    first, second = next(video), next(video)
    changed = (first["image"] != second["image"]).float().mean()
    assert 0 < changed < 0.2
    assert (first["video_id"], second["frame_id"] - first["frame_id"]) == (second["video_id"], 1)


def test_peak_memory_sees_a_large_tensor():
    freed = [torch.ones(1 << 20) for _ in range(100)]  # below the size that is mapped, and so kept by the C library
    last = freed.pop()
    del freed
    with peak_memory(torch.device("cpu")) as peak:
        again = [torch.ones(1 << 20) for _ in range(64)]  # 256 MiB
    assert peak[0] is None or 2e8 < peak[0] < 4e8
    del last, again
    with peak_memory(torch.device("cpu")) as peak:
        torch.ones(64, 1024, 1024).add_(1)  # 256 MiB
    assert peak[0] is None or 2e8 < peak[0] < 4e8


def test_peak_memory_is_unknown_where_the_system_does_not_tell(monkeypatch):
    """As on Windows, where there is no C library to ask either."""
    monkeypatch.setattr("eventful_vitdet.benchmark.measure.resident_bytes", lambda: None)
    monkeypatch.setattr("eventful_vitdet.benchmark.measure.return_free_memory", lambda: 1 / 0)
    with peak_memory(torch.device("cpu")) as peak:
        pass
    assert peak == [None]


class TestModels:
    """Vision Transformers of timm."""

    @pytest.fixture(autouse=True)
    def registered(self):
        pytest.importorskip("timm", reason="timm is not installed")

    def test_rows(self, tmp_path, capsys):
        words = ["--model", "timm:vit_tiny_patch16_224", "--sizes", "64", "--rounds", "1", "--output", str(tmp_path)]
        assert main([*words, "MODEL.DEVICE", "cpu"]) == 0
        (result,) = json.loads((tmp_path / "benchmark.json").read_text())
        dense, *eventful = result["rows"]
        assert result["name"] == words[1] and result["image_size"] == 64
        assert [line["variant"] for line in eventful] == ["exact, r = 4", "exact, r = 2", "exact, r = 1"]
        assert dense["backbone_gmacs"] > eventful[0]["backbone_gmacs"] > eventful[1]["backbone_gmacs"]
        assert dense["backbone_seconds"] > 0 and eventful[0]["flush_over_dense"] > 0 and eventful[0]["state_bytes"]
        assert "timm:vit_tiny_patch16_224, 64 px" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "model, message",
        [
            ("timm:resnet18", "ResNet is no plain Vision Transformer"),
            ("timm:no_such_model", "no_such_model"),
            ("vit_tiny_patch16_224", "write timm:NAME"),
        ],
    )
    def test_what_is_no_model(self, model, message, tmp_path, capsys):
        assert main(["--model", model, "--output", str(tmp_path)]) == 1
        assert message in capsys.readouterr().err
        assert not list(tmp_path.iterdir())


def test_options_of_detectors(capsys):
    with pytest.raises(SystemExit):
        main(["--model", "timm:vit_tiny_patch16_224", "--pyramid"])
    assert "--pyramid is for detectors" in capsys.readouterr().err
