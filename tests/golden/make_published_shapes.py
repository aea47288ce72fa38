"""Makes published_shapes.json: names and shapes of all parameters of Detectron2's published ViTDet models.

Run with the real Detectron2 0.6 installed: python tests/golden/make_published_shapes.py FOLDER, where FOLDER is
projects/ViTDet/configs of its sources. Models are built without memory for their weights. Only data is stored.
"""

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import torch
from detectron2.config import LazyConfig, instantiate
from torch.overrides import TorchFunctionMode

FILES = {
    f"{data}/{heads}_vitdet_{size}": f"{data.upper()}/{heads}_vitdet_{size}_{epochs}.py"
    for data in ("coco", "lvis")
    for heads in ("mask_rcnn", "cascade_mask_rcnn")
    for size, epochs in (("b", "100ep"), ("l", "100ep"), ("h", "75ep" if data == "coco" else "100ep"))
}


class Weightless(TorchFunctionMode):
    """Parameters get no memory; torch.device("meta") would take that of numbers too that models compute with."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        place = {"device": "meta"} if func in (torch.empty, torch.zeros, torch.ones) else {}
        return func(*args, **{**(kwargs or {}), **place})


def fold_blocks(shapes: dict[str, list[int]]) -> list[list]:
    """[name, shape] of each parameter; of equal ones in several blocks once, as [name with *, shape, blocks]."""
    groups = defaultdict(list)
    for name, shape in shapes.items():
        block = re.search(r"(?<=\.blocks\.)\d+(?=\.)", name)
        groups[name if block is None else re.sub(r"(?<=\.blocks\.)\d+", "*", name), tuple(shape)].append(block)
    return [
        [name, list(shape), *([[int(block[0]) for block in blocks]] if blocks[0] else [])]
        for (name, shape), blocks in groups.items()
    ]


def main() -> None:
    folder, models = Path(sys.argv[1]), {}
    for name, file in FILES.items():
        with Weightless():
            model = instantiate(LazyConfig.load(str(folder / file)).model)
        shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
        models[name] = fold_blocks(shapes)
        print(name, len(shapes), sum(value.numel() for value in model.parameters()))
    lines = ",\n".join(
        f'"{name}": [\n' + ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries) + "\n]"
        for name, entries in models.items()
    )
    Path(__file__).with_name("published_shapes.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
