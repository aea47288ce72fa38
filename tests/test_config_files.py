"""Configurations of the commands: defaults, files and KEY VALUE pairs, and what is wrong with them in one line."""

import errno
import os

import pytest
import torch
from eventful_vitdet.checkpoint import VideoCheckpointer
from eventful_vitdet.cli.console import run
from eventful_vitdet.config_files import build_cfg
from eventful_vitdet.errors import ConfigError


def test_device_is_resolved_once():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert build_cfg("").MODEL.DEVICE == expected
    assert build_cfg("", ["MODEL.DEVICE", "cpu"]).MODEL.DEVICE == "cpu"


def test_every_configuration_file_loads(repository):
    from eventful_vitdet.modeling.backbone import build_policy

    files = sorted((repository / "configs").rglob("*.yaml"))
    assert len(files) >= 6
    for file in files:
        cfg = build_cfg(str(file))
        assert cfg.MODEL.META_ARCHITECTURE in ("VideoRCNN", "VideoClassifier")
        build_policy(cfg)


def test_packaged_configuration_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert build_cfg("demo/vitdet_tiny.yaml").MODEL.VIT.DEPTH == 6


def test_no_weights(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text("MODEL:\n  WEIGHTS: null\n")
    assert build_cfg(str(path)).MODEL.WEIGHTS == ""


def test_integers_are_numbers_too(tmp_path):
    """yacs takes no 150 where the default is a 100.0; whoever writes it means it."""
    keys = "MODEL.EVENTFUL.CONTROLLER"
    cfg = build_cfg("", [f"{keys}.TARGET_MS", "150", "SOLVER.EMA_DECAY", "0"])
    controller = cfg.MODEL.EVENTFUL.CONTROLLER
    assert (controller.TARGET_MS, type(controller.TARGET_MS), type(cfg.SOLVER.EMA_DECAY)) == (150, float, float)
    file = tmp_path / "file.yaml"
    file.write_text("MODEL: {EVENTFUL: {R: 9, CONTROLLER: {TARGET_MS: -3}}}\nSOLVER: {BASE_LR: 1}")
    base = tmp_path / "more.yaml"
    base.write_text("_BASE_: file.yaml\nTEST: {VID_SCORE_FLOOR: 0}")
    cfg = build_cfg(str(base))
    values = (cfg.MODEL.EVENTFUL.CONTROLLER.TARGET_MS, cfg.SOLVER.BASE_LR, cfg.TEST.VID_SCORE_FLOOR)
    assert values == (-3, 1, 0) and {type(value) for value in values} == {float}
    assert type(cfg.MODEL.EVENTFUL.R) is int


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("absent.yaml", [], "there is no file absent.yaml"),
        ("", ["MODEL.VIT.DEPTHS", "3"], "MODEL.VIT.DEPTHS; did you mean MODEL.VIT.DEPTH"),
        ("", ["MODEL.NOTHING_LIKE_IT", "3"], "Non-existent key: MODEL.NOTHING_LIKE_IT\n"),
        ("", ["MODEL.VIT.DEPTH"], "KEY VALUE pairs"),
        ("", ["MODEL.VIT.DEPTH", "three"], "MODEL.VIT.DEPTH needs a whole number, such as 12, found three (text)"),
        ("", ["MODEL.VIT", "5"], "MODEL.VIT is a group of keys"),
        ("", ["MODEL.EVENTFUL.THRESHOLD", "True"], "MODEL.EVENTFUL.THRESHOLD needs a number, such as 1.0, found True"),
        ("", ["MODEL.EVENTFUL.R", "2.5"], "MODEL.EVENTFUL.R needs a whole number, such as 256, found 2.5 (a number)"),
        ("", ["MODEL.EVENTFUL.ENABLED", "maybe"], "MODEL.EVENTFUL.ENABLED needs True or False, found maybe (text)"),
        ("", ["MODEL.VIT.WINDOW_BLOCKS", "x"], "MODEL.VIT.WINDOW_BLOCKS needs a tuple, such as ("),
        ("", ["sixty", "MODEL.VIT.DEPTH", "3"], "'sixty' is no option"),
        ("", ["MODEL.VIT.DEPTH", "3", "--resume", "--eval-only"], "'--resume' is no option"),
        ("", ["MODEL.VIT.DEPTH", "None"], "MODEL.VIT.DEPTH has no value; its default is 12"),
        ("", ["MODEL.DEVICE", "abacus"], "MODEL.DEVICE = 'abacus' is no device"),
        ("", ["MODEL.DEVICE", "meta"], "MODEL.DEVICE = 'meta' is no device that is supported"),
        ("", ["MODEL.DEVICE", "cuda:99"], "MODEL.DEVICE = 'cuda:99', but PyTorch finds"),
    ],
)
def test_bad_configuration_is_one_line(file, options, message, capsys):
    assert run(lambda: build_cfg(file, options)) == 1
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("MODEL: [1, 2\nB: }", "is not valid yaml"),
        ("WEIGHTS: !!python/object/apply:print ['code from a configuration']", "is not valid yaml"),
        ("", "mapping"),
        ("- 1\n- 2", "mapping"),
        ("MODEL: 5", "file.yaml: "),
        ("SEED: many", "SEED needs a whole number, such as -1, found many (text)"),
        ("MODEL:\n  FOO: 1", "MODEL.FOO"),
        ("_BASE_: file.yaml", "its _BASE_, or a value, leads back to itself"),
        ("MODEL: &m\n  VIT: *m", "its _BASE_, or a value, leads back to itself"),
        ("SEED:", "SEED has no value; its default is -1"),
        ("MODEL:\n  VIT:", "MODEL.VIT is a group of keys"),
        ("_BASE_: absent.yaml", "absent.yaml"),
        (b"\x80\x02\xff", "file.yaml"),
        ("SOLVER: {BASE_LR: .nan}", "SOLVER.BASE_LR is nan; expected 0 or larger"),
        ("MODEL: {RPN: {POSITIVE_FRACTION: .nan}}", "MODEL.RPN.POSITIVE_FRACTION is nan; expected 0 or larger"),
    ],
)
def test_bad_configuration_file_is_one_line(tmp_path, content, message, capsys):
    file = tmp_path / "file.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run(lambda: build_cfg(str(file))) == 1
    output = capsys.readouterr()
    assert message in output.err and output.err.startswith("error: ") and output.err.count("\n") == 1
    assert "code from" not in output.out


