"""The augmentations of training that Detectron2 does not have: of scale and window, which are drawn and applied
together, of colours, and of a camera's gain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import NoOpTransform, Transform
from PIL import Image

from ..errors import ConfigError


class WindowTransform(Transform):
    """
    Cuts the window (x0, y0, x1, y1) out of an image, resizes it to `out_size` and pads it to `canvas_size`.

    The window is in source pixels and need not be whole; sizes are (height, width) of the result. Padding is
    at the bottom and on the right. Coordinates map linearly, the window's corner to the origin.
    """

    def __init__(
        self,
        window: tuple[float, float, float, float],
        out_size: tuple[int, int],
        canvas_size: tuple[int, int],
        pad_value: int,
    ) -> None:
        super().__init__()
        self.window = window
        self.out_size = out_size
        self.canvas_size = canvas_size
        self.pad_value = pad_value

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Map a uint8 image (H, W, C) to (canvas height, canvas width, C)."""
        height, width = self.out_size
        # Pillow's bilinear filter averages when it shrinks, as the resizing of Detectron2 (and so of the
        # test) does.
        resized = Image.fromarray(img).resize((width, height), Image.BILINEAR, box=self.window)
        if self.out_size == self.canvas_size:
            return np.array(resized)  # a copy: Pillow's own buffer is read-only
        canvas = np.full((*self.canvas_size, img.shape[2]), self.pad_value, dtype=img.dtype)
        canvas[:height, :width] = np.asarray(resized)
        return canvas

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Map a mask (H, W), uint8, to the canvas; nothing covers the padding."""
        height, width = self.out_size
        canvas = np.zeros(self.canvas_size, segmentation.dtype)
        canvas[:height, :width] = Image.fromarray(segmentation).resize((width, height), Image.NEAREST, box=self.window)
        return canvas

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Map points (N, 2), x and y in source pixels."""
        x0, y0, x1, y1 = self.window
        height, width = self.out_size
        return (coords - (x0, y0)) * (width / (x1 - x0), height / (y1 - y0))


class RandomWindow(T.Augmentation):
    """
    Draws a scale (short edge, long-edge limit, jitter) and, with `crop_size`, a window of that size at this
    scale.

    Cutting before resizing makes a crop cost what the crop costs, not what the whole enlarged frame would.
    """

    def __init__(
        self,
        short_edges: Sequence[int],
        max_size: int,
        *,
        sampling: str = "choice",
        jitter: tuple[float, float] = (1.0, 1.0),
        crop_size: tuple[int, int] = (0, 0),
        around_object: float = 0.0,
        max_object_fill: float = 0.0,
        pad_value: int = 128,
    ) -> None:
        """Set the ranges to draw from.

        Args:
            short_edges: lengths to choose from, or with `sampling` "range" the smallest and the largest.
            max_size: limit of the long edge in pixels, before the jitter.
            crop_size: (height, width) in pixels; (0, 0) keeps the whole frame.
            around_object: probability that the window is placed around an object of the frame.
            max_object_fill: the scale is limited so that this object takes at most this share of the window's
                sides; 0 sets no limit.
        """
        super().__init__()
        if sampling not in ("choice", "range"):
            raise ConfigError(f"INPUT.MIN_SIZE_TRAIN_SAMPLING must be 'choice' or 'range', found {sampling!r}")
        if not 0 < jitter[0] <= jitter[1]:
            raise ConfigError(f"INPUT.SCALE_JITTER must be two ascending positive factors, found {tuple(jitter)}")
        if min(crop_size) < 0 or (min(crop_size) == 0) != (max(crop_size) == 0):
            raise ConfigError(f"INPUT.CROP_PIXELS must be a height and a width, or (0, 0), found {tuple(crop_size)}")
        self.short_edges = (short_edges,) if isinstance(short_edges, int) else tuple(short_edges)
        self.max_size = max_size
        self.sampling = sampling
        self.jitter = tuple(jitter)
        self.crop_size = tuple(crop_size)
        self.around_object = around_object
        self.max_object_fill = max_object_fill
        self.pad_value = pad_value

    def get_transform(self, image: np.ndarray, boxes: np.ndarray) -> Transform:
        """Draw the transform for an image (H, W, C) with boxes (N, 4) as x0, y0, x1, y1 in pixels."""
        height, width = image.shape[:2]
        target = self._draw_target(boxes)
        scale = min(self._draw_scale(height, width), self._largest_scale(target))
        resized = (max(1, round(height * scale)), max(1, round(width * scale)))
        if self.crop_size == (0, 0):
            return WindowTransform((0, 0, width, height), resized, resized, self.pad_value)
        out_size = tuple(min(crop, full) for crop, full in zip(self.crop_size, resized))
        window_height, window_width = out_size[0] / resized[0] * height, out_size[1] / resized[1] * width
        x0 = self._draw_offset(width, window_width, None if target is None else target[0::2])
        y0 = self._draw_offset(height, window_height, None if target is None else target[1::2])
        # Rounding may carry the far edges over the image by 1e-13, which Pillow refuses.
        window = (x0, y0, min(x0 + window_width, width), min(y0 + window_height, height))
        return WindowTransform(window, out_size, self.crop_size, self.pad_value)

    def _draw_target(self, boxes: np.ndarray) -> np.ndarray | None:
        """The object to place the window around, if any."""
        if self.crop_size == (0, 0) or not len(boxes) or np.random.uniform() >= self.around_object:
            return None
        return boxes[np.random.randint(len(boxes))]

    def _largest_scale(self, target: np.ndarray | None) -> float:
        """The scale at which the target takes its largest share of the window."""
        if target is None or self.max_object_fill <= 0:
            return np.inf
        sides = np.maximum((target[3] - target[1], target[2] - target[0]), 1.0)
        return float(np.min(self.max_object_fill * np.asarray(self.crop_size) / sides))

    def _draw_scale(self, height: int, width: int) -> float:
        if self.sampling == "range":
            short_edge = np.random.randint(min(self.short_edges), max(self.short_edges) + 1)
        else:
            short_edge = self.short_edges[np.random.randint(len(self.short_edges))]
        # 0 means no resizing, as elsewhere in Detectron2.
        scale = 1.0 if short_edge == 0 else min(short_edge / min(height, width), self.max_size / max(height, width))
        return scale * np.random.uniform(*self.jitter)

    @staticmethod
    def _draw_offset(length: int, window: float, target: np.ndarray | None) -> float:
        """Draw the window's start along one axis so that it holds `target` (start, end) or lies in it."""
        low, high = 0.0, max(0.0, length - window)
        if target is not None:
            a, b = sorted((float(target[1]) - window, float(target[0])))
            low, high = min(max(a, low), high), min(max(b, low), high)
        return float(np.random.uniform(low, high))


