"""Makes matrix_positions.npz: relative positions for another size, as the code of the paper's authors gives them.

Run: python tests/golden/make_matrix_positions.py FOLDER, where FOLDER holds their package `eventful_transformer`. Only
data is stored.
"""

import sys
from pathlib import Path

import numpy as np
import torch


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    from eventful_transformer.utils import RelativePositionEmbedding

    torch.manual_seed(5)
    made, stored = 8, {}
    tables = torch.randn(2, 2 * made - 1, 4)
    stored["tables"] = tables.numpy()
    for size in (6, 8, 11):
        for pool in (None, 2):
            if pool and size % pool:
                continue
            args = ((size, size), (made, made), 4, None if pool is None else (pool, pool))
            module = RelativePositionEmbedding(*args).eval()
            module.y_embedding.data, module.x_embedding.data = tables[0].clone(), tables[1].clone()
            query = torch.randn(1, 1, size * size, 4)
            keys = (size // (pool or 1)) ** 2
            with torch.no_grad():
                bias = module(torch.zeros(1, 1, size * size, keys), query)
            stored[f"query.{size}.{pool or 1}"], stored[f"bias.{size}.{pool or 1}"] = query[0].numpy(), bias[0].numpy()
    np.savez_compressed(Path(__file__).with_name("matrix_positions.npz"), **stored)


if __name__ == "__main__":
    main()
