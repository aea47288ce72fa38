"""Compiles the GPU's kernels without a GPU, in a process without Triton's interpreter (test_gpu_compiles.py).

    python compile_kernels.py ARCHITECTURE TYPE [--heads CHANNELS ...] [--operators NAME ...]

Operators may be "detector", for the kernels behind the Transformer.

Every launch is turned into a compilation for the architecture, with what Triton would have derived from the arguments.
Prints a line of JSON for each compiled kernel: its name, registers, bytes of stack (where spilled registers go) and of
shared memory, and the constants that it was compiled with.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import subprocess
import tempfile
from pathlib import Path

import torch
import triton
from eventful_vit import ops
from eventful_vit.ops import gpu
from eventful_vit.ops.gpu import device_facts, tuning
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction
from triton.tools.tensor_descriptor import TensorDescriptor

POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.int8: "*i8",
    torch.uint8: "*u8",
    torch.bool: "*i1",
}
DIVISIBLE = [["tt.divisibility", 16]]
OPTIONS = ("num_warps", "num_stages", "maxnreg", "enable_fp_fusion")


class Compiler:
    """Takes the place of a launch."""

    def __init__(self, architecture: int) -> None:
        self._target = GPUTarget("cuda", architecture, 32)
        self._seen: set[str] = set()

    def launch(self, function: JITFunction, *args, grid, warmup, **named) -> None:
        """Compile a kernel for these arguments, once."""
        options = {name: named.pop(name) for name in OPTIONS if name in named}
        values = {**dict(zip((p.name for p in function.params), args)), **named}
        signature, constants, attributes = {}, {}, {}
        for place, parameter in enumerate(function.params):
            name, value = parameter.name, values[parameter.name]
            signature[name] = _type_of(value, parameter.is_constexpr)
            if signature[name] == "constexpr":
                constants[name] = value
            elif isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0):
                attributes[(place,)] = DIVISIBLE
        key = f"{function.fn.__name__} {signature} {constants} {attributes} {options}"
        if key in self._seen:
            return
        self._seen.add(key)
        source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=attributes)
        compiled = triton.compile(source, target=self._target, options=options)
        shown = {name: value for name, value in constants.items() if name.isupper()}
        usage = {"kernel": function.fn.__name__, "shared": compiled.metadata.shared, **_usage(compiled.asm["cubin"])}
        print(json.dumps({**usage, "constants": shown, **options}), flush=True)


def _type_of(value: object, is_constant: bool) -> str:
    if is_constant or value is None or (type(value) is int and value == 1):
        return "constexpr"
    if isinstance(value, torch.Tensor):
        return POINTERS[value.dtype]
    if isinstance(value, TensorDescriptor):
        return f"tensordesc<{POINTERS[value.base.dtype][1:]}{list(value.block_shape)}>"
    if isinstance(value, bool):
        return "i1"
    return "i32" if isinstance(value, int) else "fp32"


def _usage(cubin: bytes) -> dict[str, int | None]:
    """Registers and bytes of stack of a thread; None where the tool that tells is missing."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        return {"registers": None, "stack": None}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([str(tool), "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", text).groups()
    return {"registers": int(registers), "stack": int(stack)}