class ChannelGain(T.Augmentation):
    """Multiplies every colour channel by a factor of its own: other cameras, other light."""

    def __init__(self, low: float, high: float) -> None:
        """
        Args:
            low, high: range of the factors.
        """
        super().__init__()
        if not 0 < low <= high:
            raise ConfigError(f"INPUT.CHANNEL_GAIN must be two ascending positive factors, found {(low, high)}")
        self.low, self.high = low, high

    def get_transform(self, image: np.ndarray) -> Transform:
        return GainTransform(np.random.uniform(self.low, self.high, image.shape[2]).astype(np.float32))


class ColourTransform(Transform):
    """Changes colours only: coordinates and masks stay."""

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation


class GainTransform(ColourTransform):
    """Multiplies the channels of a uint8 image (H, W, C) by factors (C,)."""

    def __init__(self, factors: np.ndarray) -> None:
        super().__init__()
        self.factors = factors

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return np.clip(img * self.factors, 0, 255).astype(img.dtype)


LUMA = np.asarray((0.299, 0.587, 0.114), np.float32)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""


class RandomSaturation(T.Augmentation):
    """Takes colour away, or adds to it: grey cameras, grey skies."""

    def __init__(self, low: float, high: float, image_format: str) -> None:
        """
        Args:
            low, high: range of the factor of every pixel's distance from its grey.
            image_format: "RGB" or "BGR".
        """
        super().__init__()
        if not 0 <= low <= high:
            raise ConfigError(f"INPUT.SATURATION must be two ascending factors from 0 on, found {(low, high)}")
        self.low, self.high = low, high
        self.weights = LUMA if image_format == "RGB" else LUMA[::-1]

    def get_transform(self, image: np.ndarray) -> Transform:
        return SaturationTransform(np.float32(np.random.uniform(self.low, self.high)), self.weights)


class SaturationTransform(ColourTransform):
    """Multiplies the distance from grey in uint8 images (H, W, 3) by a factor."""

    def __init__(self, factor: float, weights: np.ndarray) -> None:
        super().__init__()
        self.factor, self.weights = factor, weights

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        grey = (img @ self.weights)[..., None]
        return np.clip(grey + self.factor * (img - grey), 0, 255).astype(img.dtype)


LARGEST_GAIN = 10.0
"""Factor by which an automatic gain raises contrast at most."""
LARGEST_SENSOR_NOISE = 5.0
"""Standard deviation of a sensor's noise in grey levels, before the gain, at most."""
SKY_LEVELS = (40.0, 160.0)
"""Grey levels to which the gain's control brings the middle one."""


class AutoGain(T.Augmentation):
    """Raises contrast and noise together, as infrared cameras do where an even sky leaves little to show.

    Warm objects become white spots that their blur has widened, on noise. For frames before they are resized: the noise
    is that of the sensor's pixels.
    """

    def __init__(self, probability: float) -> None:
        """
        Args:
            probability: of a frame's being changed.
        """
        super().__init__()
        if not 0 <= probability <= 1:
            raise ConfigError(f"INPUT.AUTO_GAIN must be from 0 to 1, found {probability}")
        self.probability = probability

    def get_transform(self, image: np.ndarray) -> Transform:
        if np.random.uniform() >= self.probability:
            return NoOpTransform()
        gain = float(np.exp(np.random.uniform(0, np.log(LARGEST_GAIN))))
        noise = gain * np.random.uniform(0, LARGEST_SENSOR_NOISE)
        level = float(np.median(image))
        shift = np.random.uniform(*SKY_LEVELS) - level
        return AutoGainTransform(gain, noise, level, shift, np.random.randint(2**31))


class AutoGainTransform(ColourTransform):
    """Multiplies the distances from a level in uint8 images (H, W, C), shifts them and adds grey noise."""

    def __init__(self, gain: float, noise: float, level: float, shift: float, seed: int) -> None:
        """
        Args:
            gain: factor of the distances from `level`.
            noise: standard deviation, in grey levels; each image gets its own, in the order of application.
            shift: of all, in grey levels.
        """
        super().__init__()
        self.gain, self.noise, self.level, self.shift = gain, noise, level, shift
        self._random = np.random.default_rng(seed)

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        grain = self._random.standard_normal((*img.shape[:2], 1), np.float32) * np.float32(self.noise)
        raised = (img.astype(np.float32) - self.level) * self.gain + (self.level + self.shift)
        return np.clip(raised + grain, 0, 255).astype(img.dtype)
