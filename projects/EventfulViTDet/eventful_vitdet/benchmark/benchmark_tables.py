"""A benchmark's result as markdown tables and as a plot."""

from __future__ import annotations

from matplotlib.figure import Figure

from ..draw.figure_files import write_figure
from ..markdown_table import format_table

COLUMNS = {
    "backbone GMACs": ("backbone_gmacs", "{:.1f}"),
    "dense / this": ("backbone_saving", "{:.2f}"),
    "backbone s": ("backbone_seconds", "{:.3f}"),
    "dense s / this": ("backbone_speedup", "{:.2f}"),
    "GFLOP/s": ("backbone_gflops_per_second", "{:.0f}"),
    "of matmul rate": ("share_of_matmul_rate", "{:.0%}"),
    "flush / dense s": ("flush_over_dense", "{:.2f}"),
    "total GMACs": ("total_gmacs", "{:.1f}"),
    "total s": ("total_seconds", "{:.3f}"),
    "dense total s / this": ("total_speedup", "{:.2f}"),
    "state MB": ("state_bytes", "{:.0f}"),
    "peak MB": ("peak_bytes", "{:.0f}"),
}
MEGABYTE = 1e6


def format_benchmark(result: dict) -> str:
    """The result as a heading and a markdown table."""
    rates = ", ".join(f"{rate:.0f} GFLOP/s {dtype}" for dtype, rate in result["matmul_gflops_per_second"].items())
    head = (
        f"{result['name']}, {result['image_size']} px, {result['device']} with {result['threads']} threads, "
        f"torch {result['torch']}, medians of {result['rounds']} frames. Matrix products here: {rates}."
    )
    if result["busy_processes"]:
        head += f" {result['busy_processes']} other processes want a core each."
    for dtype, error in result["output_errors"].items():
        head += f" The dense backbone's output in {dtype} differs from float32 by {error:.2%} (root mean square)."
    rows = [
        (line["variant"], line["dtype"], *(_cell(line[key], key, form) for key, form in COLUMNS.values()))
        for line in result["rows"]
    ]
    return head + "\n\n" + format_table(("variant", "type", *COLUMNS), rows)


def _cell(value: float | None, key: str, form: str) -> str:
    if value is None:
        return "-"
    return form.format(value / MEGABYTE if key.endswith("_bytes") else value)


def format_profile(result: dict) -> str:
    """Milliseconds of the parts of one frame, a column for each variant."""
    names = list(result["profiles"])
    parts = list(dict.fromkeys(part for profile in result["profiles"].values() for part in profile))
    rows = [(part, *(f"{1000 * result['profiles'][name].get(part, 0.0):.1f}" for name in names)) for part in parts]
    rows.append(("all", *(f"{1000 * sum(result['profiles'][name].values()):.1f}" for name in names)))
    return format_table((f"{result['image_size']} px, milliseconds", *names), rows)


def plot_benchmark(results: list[dict], path: str) -> None:
    """Write a PNG: backbone seconds against GMACs, with the line of the measured matmul rate, for each size."""
    figure = Figure(figsize=(6.0 * len(results), 4.4), layout="constrained")
    for position, result in enumerate(results, start=1):
        axes = figure.add_subplot(1, len(results), position)
        _plot_size(axes, result)
    write_figure(figure, path)


def _plot_size(axes, result: dict) -> None:
    series: dict[str, list[dict]] = {}
    for line in result["rows"]:
        parts = [part for part in line["variant"].split(", ") if not part.startswith("r = ")]
        label = ", ".join([*parts, line["dtype"]])
        if "eventful pyramid" not in line["variant"]:
            series.setdefault(label, []).append(line)
    for label, lines in series.items():
        lines = sorted(lines, key=lambda line: line["backbone_gmacs"])
        axes.plot(
            [line["backbone_gmacs"] for line in lines],
            [line["backbone_seconds"] for line in lines],
            "s" if label.startswith("dense") else "o-",
            label=label,
        )
    limit = max(line["backbone_gmacs"] for line in result["rows"])
    for dtype, rate in result["matmul_gflops_per_second"].items():
        axes.plot([0, limit], [0, 2 * limit / rate], ":", linewidth=1, color="gray")
        axes.annotate(f"matmul, {dtype}", (0.7 * limit, 1.4 * limit / rate), fontsize=8, color="gray")
    axes.set(
        xlabel="backbone GMACs per frame",
        ylabel="backbone seconds per frame",
        title=f"{result['name']}, {result['image_size']} px",
    )
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
