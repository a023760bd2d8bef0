"""Draws the curves of a hypernetwork's training from its log."""

from __future__ import annotations

from pathlib import Path

from c2l_lab.train.curve import read_log


def draw(log: Path, out: Path) -> None:
    """Write the figure: own, mean and other adapters against the base model on tuning repositories; training loss."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_log(log)
    figure = Figure(figsize=(8, 6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for key, label in (("own", "own"), ("mean", "mean of all"), ("other", "of another repository")):
        points = [(line["step"], line["tune"][key]) for line in lines if "tune" in line]
        if points:
            upper.plot(*zip(*points, strict=True), "o-", label=label, markersize=3, linewidth=1)
    upper.axhline(0.0, color="black", linewidth=0.6)
    upper.set(ylabel="tuning, nat/token against the base model")
    points = [(line["step"], line["own"]) for line in lines if "own" in line]
    if points:
        lower.plot(*zip(*points, strict=True), linewidth=1)
    lower.set(xlabel="step", ylabel="training, nat/token")
    for axis in (upper, lower):
        axis.grid(alpha=0.3)
    if upper.get_legend_handles_labels()[0]:
        upper.legend()
    figure.savefig(out)
