"""docs/configuration.md is what its script writes, and the script misses no key."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from detectron2.config import CfgNode, get_cfg
from eventful_vitdet import add_eventful_vitdet_config


@pytest.fixture(scope="module")
def script(repository) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_configuration", repository / "docs" / "make_configuration.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def leaves(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in node.items():
        if isinstance(value, CfgNode):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_the_page_is_up_to_date(script):
    assert script.PAGE.read_text(encoding="utf-8") == script.render(), "run: python docs/make_configuration.py"


def test_every_key_and_default_is_on_it(script):
    ours = get_cfg()
    add_eventful_vitdet_config(ours)
    detectron2s = dict(leaves(get_cfg()))
    values = dict(leaves(ours))
    changed = {name for name in values if name not in detectron2s or values[name] != detectron2s[name]}
    keys = {key.name: key for section in script.read_keys().values() for key in section.keys}
    assert changed - {"MODEL.DEVICE", "DATALOADER.NUM_WORKERS"} <= set(keys) <= set(values)
    by_machine = {name for name, key in keys.items() if key.default == script.BY_MACHINE}
    assert by_machine == {"MODEL.DEVICE", "DATALOADER.NUM_WORKERS"}
    for name in set(keys) - by_machine:
        assert ast.literal_eval(keys[name].value) == values[name], name


def test_a_key_without_a_comment_is_refused(script, tmp_path, monkeypatch):
    source = "def add(cfg):\n    # Said.\n    cfg.A = 1\n    cfg.B = 2\n"
    (tmp_path / "config.py").write_text(source)
    monkeypatch.setattr(script, "SOURCES", {"add": tmp_path / "config.py"})
    with pytest.raises(SystemExit, match="B has no comment"):
        script.read_keys("add")
