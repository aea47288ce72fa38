"""How the scripts that make data sets end."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "datasets"))
import script_end  # noqa: E402


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (FileNotFoundError("no such folder"), 1, "error: no such folder\n"),
        (KeyboardInterrupt(), 130, "interrupted: run it again\n"),
    ],
)
def test_errors_and_interruptions_are_one_line(capsys, error, code, said):
    def work() -> None:
        if error is not None:
            raise error

    assert script_end.run(work, (OSError,), "interrupted: run it again") == code
    assert capsys.readouterr().err == said


def test_defects_stay_tracebacks():
    with pytest.raises(ZeroDivisionError):
        script_end.run(lambda: 1 / 0, (OSError,), "")
