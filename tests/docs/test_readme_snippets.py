"""The README's Python runs as it stands, with random frames and without downloads."""

from __future__ import annotations

import re

import pytest
import torch


@pytest.mark.parametrize("name", ["make_eventful", "EventfulViT", "build_model"])
def test_snippets_run(repository, name, monkeypatch, capsys):
    if name == "make_eventful":
        pytest.importorskip("timm")
    monkeypatch.chdir(repository)
    text = (repository / "README.md").read_text(encoding="utf-8")
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if f"{name}(" in code]
    frames = list(torch.rand(4, 1, 3, 512, 512))
    names = {"video": frames[:2], "left_frame": frames[2], "right_frame": frames[3]}
    exec(code.replace("pretrained=True", "pretrained=False"), names)
    if name == "make_eventful":
        assert names["model"](torch.rand(1, 3, 224, 224)).shape == (1, 1000)
    elif name == "EventfulViT":
        flush, later = (float(line.split()[0]) for line in capsys.readouterr().out.splitlines())
        assert later < flush / 2 and names["right"].nbytes == 0 < names["left"].nbytes
    else:
        assert type(names["model"]).__name__ == "VideoRCNN"
