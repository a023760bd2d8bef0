"""The pictures of the adapter report, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from c2l_lab.benchmarks.adapters.metrics import LAMBDAS, LAST
from c2l_lab.benchmarks.adapters.table import Results
from c2l_lab.benchmarks.stats import Row, clustered

AGES = ("100", "20", "5", "1", "0", "followed")


def bars(rows: Sequence[Row], name: str, title: str) -> bytes:
    """One bar with its interval per method, of the rows of this name."""
    chosen = [row for row in rows if row.name == name]
    figure, axes = _axes(6.4, 0.5 + 0.36 * max(len(chosen), 1))
    values = np.array([row.value for row in chosen])
    spread = np.array([[row.value - (row.low or row.value), (row.high or row.value) - row.value] for row in chosen])
    axes.barh(
        range(len(chosen)), values, xerr=np.abs(spread.reshape(-1, 2).T), color="#4878a8", ecolor="#303030", height=0.65
    )
    axes.set_yticks(range(len(chosen)), [row.method for row in chosen])
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_title(title, fontsize=10)
    return _png(figure)


def heat(results: Results, method: str) -> bytes:
    """Loss change of each repository (rows) under each repository's adapter (columns), where it was measured."""
    values = results.of("others", method)
    names = list(values)
    place = {name: index for index, name in enumerate(names)}
    grid = np.full((len(names), len(names)), np.nan)
    for name, value in values.items():
        cell = value[str(LAST)]
        grid[place[name], place[name]] = cell["own"] - cell["base"]
        for other, loss in cell["others"].items():
            grid[place[name], place[other]] = loss - cell["base"]
    figure, axes = _axes(6.8, 5.6)
    limit = float(np.nanpercentile(np.abs(grid), 95)) or 1e-3
    image = axes.imshow(grid, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set_yticks(range(len(names)), [name.partition("/")[2][:22] for name in names], fontsize=6)
    axes.set_xticks([])
    axes.set_xlabel("whose adapter")
    axes.set_title(f"{method}: loss change, own adapter on the diagonal", fontsize=10)
    figure.colorbar(image, label="nat/token")
    return _png(figure)


def steps(results: Results, method: str) -> bytes:
    """Loss along mean + λ (own − mean), and the same towards another repository's adapter."""
    values = [(v["lambda"], v[str(LAST)]["base"]) for v in results.of("others", method).values()]
    figure, axes = _axes(5.2, 3.4)
    for side, colour in (("own", "#2a7f3f"), ("other", "#b04030")):
        points = [clustered([curve[side][i] - base for curve, base in values]) for i in range(len(LAMBDAS))]
        axes.plot(LAMBDAS, [p[0] for p in points], color=colour, marker="o", label=f"towards {side}")
        axes.fill_between(LAMBDAS, [p[1] for p in points], [p[2] for p in points], color=colour, alpha=0.15)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("λ in mean + λ (adapter − mean)")
    axes.set_ylabel("loss change, nat/token")
    axes.set_title(method, fontsize=10)
    axes.legend()
    return _png(figure)


def staleness(rows: Sequence[Row], methods: Sequence[str]) -> bytes:
    """Loss change by the age of the state."""
    figure, axes = _axes(5.2, 3.4)
    for method in methods:
        chosen = {
            row.name.partition("/")[2]: row for row in rows if row.method == method and row.name.startswith("stale_ce/")
        }
        shown = [age for age in AGES if age in chosen]
        places = [AGES.index(age) for age in shown]
        low = [chosen[age].value - (chosen[age].low or 0.0) for age in shown]
        high = [(chosen[age].high or 0.0) - chosen[age].value for age in shown]
        values = [chosen[age].value for age in shown]
        axes.errorbar(places, values, yerr=np.abs(np.array([low, high])), marker="o", capsize=3, label=method)
    axes.set_xticks(range(len(AGES)), AGES)
    axes.set_xlabel("commits the state is old; followed: updated through all")
    axes.set_ylabel("loss change, nat/token")
    axes.legend()
    return _png(figure)


def worth(rows: Sequence[Row]) -> bytes:
    """Gain against the seconds an adapter takes."""
    figure, axes = _axes(5.2, 3.4)
    gains = {row.method: row for row in rows if row.name == f"delta_ce/prefix{LAST}"}
    seconds = {row.method: row.value for row in rows if row.name == "adapter_seconds"}
    for method in gains.keys() & seconds.keys():
        axes.scatter(max(seconds[method], 1e-3), gains[method].value)
        axes.annotate(method, (max(seconds[method], 1e-3), gains[method].value), fontsize=8)
    axes.set_xscale("log")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("seconds to make the adapter")
    axes.set_ylabel("loss change, nat/token")
    return _png(figure)


def _axes(width: float, height: float) -> tuple[Any, Any]:
    """A figure that belongs to no window system, and its axes."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _png(figure: Any) -> bytes:  # noqa: ANN401 - a matplotlib figure
    figure.tight_layout()
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