def launch_all(dtype: torch.dtype, channels: int, wanted: set[str]) -> None:
    """Call the kernels' operators as a later frame of a larger model does; with several streams too."""
    kernels = gpu.load_kernels()
    heads, side, window, r = max(1, 768 // channels), 64, 14, 512
    tokens, dim = side**2, heads * channels
    for streams in (1, 2):
        x = torch.zeros(streams, tokens, dim, dtype=dtype)
        index, offsets = torch.arange(r), torch.tensor([r * i // streams for i in range(streams + 1)])
        rows, qkv, wide = x.view(-1, dim)[:r].clone(), x.repeat(1, 1, 3), torch.zeros(r, 3 * dim, dtype=dtype)
        norm, numbers = (x[0, 0], x[0, 0], 1e-6), (torch.tensor(r), torch.tensor(0.5), torch.zeros(streams).byte(), r)
        first, second = torch.zeros(4 * dim, dim, dtype=dtype), torch.zeros(dim, 4 * dim, dtype=dtype)
        hidden, images = (
            torch.zeros(r, 4 * dim, dtype=dtype),
            torch.zeros(streams, 3, 16 * side, 16 * side, dtype=dtype),
        )
        state = [
            torch.zeros(streams, heads, tokens, channels),
            *(torch.zeros(streams, heads, tokens) for _ in range(3)),
        ]
        change = [index, offsets, index, offsets, torch.zeros(r, 2 * dim, dtype=dtype)]
        used = offsets[-1]

        def sizes(window: int, positions: bool = True) -> tuple:
            tables = [torch.zeros(2 * (window or side) - 1, channels)] * 2 if positions else []
            return tables, heads, channels**-0.5, (side, side, window, 1)

        calls = {
            "gate": [
                (ops.gate, x, x, *numbers, *norm),
                (ops.gate, x, x, *numbers, None, None, None),
                (ops.gate, x.float(), x, *numbers, *norm, x, dtype),
            ],
            "normalise": [(ops.normalise, x, *norm), (ops.error_norms, x, x, *norm), (ops.send, x, x, None, *norm)],
            "linear": [
                (ops.linear, rows, first, first[:, 0], True, None, used, None),
                (ops.linear, hidden, second, second[:, 0], False, None, used, None),
                (ops.linear, rows[:16], second[:, :dim], second[:, 0], False, None, None, None),
                (ops.linear, x, first, first[:, 0], True, None, None, None),
                (ops.linear, x, second[:, :dim].contiguous(), second[:, 0], False, x, None, None),
                (ops.linear, x.float(), first.float(), first[:, 0].float(), True, None, None, dtype),
            ],
            "embed": [(ops.embed, images, torch.zeros(dim, 3, 16, 16, dtype=dtype), x[0, 0], x[:1], None)],
            "store": [
                (ops.store, qkv, index, wide, used),
                (ops.add, x, x.clone()),
                (ops.replace, qkv, index, wide, used, dim),
            ],
            "attend": [
                (ops.attend, qkv, None, *sizes(0), dtype),
                (ops.attend, qkv, None, *sizes(0, positions=False), dtype),
                (ops.attend, qkv, qkv[0, 0], *sizes(window), dtype),
            ],
            "finite": [(ops.finite, x)],
            "attend_windows": [(ops.attend_windows, qkv, index, used, x, qkv[0, 0], *sizes(window))],
            "update_sums": [
                (ops.update_sums, qkv[..., :dim], qkv[..., dim:], [], state, *sizes(0)),
                (ops.update_sums, qkv[..., :dim], qkv[..., dim:], change, state, *sizes(0)),
                (ops.divide, *state[:2], dtype),
            ],
        }
        for name in wanted & set(calls) if wanted else calls:
            for way in ("library", "addresses", "descriptors") if name in ("linear", "embed") else ("",):
                choose_products(way)
                for operator, *arguments in calls[name]:
                    assert kernels[operator](*arguments) is not NotImplemented, operator.name


def choose_products(way: str) -> None:
    """How linear layers are computed, whatever the table says."""
    module, library = importlib.import_module("eventful_vit.ops.gpu.linear"), way == "library"
    module.uses_library, module.precise_products = (lambda *_: library), (lambda *_: not library)
    module.linear_tile = lambda *sizes: {**tuning.linear_tile(*sizes), "TMA": way == "descriptors"}
    module.PRECISE_TILE = {**tuning.PRECISE_TILE, "TMA": way == "descriptors"}


def launch_detector(dtype: torch.dtype) -> None:
    """Call the kernels of what follows the Transformer in a detector (eventful_vitdet's gpu_detector)."""
    import eventful_vitdet  # noqa: F401  (makes Detectron2 importable)
    from detectron2.layers import Conv2d
    from detectron2.modeling.poolers import ROIPooler
    from eventful_vitdet.modeling.gpu_detector.anchor_decoding import decode
    from eventful_vitdet.modeling.gpu_detector.anchor_outputs import AnchorOutputs
    from eventful_vitdet.modeling.gpu_detector.bias_and_relu import ConvolutionReLU
    from eventful_vitdet.modeling.gpu_detector.frame_pixels import normalise
    from eventful_vitdet.modeling.gpu_detector.image_sizes import ImageSizes
    from eventful_vitdet.modeling.gpu_detector.ranking import best
    from eventful_vitdet.modeling.gpu_detector.region_decisions import decide
    from eventful_vitdet.modeling.gpu_detector.region_pooling import Pooling
    from eventful_vitdet.modeling.gpu_detector.row_norms import norm_rows
    from eventful_vitdet.modeling.gpu_detector.suppression import Groups, suppress

    boxes = torch.zeros(1, 4768, 4)
    some, labels = torch.ones(1, 4768, dtype=torch.bool), torch.zeros(1, 4768, dtype=torch.int64)
    of_levels = labels[:, :4765].unflatten(1, (5, -1)), boxes[:, :4765, 0].unflatten(1, (5, -1))
    decode(boxes, boxes[0], *of_levels, labels[0, :5], boxes[:, :1], (1, 1, 1, 1), 4.0, 0.0)
    keep = suppress(boxes, some, Groups([1000] * 4 + [768], boxes.device), 0.7)
    best(boxes[..., 0], keep, boxes, 1000)
    sizes = ImageSizes(*[boxes[:, :1].clone()] * 3)
    _, _, pairs, wanted = decide(boxes[0, :31, 0].expand(300, -1), boxes[0, :30].flatten().expand(300, -1),
                                 boxes[:, :300], labels[0, :1].int(), 0.05, (1, 1, 1, 1), 4.0)  # fmt: skip
    found = best(pairs, wanted, pairs[..., None].expand(-1, -1, 4), 2048, classes=30, clip=sizes)
    group = Groups([2048], boxes.device)
    keep = suppress(found.boxes, None, group, 0.5, found.labels, used=found.count, most=100)
    best(found.scores, keep, found.boxes, 100, labels=found.labels, place=sizes)
    level = torch.zeros(1, 256, 32, 32, dtype=dtype).contiguous(memory_format=torch.channels_last)
    Pooling.of(ROIPooler(7, [1 / 4], 0, "ROIAlignV2"))([level], boxes[:, :300])
    logits, deltas = torch.nn.Conv2d(256, 3, 1, dtype=dtype), torch.nn.Conv2d(256, 12, 1, dtype=dtype)
    AnchorOutputs(logits, deltas)(level, boxes[..., 0].contiguous(), boxes)
    layer = Conv2d(256, 256, 1, activation=torch.nn.ReLU(), dtype=dtype)
    ConvolutionReLU(layer, layer.weight)(level)
    rows, norm = torch.zeros(1, 8, 8, 4, 4, 256, dtype=dtype), (boxes[0, :256, 0], boxes[0, :256, 0], 1e-6)
    norm_rows(rows, boxes[0, :256, 0], *norm, "", 2)
    norm_rows(rows, None, *norm, "relu")
    norm_rows(rows, boxes[0, :256, 0], *norm, "gelu")
    normalise(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), *[boxes[0, :3, :1, None]] * 2, torch.zeros(1, 3, 64, 64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("architecture", type=int)
    parser.add_argument("type")
    parser.add_argument("--heads", type=int, nargs="+", default=[64])
    parser.add_argument("--operators", nargs="+", default=[])
    arguments = parser.parse_args()
    compiler = Compiler(arguments.architecture)
    device_facts.capability = lambda device=None: divmod(arguments.architecture, 10)
    JITFunction.run = lambda function, *args, **named: compiler.launch(function, *args, **named)
    # Products of the library are not needed, and a CPU takes long for them.
    torch.nn.functional.linear = lambda x, weight, bias: x.new_empty(len(x), len(weight))
    with torch.no_grad():
        for channels in arguments.heads:
            launch_all(getattr(torch, arguments.type), channels, set(arguments.operators))
        if not arguments.operators or "detector" in arguments.operators:
            launch_detector(getattr(torch, arguments.type))


if __name__ == "__main__":
    main()
