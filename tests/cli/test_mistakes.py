"""The command of tools/train_net.py, with data and settings that are wrong: one line, an exit code, nothing left."""

import json

import cv2
import numpy as np
import pytest
import torch
from eventful_vitdet.cli.train_command import main
from eventful_vitdet.data import register_test_json
from eventful_vitdet.data.mapper import VideoTrainLoader

WIDTH, HEIGHT = 64, 48
SETTINGS = {
    "MODEL.DEVICE": "cpu",
    "MODEL.VIT.IMG_SIZE_HW": "[64, 64]",
    "MODEL.VIT.EMBED_DIM": "16",
    "MODEL.VIT.DEPTH": "1",
    "MODEL.VIT.NUM_HEADS": "2",
    "MODEL.VIT.WINDOW_BLOCKS": "[]",
    "MODEL.SIMPLE_PYRAMID.OUT_CHANNELS": "8",
    "MODEL.ROI_BOX_HEAD.FC_DIM": "16",
    "MODEL.ROI_HEADS.NUM_CLASSES": "2",
    "INPUT.CROP_PIXELS": "[48, 64]",
    "DATALOADER.FRAME_CACHE": "",
    "SOLVER.IMS_PER_BATCH": "1",
    "SOLVER.MAX_ITER": "12",
    "SOLVER.WARMUP_ITERS": "1",
    "SOLVER.OPTIMIZER": "muon",
    "TEST.EVAL_PERIOD": "0",
}
PROGRESS = {"metrics.json", "fingerprint.json"}
"""Files of a run that has begun."""


@pytest.fixture
def train_net(repository, tmp_path, data_set):
    """Calls it with a tiny model, trained and evaluated on `data_set`; returns the exit code."""
    config = str(repository / "configs" / "demo" / "vitdet_tiny.yaml")
    name = register_test_json(str(data_set))

    def call(*words: str, **settings) -> int:
        data = {"DATASETS.TRAIN": f"('{name}',)", "DATASETS.TEST": f"('{name}',)", "OUTPUT_DIR": str(tmp_path / "out")}
        options = {**SETTINGS, **data, **{key.replace("__", "."): str(value) for key, value in settings.items()}}
        pairs = [word for pair in options.items() for word in pair]
        return main(["--config-file", config, *words, *pairs])

    return call


@pytest.fixture
def data_set(tmp_path):
    """The annotation file of two videos of four frames."""
    document = {"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}], "images": [], "annotations": []}
    document["videos"] = [{"id": v, "file_name": f"{v}.avi", "width": WIDTH, "height": HEIGHT} for v in (1, 2)]
    for video in document["videos"]:
        path = str(tmp_path / video["file_name"])
        writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 30, (WIDTH, HEIGHT))
        for frame in range(4):
            number = len(document["images"]) + 1
            writer.write(np.full((HEIGHT, WIDTH, 3), 20 * number, np.uint8))
            document["images"].append({"id": number, "video_id": video["id"], "frame_id": frame})
            box = {"image_id": number, "category_id": video["id"], "bbox": [4, 4, 30, 20]}
            document["annotations"].append({"id": number, **box})
        writer.release()
    path = tmp_path / "set.json"
    path.write_text(json.dumps(document))
    return path


def cut(path, share=0.9):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def check_error(capsys, message: str) -> None:
    output = capsys.readouterr()
    last = output.err.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert "Traceback" not in output.out + output.err


def written(tmp_path) -> set[str]:
    """Names of files that a run writes when it has come to something, and of what it may have left over."""
    files = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    return {name for name in files if name.endswith((".pth", ".json", ".md", ".tmp"))} - PROGRESS


def finished(tmp_path) -> set[str]:
    """Names of the videos that an evaluation has finished."""
    return {path.stem for path in (tmp_path / "out" / "inference" / "videos").glob("*.npz")}


def test_without_mistakes(train_net, tmp_path, capsys):
    assert train_net() == 0
    shown = capsys.readouterr().out
    assert shown.index("first iteration of this run: total_loss") < shown.index("iter: 11")
    assert shown.count("first iteration") == 1
    assert written(tmp_path) >= {"model_final.pth", "results.json"}
    assert train_net("--eval-only", "--restart", MODEL__WEIGHTS=tmp_path / "out" / "model_final.pth") == 0
    assert train_net("--eval-only") == 1
    check_error(capsys, "holds the results of another evaluation (2 videos): weights was ")
    assert train_net("--eval-only", OUTPUT_DIR=tmp_path / "other") == 0
    assert "random weights" in capsys.readouterr().err