MULTIPLIED = "m0: &m0 {A: 1}\n" + "".join(
    f"m{i}: &m{i} {{A: *m{i - 1}, B: *m{i - 1}, C: *m{i - 1}, D: *m{i - 1}}}\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (MULTIPLIED, "its aliases .* multiply to more than 100,000 values"),
        ("SEED: 1" + ":1" * 5000, "has a whole number of [0-9,]+ bits"),  # to the base 60: yaml knows such numbers
        ("# " + "x" * (1 << 20), "is too large for a configuration"),
        ("? [a]\n: 1\n", r"is not valid yaml(?s:.)*in .*bad\.yaml"),
    ],
)
@pytest.mark.parametrize("is_base", [False, True])
def test_a_hostile_configuration_file(tmp_path, content, message, is_base):
    (tmp_path / "bad.yaml").write_text(content)
    (tmp_path / "top.yaml").write_text("_BASE_: bad.yaml\n")
    with pytest.raises(ConfigError, match=f"(bad|top)\\.yaml: {message}"):
        build_cfg(str(tmp_path / ("top.yaml" if is_base else "bad.yaml")))


def test_usual_aliases(tmp_path):
    (tmp_path / "file.yaml").write_text('DATASETS:\n  TRAIN: &names ["a", "b"]\n  TEST: *names\n')
    assert list(build_cfg(str(tmp_path / "file.yaml")).DATASETS.TEST) == ["a", "b"]


def test_folders_that_may_not_be_entered(tmp_path, monkeypatch, capsys):
    """pathlib raises PermissionError there, where os.path says that there is no such file."""
    stat = os.stat

    def refuse(path, *arguments, **options):
        if "locked" in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", refuse)
    assert run(lambda: build_cfg("/locked/file.yaml")) == 1
    assert "there is no file /locked/file.yaml" in capsys.readouterr().err
    assert run(lambda: VideoCheckpointer(torch.nn.Linear(1, 1)).load("/locked/model.pth")) == 1
    assert "MODEL.WEIGHTS: there is no file /locked/model.pth" in capsys.readouterr().err


def test_plain_detectron2_use_needs_no_tool(repository):
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model
    from eventful_vitdet import add_eventful_vitdet_config

    cfg = get_cfg()
    add_eventful_vitdet_config(cfg)
    cfg.merge_from_file(str(repository / "configs" / "demo" / "vitdet_tiny.yaml"))
    assert type(build_model(cfg)).__name__ == "VideoRCNN"
