from __future__ import annotations

from data.conftest import make_document, write_dataset
from eventful_vitdet.cli.check_dataset_command import main

__all__ = ["write_dataset"]


def test_the_exit_code_says_whether_all_is_well(write_dataset, capsys, tmp_path):  # noqa: F811
    json_file, _ = write_dataset(make_document({1: [0, 1], 2: [0]}))
    assert main([json_file]) == 0
    (tmp_path / "videos" / "1.avi").unlink()
    assert main([json_file, "--quick"]) == 1
    assert f"{tmp_path}/videos/1.avi: does not exist" in capsys.readouterr().out
    assert main(["nope"]) == 1
    assert "'nope' is no registered video data set" in capsys.readouterr().err
