"""Make the moving picture at the top of the README: the tiny detector on a rendered video, densely and eventfully.

    python docs/make_moving_picture.py docs/images/moving.webp

Lit tokens were recomputed in the frame, those in grey were reused. Below, the operations so far.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from eventful_vitdet.config_files import build_cfg
from eventful_vitdet.draw.boxes import draw_detections
from eventful_vitdet.draw.tokens import updated_share
from eventful_vitdet.predictor import FrameResult, VideoDetector, class_names, dense_detector, load_detector
from eventful_vitdet.structures import SourceFrame
from eventful_vitdet.video import open_source
from PIL import Image, ImageDraw, ImageFont

REPOSITORY = Path(__file__).resolve().parents[1]
MODEL = "demo/vitdet_tiny.yaml"
WEIGHTS = REPOSITORY / "weights" / "demo_vitdet_tiny.safetensors"
RENDERING = ["--split", "test", "--videos", "1", "--frames", "48", "--dynamics", "moving", "--seed", "1"]
START = 12
"""Of the 48 frames; before, both models take a square for a disc, which would distract from what is shown."""
BUDGET = 32
GATE = "blocks.0.qkv"
"""The gate whose tokens are shown, the model's first."""
MIN_SCORE = 0.6
ENLARGE = 1.875
GAP, TITLE, FOOT = 16, 44, 80  # pixels
PACE = 2
"""Times as long as in the video."""
REST_AT_END = 2500  # milliseconds
GROUND, INK, PALE = (255, 255, 255), (25, 28, 36), (110, 116, 128)
TRANSFORMER, REST = (37, 99, 235), (176, 182, 194)


@dataclass(frozen=True)
class Sums:
    """What one of the two models has computed so far, in GFlops."""

    title: str
    transformer: float = 0.0
    total: float = 0.0

    def add(self, result: FrameResult) -> Sums:
        cost = result.cost
        return replace(
            self, transformer=self.transformer + cost.backbone_gflops, total=self.total + cost.total_gflops
        )


def paint(frame: SourceFrame, result: FrameResult, classes: list[str]) -> Image.Image:
    """A frame with its tokens and boxes."""
    lit = np.ones(result.token_grid, bool)
    if result.gates:
        lit = updated_share(result.gates, [GATE], result.token_grid) > 0
    size = [round(ENLARGE * side) for side in frame.image.shape[1::-1]]
    image = light_tokens(cv2.resize(frame.image, size, interpolation=cv2.INTER_CUBIC), lit)
    found = replace(result.detections, boxes=result.detections.boxes * ENLARGE)
    return Image.fromarray(draw_detections(image, found, classes, MIN_SCORE, letters=0.6)[:, :, ::-1])


def light_tokens(image: np.ndarray, lit: np.ndarray) -> np.ndarray:
    """The image with only some of its (h, w) tokens in colour, and a line around each of these."""
    height, width = image.shape[:2]
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    rows = np.arange(height) * lit.shape[0] // height
    columns = np.arange(width) * lit.shape[1] // width
    pixels = lit[rows[:, None], columns[None, :]]
    result = np.where(pixels[..., None], image, (0.6 * grey + 70).astype(np.uint8))
    begins = (np.diff(rows, prepend=-1) != 0)[:, None] | (np.diff(columns, prepend=-1) != 0)[None, :]
    edges = pixels & begins
    result[edges] = (0.75 * result[edges] + 0.25 * np.array((255, 255, 255))).astype(np.uint8)
    return result


def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return ImageFont.truetype(str(folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")), size)


def compose(pictures: list[Image.Image], sums: list[Sums], highest: float) -> Image.Image:
    """The dense and the eventful picture with their titles, and below them the sums as bars, up to `highest` GFlops."""
    width, height = pictures[0].size
    canvas = Image.new("RGB", (2 * width + GAP, TITLE + height + FOOT), GROUND)
    draw = ImageDraw.Draw(canvas)
    for i, (picture, each) in enumerate(zip(pictures, sums)):
        left, top = i * (width + GAP), TITLE + height + 12
        draw.text((left, 6), each.title, INK, font(24, bold=True))
        canvas.paste(picture, (left, TITLE))
        draw_sums(draw, each, left, top, width / highest)
    text = f"{sums[0].transformer / sums[1].transformer:.1f} x fewer"
    size = draw.textlength(text, font(26, bold=True))
    draw.text((canvas.width - size, TITLE + height + 10), text, TRANSFORMER, font(26, bold=True))
    return canvas


def draw_sums(draw: ImageDraw.ImageDraw, sums: Sums, left: int, top: int, scale: float) -> None:
    """A bar of two parts, the Transformer and the rest, and their GFlops; `scale` is pixels per GFlop."""
    middle, end = left + sums.transformer * scale, left + sums.total * scale
    draw.rectangle((left, top, middle, top + 26), TRANSFORMER)
    draw.rectangle((middle, top, end, top + 26), REST)
    draw.text((left, top + 34), f"Transformer {sums.transformer:.1f}", TRANSFORMER, font(22, bold=True))
    draw.text((left + 235, top + 36), f"rest {sums.total - sums.transformer:.1f} GFlops so far", PALE, font(20))


def render_video(folder: str) -> str:
    """Render a video of the demo's kind; returns its path."""
    script = REPOSITORY / "datasets" / "render_synthetic_vid.py"
    subprocess.run([sys.executable, str(script), "--output", folder, *RENDERING], check=True)
    return str(Path(folder, "videos", "test_000.mp4"))


def make_pictures(video: str) -> list[Image.Image]:
    """One picture per frame of a video."""
    cfg = build_cfg(MODEL, ["MODEL.WEIGHTS", str(WEIGHTS), "MODEL.DEVICE", "cpu", "MODEL.EVENTFUL.R", BUDGET])
    model, classes = load_detector(cfg), class_names(build_cfg(MODEL))
    sums = [Sums("Dense: every token in every frame"), Sums(f"Eventful: {BUDGET} of 320 tokens per gate")]
    steps = []
    with ExitStack() as stack:
        detectors = [stack.enter_context(each) for each in (dense_detector(cfg, model), VideoDetector(cfg, model))]
        for frame in stack.enter_context(closing(open_source(video).frames(START))):
            results = [detector.detect(frame) for detector in detectors]
            pictures = [paint(frame, result, classes) for result in results]
            sums = [each.add(result) for each, result in zip(sums, results)]
            steps.append((pictures, sums))
    return [compose(pictures, so_far, sums[0].total) for pictures, so_far in steps]


def main(output: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        images = make_pictures(render_video(folder))
    pauses = [round(1000 * PACE / 30)] * (len(images) - 1) + [REST_AT_END]
    animation = {"save_all": True, "append_images": images[1:], "duration": pauses, "loop": 0}
    images[0].save(output, **animation, quality=70, method=4, kmin=0, kmax=1)  # each frame by itself: no traces


if __name__ == "__main__":
    main(*sys.argv[1:])
