"""A small factorised ViViT and clips for it."""

import torch
from eventful_vit.models.vivit import FactorisedViViT


def make_vivit(heads=None, **options) -> FactorisedViViT:
    """4 x 5 tokens and a class token, 4 steps, rather large random weights."""
    torch.manual_seed(2)
    settings = {"img_size": (32, 40), "frames": 8, "tubelet": (2, 8, 8), "embed_dim": 24, "num_heads": 2}
    settings.update(depth=2, depth_temporal=1)
    vivit = FactorisedViViT(heads or {"verb": 5, "noun": 3}, **{**settings, **options})
    with torch.no_grad():
        for name, parameter in vivit.named_parameters():
            parameter.normal_(mean=float("norm" in name and name.endswith("weight")), std=0.15)
    return vivit.eval()


def make_views(views: int = 3, frames: int = 8, size=(32, 40), seed: int = 0) -> torch.Tensor:
    """A clip (1, views, frames, 3, H, W): still backgrounds with a patch that changes from step to step."""
    generator = torch.Generator().manual_seed(seed)
    clip = torch.randn(1, views, 1, 3, *size, generator=generator).repeat(1, 1, frames, 1, 1, 1)
    for t in range(0, frames, 2):
        clip[:, :, t:, :, 8:24, 8 : 8 + 2 * t + 8] += 0.5 * torch.randn(
            1, views, 1, 3, 16, 2 * t + 8, generator=generator
        )
    return clip
