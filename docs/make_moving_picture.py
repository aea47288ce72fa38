"""Make a moving picture of an annotated video, such as the one at the top of the README.

    python datasets/render_synthetic_vid.py --output datasets/demo_vid --split test
    OMP_NUM_THREADS=1 python tools/visualize_video.py --config-file configs/demo/vitdet_tiny.yaml \\
        --input datasets/demo_vid/videos/test_000.mp4 --output output/visualize/moving.mp4 \\
        --side-by-side-dense --show-tokens any --budget 32 --enlarge 2 --confidence-threshold 0.5 \\
        MODEL.WEIGHTS weights/demo_vitdet_tiny.safetensors
    python docs/make_moving_picture.py output/visualize/moving.mp4 docs/images/moving.webp
"""

import sys

from eventful_vitdet.video import iterate_frames
from PIL import Image

MOST_WIDTH = 960
PACE = 2
"""Times as long as in the video."""


def main(video: str, output: str) -> None:
    images, times = [], []
    for _, seconds, pixels in iterate_frames(video):
        image = Image.fromarray(pixels)
        image.thumbnail((MOST_WIDTH, image.height), Image.Resampling.LANCZOS)
        images.append(image)
        times.append(seconds)
    pause = round(1000 * PACE * (times[-1] - times[0]) / (len(times) - 1))  # milliseconds
    images[0].save(output, save_all=True, append_images=images[1:], duration=pause, loop=0, quality=60, method=6)


if __name__ == "__main__":
    main(*sys.argv[1:])
