"""Makes heads_128.npz and heads_128.json: what the second stages of tests/embedded/head_cases.py give.

Run with the real Detectron2 0.6 installed: python tests/golden/make_heads.py. Only data is stored.
"""

import json
import sys
from pathlib import Path

import detectron2
import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "embedded"))

import head_cases as cases  # noqa: E402

SEED = 7


def main() -> None:
    if "embedded" in detectron2.__version__:
        raise SystemExit("these numbers have to come from the real Detectron2: install it first")
    torch.manual_seed(SEED)
    data = cases.draw_inputs(np.random.default_rng(SEED))
    stored, numbers = dict(data), {}
    for case in cases.CASES:
        heads = cases.build_heads(case)
        for name, parameter in heads.named_parameters():
            # Wide enough that scores and masks differ; float16 is stored, and is exact.
            scale = 0.2 if "bbox_pred" in name else 1.0
            spread = 1.0 if parameter.dim() == 1 else parameter[0].numel() ** -0.5 * 2
            parameter.data = (torch.randn_like(parameter) * scale * spread).half().float()
            stored[f"{case}.weights.{name}"] = parameter.detach().numpy().astype(np.float16)
        stored.update({f"{case}.{name}": value for name, value in cases.detect(heads, data).items()})
        numbers[case] = {kind: cases.train(heads, data, kind) for kind in ("polygon", "bitmask")}
        print(case, [len(stored[f"{case}.scores{image}"]) for image in range(2)], numbers[case]["polygon"]["losses"])
    np.savez_compressed(HERE / "heads_128.npz", **stored)
    source = f"Detectron2 {detectron2.__version__}, torch {torch.__version__.split('+')[0]}"
    (HERE / "heads_128.json").write_text(json.dumps({"source": source, **numbers}, indent=1) + "\n")


if __name__ == "__main__":
    main()
