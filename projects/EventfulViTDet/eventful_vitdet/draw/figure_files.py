"""Writing figures of matplotlib as pictures, without a display."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..files import write_atomically


def write_figure(figure: Figure, path: str) -> None:
    """Write a figure as a PNG, whole or not at all."""
    image = io.BytesIO()
    FigureCanvasAgg(figure).print_png(image)
    write_atomically(path, image.getvalue())
