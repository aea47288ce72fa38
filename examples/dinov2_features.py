"""How far a video leaves its first frame: python examples/dinov2_features.py VIDEO [MODEL]   (any DINOv2 or DINOv3)"""

import sys

import av
import torch
from eventful_vit import TopFraction, make_eventful
from transformers import AutoImageProcessor, AutoModel

video, name = (*sys.argv[1:], "facebook/dinov2-small")[:2]
prepare = AutoImageProcessor.from_pretrained(name)
model, first = make_eventful(AutoModel.from_pretrained(name).eval(), policy=TopFraction(0.125)), None
with torch.inference_mode(), av.open(video) as container:
    for number, frame in enumerate(container.decode(video=0)):
        pixels = prepare(frame.to_ndarray(format="rgb24"), return_tensors="pt").pixel_values
        tokens = model(pixels).last_hidden_state[0]  # the class token, registers, then patches (h * w, D)
        first = tokens if first is None else first
        alike = torch.cosine_similarity(tokens, first, dim=-1)[1 + getattr(model.config, "num_register_tokens", 0) :]
        of_class = torch.cosine_similarity(tokens[0], first[0], dim=0)
        print(f"frame {number}: class token {of_class:.4f}, {len(alike)} patches {alike.mean():.4f} like the first")
