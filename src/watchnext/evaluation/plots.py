"""The report's pictures."""

import base64
import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from watchnext.evaluation.bootstrap import Estimate
from watchnext.evaluation.reliability import GroupReliability
from watchnext.evaluation.report import Curve
from watchnext.evaluation.towers import TowerScore

_LABEL_LETTERS = 24


def picture(draw: Any, data: Any, height_inches: float = 3.6) -> str | None:
    """Gives what `draw` makes of `data` as a PNG in a data URL; None where there are none."""
    if not data:
        return None
    figure = Figure(figsize=(7.2, height_inches), dpi=110, layout="constrained")
    with matplotlib.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        draw(figure, data)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def draw_recall(figure: Figure, retrieval: dict[str, dict[str, Estimate]]) -> None:
    """Draws recall by the length of the list, with intervals."""
    axes = figure.subplots()
    for name, scores in retrieval.items():
        cutoffs = sorted(int(metric.split("@")[1]) for metric in scores if metric.startswith("recall@"))
        found = [scores[f"recall@{k}"] for k in cutoffs]
        axes.plot(cutoffs, [one.value for one in found], marker="o", label=name)
        axes.fill_between(cutoffs, [one.low for one in found], [one.high for one in found], alpha=0.2)
    axes.set(xscale="log", xlabel="k", ylabel="recall@k", xticks=cutoffs, xticklabels=[str(k) for k in cutoffs])
    axes.legend(frameon=False)


def draw_reliability(figure: Figure, reliability: list[tuple[float, float, int]]) -> None:
    """Draws what was watched by what was expected, in tenths."""
    axes = figure.subplots()
    predicted = [one[0] for one in reliability]
    watched = [one[1] for one in reliability]
    most = max(*predicted, *watched, 1e-9)
    axes.plot([0, most], [0, most], color="grey", linewidth=1, linestyle="--", label="perfect")
    axes.plot(predicted, watched, marker="o", label="tenths of the test impressions")
    axes.set(xlabel="expected watch seconds", ylabel="mean watch seconds")
    axes.legend(frameon=False)


def picture_of_groups(tables: dict[str, list[GroupReliability]]) -> str | None:
    """Gives `draw_groups` as high as its lines need."""
    return picture(draw_groups, tables, 0.6 + 0.22 * sum(len(rows) + 2 for rows in tables.values()))


def draw_groups(figure: Figure, tables: dict[str, list[GroupReliability]]) -> None:
    """Draws a panel for each way of grouping, one below the other, with a line for each group."""
    heights = [len(rows) + 1 for rows in tables.values()]
    panels = figure.subplots(len(tables), squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axes, (kind, rows) in zip(panels, tables.items(), strict=True):
        places = range(len(rows))
        axes.axvline(1, color="grey", linewidth=1, linestyle="--")
        axes.hlines(places, [one.ratio.low for one in rows], [one.ratio.high for one in rows])
        axes.plot([one.ratio.value for one in rows], places, marker="o", linestyle="")
        axes.set_title(kind.replace("_", " "), loc="left", fontsize="medium")
        axes.set(yticks=places, yticklabels=[_label(one.name) for one in rows], ylim=(len(rows) - 0.5, -0.5))
    panels[-1].set(xlabel="expected over watched seconds, 1 is right", xlim=_ratio_limits(tables))


def _label(name: str) -> str:
    """A value of the log as an axis takes it: short, and no formula between dollars."""
    short = name if len(name) <= _LABEL_LETTERS else name[: _LABEL_LETTERS - 1] + "…"
    return short.replace("$", r"\$")


def _ratio_limits(tables: dict[str, list[GroupReliability]]) -> tuple[float, float]:
    """What holds every interval, but no more than 0 to 3: one wide interval would make all others too small to see."""
    ends = [end for rows in tables.values() for one in rows for end in (one.ratio.low, one.ratio.high)]
    low, high = float(np.nanmin([0.95, *ends])), float(np.nanmax([1.05, *ends]))
    return max(low - 0.02, 0.0), min(high + 0.02, 3.0)


def draw_index(figure: Figure, curve: list[dict[str, int | float]]) -> None:
    """Draws what an approximate index finds in the time that it takes."""
    axes = figure.subplots()
    for name, label in (("recall", "mean"), ("recall_p5", "worst twentieth of the users")):
        axes.plot([point["p50_ms"] for point in curve], [point[name] for point in curve], marker="o", label=label)
    axes.set(xscale="log", xlabel="median milliseconds of a search", ylabel="share of the true best found")
    axes.legend(frameon=False)


def draw_training(figure: Figure, training: dict[str, Curve]) -> None:
    """Draws the loss of each fit by pass."""
    axes = figure.subplots()
    for name, curve in training.items():
        first = curve["losses"][0] or 1.0  # a catalogue of one video leaves nothing to lose
        axes.plot(
            range(1, len(curve["losses"]) + 1),
            [loss / first for loss in curve["losses"]],
            marker="o",
            label=name,
        )
    axes.set(xlabel="pass", ylabel="training loss, first pass = 1")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)


def draw_towers(figure: Figure, scores: list[TowerScore]) -> None:
    """Draws by how much each tower is above the deepest, beside the paper's."""
    axes = figure.subplots()
    places = range(len(scores))
    deepest = min(one.papers for one in scores)
    own = [one.above_the_deepest for one in scores]
    axes.axvline(0, color="grey", linewidth=1, linestyle="--")
    axes.hlines(places, [one.low for one in own], [one.high for one in own])
    axes.plot([one.value for one in own], places, marker="o", linestyle="", label="this log")
    axes.plot([one.papers - deepest for one in scores], places, marker="x", linestyle="", label="the paper's")
    axes.set(yticks=places, yticklabels=[one.name for one in scores], ylim=(len(scores) - 0.5, -0.5))
    axes.set(xlabel="weighted loss above that of 1024→512→256")
    axes.legend(frameon=False)
