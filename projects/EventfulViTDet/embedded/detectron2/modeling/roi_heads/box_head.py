from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import nn

from .relu_layers import make_convolution


class FastRCNNConvFCHead(nn.Sequential):
    """3x3 convolutions ("conv1", ...), then linear layers ("fc1", ...), each with a ReLU, on (R, C, H, W)."""

    @configurable
    def __init__(
        self, input_shape: ShapeSpec, *, conv_dims: Sequence[int], fc_dims: Sequence[int], conv_norm: str = ""
    ):
        """Output channels of the layers; ``conv_norm`` as in ``get_norm``, a bias only without it."""
        super().__init__()
        if not conv_dims and not fc_dims:
            raise ValueError("a box head needs layers: MODEL.ROI_BOX_HEAD.NUM_CONV and NUM_FC are both 0")
        channels = input_shape.channels
        for index, dim in enumerate(conv_dims, start=1):
            self.add_module(f"conv{index}", make_convolution(channels, dim, conv_norm))
            channels = dim
        self.output_shape = ShapeSpec(channels, input_shape.height, input_shape.width)
        if not fc_dims:
            return
        self.add_module("flatten", nn.Flatten())
        channels *= input_shape.height * input_shape.width
        for index, dim in enumerate(fc_dims, start=1):
            linear = nn.Linear(channels, dim)
            nn.init.kaiming_uniform_(linear.weight, a=1)
            nn.init.zeros_(linear.bias)
            self.add_module(f"fc{index}", linear)
            self.add_module(f"fc_relu{index}", nn.ReLU())
            channels = dim
        self.output_shape = ShapeSpec(channels)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict:
        """All arguments from MODEL.ROI_BOX_HEAD. Raises ValueError where it names another head."""
        head = cfg.MODEL.ROI_BOX_HEAD
        if head.NAME != "FastRCNNConvFCHead":
            raise ValueError(
                f"MODEL.ROI_BOX_HEAD.NAME is {head.NAME!r}: the embedded Detectron2 has 'FastRCNNConvFCHead' only"
            )
        return {
            "input_shape": input_shape,
            "conv_dims": [head.CONV_DIM] * head.NUM_CONV,
            "fc_dims": [head.FC_DIM] * head.NUM_FC,
            "conv_norm": head.NORM,
        }
