"""The folder and the files that a run writes."""

import pytest
from eventful_vitdet.cli import train_command
from eventful_vitdet.cli.command_line import check_output_dir
from eventful_vitdet.cli.console import run


def test_output_dir_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "output"
    assert run(lambda: check_output_dir(str(folder))) == 1
    assert f"OUTPUT_DIR = {folder} cannot be written to" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["log.txt", "config.yaml"])
def test_files_of_a_run_that_cannot_be_written(tmp_path, repository, name, capsys):
    (tmp_path / name).mkdir()
    config = str(repository / "configs" / "demo" / "vitdet_tiny.yaml")
    assert train_command.main(["--config-file", config, "MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert f"{name} cannot be written to: Is a directory" in error and error.count("\n") == 1
    assert train_command.main(["--config-file", config, "MODEL.DEVICE", "cpu", "OUTPUT_DIR", ""]) == 1
    assert "OUTPUT_DIR is empty" in capsys.readouterr().err