def test_evaluation_of_a_truncated_video(train_net, tmp_path, capsys):
    cut(tmp_path / "2.avi")
    assert train_net("--eval-only") == 1
    check_error(capsys, "2.avi: the file is cut short")
    assert written(tmp_path) == set() and finished(tmp_path) == {"1"}


def test_earlier_results_survive_a_failed_run(train_net, tmp_path, capsys):
    assert train_net("--eval-only") == 0
    before = (tmp_path / "out" / "inference" / "results.json").read_bytes()
    cut(tmp_path / "2.avi")
    assert train_net("--eval-only", "--restart") == 1
    assert (tmp_path / "out" / "inference" / "results.json").read_bytes() == before


@pytest.mark.parametrize("workers", [0, 1])
def test_training_on_a_truncated_video(train_net, tmp_path, capsys, workers):
    cut(tmp_path / "2.avi")
    assert train_net(DATALOADER__NUM_WORKERS=workers) == 1
    check_error(capsys, "2.avi: the file is cut short")
    assert written(tmp_path) == set()


@pytest.mark.parametrize("words", [["--eval-only"], []])
def test_other_number_of_classes(train_net, tmp_path, capsys, words):
    assert train_net(*words, MODEL__ROI_HEADS__NUM_CLASSES=3) == 1
    check_error(capsys, "set MODEL.ROI_HEADS.NUM_CLASSES to 2")
    assert written(tmp_path) == set()


@pytest.mark.parametrize("name", ["('absent_set',)", "('demo_vid_test',)"])
def test_training_finds_an_evaluation_that_must_fail_before_it_begins(train_net, tmp_path, capsys, monkeypatch, name):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert train_net(DATASETS__TEST=name) == 1
    check_error(capsys, "registered" if "absent" in name else "demo_vid/annotations/test.json: does not exist")
    assert written(tmp_path) == set()


def test_data_sets_by_their_paths(train_net, tmp_path, data_set, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"DATASETS__TRAIN": "('set.json',)", "DATASETS__TEST": "('set.json',)"}
    assert train_net(SOLVER__MAX_ITER=1, **names) == 0
    assert written(tmp_path) >= {"model_final.pth", "results.json"}


