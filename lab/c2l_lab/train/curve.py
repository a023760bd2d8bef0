"""Reading the log of a run and plotting its loss curve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_log(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log. An incomplete line, left by an interrupted run, is skipped."""
    lines = []
    for line in file.read_text("utf-8").splitlines() if file.exists() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def draw(log: Path, out: Path) -> None:
    """Plot training and validation loss (nat per token) and bits per byte over tokens to a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_log(log)
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    for key, label, style in (
        ("loss", "training, nat/token", "-"),
        ("nat_per_token", "validation, nat/token", "o-"),
        ("middle_nat_per_token", "validation FIM middles, nat/token", "s-"),
        ("bits_per_byte", "validation, bits/byte", "^-"),
    ):
        points = [(line["tokens"] / 1e6, line[key]) for line in lines if key in line]
        if points:
            axis.plot(*zip(*points, strict=True), style, label=label, markersize=3, linewidth=1)
    axis.set(xlabel="million tokens", ylim=(0, 6))
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend()
    figure.savefig(out)