def test_training_without_evaluation(train_net, tmp_path):
    assert train_net(DATASETS__TEST="()", SOLVER__MAX_ITER=1) == 0
    assert written(tmp_path) >= {"model_final.pth"}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.VIT.NUM_HEADS", 0, "MODEL.VIT.NUM_HEADS must be 1 or larger"),
        ("MODEL.VIT.PATCH_SIZE", 0, "MODEL.VIT.PATCH_SIZE must be 1 or larger"),
        ("MODEL.VIT.DEPTH", 0, "MODEL.VIT.DEPTH must be 1 or larger"),
        ("MODEL.VIT.IMG_SIZE_HW", "[64]", "MODEL.VIT.IMG_SIZE_HW must be (height, width)"),
        ("MODEL.EVENTFUL.KV_POOL", 0, "MODEL.EVENTFUL.KV_POOL must be 1 or larger"),
        ("MODEL.EVENTFUL.R", -1, "MODEL.EVENTFUL.R"),
        ("MODEL.EVENTFUL.ATTENTION", "best", "choose one of"),
        ("MODEL.EVENTFUL.STATE_DTYPE", "float8", "STATE_DTYPE = 'float8'"),
        ("MODEL.RPN.IN_FEATURES", "['res4']", "MODEL.RPN.IN_FEATURES names res4, but the pyramid makes p3"),
        ("INPUT.MIN_SIZE_TEST", -1, "INPUT.MIN_SIZE_TEST"),
        ("MODEL.EVENTFUL.KV_POOL", 3, "MODEL.EVENTFUL.KV_POOL = 3 does not divide the "),
        ("MODEL.RPN.IN_FEATURES", "[4]", "MODEL.RPN.IN_FEATURES is [4]; expected one or more names of feature maps"),
        ("MODEL.RPN.BBOX_REG_WEIGHTS", "[1.0]", "MODEL.RPN.BBOX_REG_WEIGHTS is (1.0,); expected 4 positive numbers"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", "[16]", "SIZES is [16]; expected one or more lists of positive numbers"),
        ("MODEL.VIT.MLP_RATIO", 0.0, "MODEL.VIT.MLP_RATIO is 0.0; expected a positive number"),
        ("MODEL.VIT.WINDOW_SIZE", -1, "MODEL.VIT.WINDOW_SIZE is -1; expected 0 or larger"),
        ("TEST.THREADS_PER_PROCESS", 1000000, "TEST.THREADS_PER_PROCESS is 1000000; expected 10000 or less"),
        ("INPUT.BRIGHTNESS", "[0.8]", "INPUT.BRIGHTNESS is (0.8,); expected 2 numbers"),
        ("INPUT.CROP_PIXELS", "[0.5, 64]", "INPUT.CROP_PIXELS is (0.5, 64); expected 2 numbers of pixels"),
        ("DATASETS.TRAIN", "(5,)", "DATASETS.TRAIN is (5,); expected any number of names"),
        # Errors of Detectron2's builders, which know no classes of ours.
        ("MODEL.META_ARCHITECTURE", "Nothing", "No object named 'Nothing' found in 'META_ARCH' registry!"),
        ("MODEL.PIXEL_MEAN", "[1.0]", "MODEL.PIXEL_MEAN"),
        ("MODEL.WEIGHTS", "absent.pth", "there is no file absent.pth"),
    ],
)
def test_settings_that_cannot_be(train_net, tmp_path, capsys, key, value, message):
    assert train_net("--eval-only", **{key.replace(".", "__"): value}) == 1
    check_error(capsys, message)
    assert written(tmp_path) == set()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SOLVER.LR_SCHEDULER_NAME", "none"),
        ("SOLVER.IMS_PER_BATCH", 0),
        ("SOLVER.MAX_ITER", 0),
        ("SOLVER.CHECKPOINT_PERIOD", 0),
        ("SOLVER.EMA_DECAY", -1.0),
    ],
)
def test_training_settings_that_cannot_be(train_net, tmp_path, capsys, key, value):
    assert train_net(**{key.replace(".", "__"): value}) == 1
    check_error(capsys, key)
    assert written(tmp_path) == set()


def test_a_training_that_diverges(train_net, tmp_path, capsys):
    assert train_net(SOLVER__BASE_LR=1e30, SOLVER__OPTIMIZER="sgd", SOLVER__CLIP_GRADIENTS__ENABLED=False) == 1
    check_error(capsys, "SOLVER.BASE_LR")
    assert "Traceback" in (tmp_path / "out" / "log.txt").read_text()  # where it was found


def test_a_defect_in_training_is_no_mistake_of_the_user(train_net, tmp_path, monkeypatch):
    def defect(self, *arguments, **options):
        raise ValueError("shapes do not fit")

    monkeypatch.setattr("eventful_vitdet.training.VideoTrainer.run_step", defect)
    with pytest.raises(ValueError, match="shapes do not fit"):
        train_net()
    assert "ValueError: shapes do not fit" in (tmp_path / "out" / "log.txt").read_text()


def test_interrupted_training_goes_on(train_net, tmp_path, capsys, monkeypatch):
    save = torch.save

    def interrupt(data, path):
        save(data, path)
        if data["iteration"] == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupt)
    assert train_net(SOLVER__CHECKPOINT_PERIOD=3) == 130
    assert "interrupted" in capsys.readouterr().err
    assert written(tmp_path) == {"model_0000002.pth"}  # the one that was being written is not there in part
    monkeypatch.undo()
    assert train_net("--resume", SOLVER__CHECKPOINT_PERIOD=3) == 0
    assert "Starting training from iteration 3" in capsys.readouterr().out


def test_a_resumed_training_draws_other_images(train_net, monkeypatch):
    monkeypatch.setattr(VideoTrainLoader, "continue_after", lambda self, images: seen.append(images))
    seen = []
    assert train_net(SOLVER__MAX_ITER=2, SOLVER__IMS_PER_BATCH=2) == 0
    assert seen == []
    assert train_net("--resume", SOLVER__MAX_ITER=3, SOLVER__IMS_PER_BATCH=2) == 0
    assert seen == [4]


def test_resuming_from_a_file_of_weights_alone_says_so(train_net, tmp_path, capsys):
    assert train_net(SOLVER__MAX_ITER=2) == 0
    final = tmp_path / "out" / "model_final.pth"
    torch.save({"model": torch.load(final, weights_only=True)["model"]}, final)
    capsys.readouterr()
    assert train_net("--resume", SOLVER__MAX_ITER=2) == 0
    shown = capsys.readouterr()
    message = "model_final.pth holds weights only; optimiser, schedule, moving average and iterations start over"
    assert message in shown.err and "Starting training from iteration 0" in shown.out


def test_resuming_without_a_checkpoint_says_so(train_net, capsys):
    assert train_net("--resume", SOLVER__MAX_ITER=1) == 0
    assert "--resume: no checkpoint in " in capsys.readouterr().err


def test_resuming_from_a_file_that_is_gone(train_net, tmp_path, capsys):
    assert train_net(SOLVER__MAX_ITER=1) == 0
    (tmp_path / "out" / "model_final.pth").unlink()
    assert train_net("--resume") == 1
    assert "last_checkpoint names " in capsys.readouterr().err
    assert train_net("--resume") == 1
    check_error(capsys, "--resume: none of the checkpoints in ")


def test_resuming_falls_back_to_the_checkpoint_before_a_broken_one(train_net, tmp_path, capsys):
    assert train_net(SOLVER__MAX_ITER=6, SOLVER__CHECKPOINT_PERIOD=2) == 0
    folder = tmp_path / "out"
    for name in ("model_final.pth", "model_0000005.pth"):
        (folder / name).write_bytes((folder / name).read_bytes()[:3000])
    whole = torch.load(folder / "model_0000003.pth", weights_only=True)
    capsys.readouterr()
    assert train_net("--resume", SOLVER__MAX_ITER=6, SOLVER__CHECKPOINT_PERIOD=2) == 0
    shown = capsys.readouterr()
    log = shown.out + shown.err
    assert "--resume: " in log and "model_final.pth cannot be read as a checkpoint" in log
    assert "model_0000005.pth cannot be read as a checkpoint" in log and "Trying the checkpoint before it" in log
    assert "Starting training from iteration 4" in log and whole["iteration"] == 3
    assert torch.load(folder / "model_final.pth", weights_only=True)["iteration"] == 5


def test_resuming_takes_no_account_of_what_was_asked_of_other_weights(train_net, tmp_path, capsys):
    other = {"MODEL__WEIGHTS_SET": "model_ema"}
    assert train_net(SOLVER__MAX_ITER=1) == 0
    assert train_net("--resume", SOLVER__MAX_ITER=2, **other) == 0
    assert "Starting training from iteration 1" in capsys.readouterr().out
    assert train_net("--resume", "--eval-only", "--restart", **other) == 0
    assert "random weights" not in capsys.readouterr().err
    assert train_net("--eval-only", "--restart", MODEL__WEIGHTS=tmp_path / "out" / "model_final.pth", **other) == 1
    check_error(capsys, "MODEL.WEIGHTS_SET")


def test_training_from_weights_of_other_classes(train_net, tmp_path, capsys):
    assert train_net(SOLVER__MAX_ITER=1, OUTPUT_DIR=tmp_path / "other", MODEL__ROI_BOX_HEAD__FC_DIM=24) == 0
    weights = tmp_path / "other" / "model_final.pth"
    assert train_net(SOLVER__MAX_ITER=1, MODEL__WEIGHTS=weights) == 1
    parts = "['roi_heads.box_head', 'roi_heads.box_predictor']"
    check_error(capsys, f'To re-initialise parts, name them: MODEL.REINITIALIZE "{parts}".')
    assert train_net(SOLVER__MAX_ITER=1, MODEL__WEIGHTS=weights, MODEL__REINITIALIZE=parts) == 0
    assert train_net("--resume", SOLVER__MAX_ITER=2, MODEL__REINITIALIZE=parts) == 0
    assert "Starting training from iteration 1" in capsys.readouterr().out
