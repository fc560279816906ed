"""The report: the figures as JSON, and as one HTML page with pictures that needs nothing else."""

import base64
import io
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from watchnext.evaluation.bootstrap import Estimate
from watchnext.evaluation.reliability import GroupReliability
from watchnext.evaluation.towers import TowerScore, draw_towers

Scores = dict[str, dict[str, Estimate | float]]
Curve = dict[str, list[float]]

_LABEL_LETTERS = 24


@dataclass(frozen=True)
class Report:
    """Everything that one evaluation found.

    `reliability` has (mean predicted, mean watched, impressions) per decile of the prediction, `reliability_by_group`
    the same for each way of grouping the impressions, `training` each fit's loss and validation score by pass.
    `index_curve` is what was measured when an approximate index was tuned:
    at each effort recall, recall_p5, p50_ms and p99_ms; an exact index has none. `towers` is there if it was asked for.
    """

    log: dict[str, Any]
    retrieval: dict[str, dict[str, Estimate]]
    ranking: Scores
    reliability: list[tuple[float, float, int]]
    reliability_by_group: dict[str, list[GroupReliability]]
    training: dict[str, Curve]
    settings: dict[str, Any]
    notes: list[str]
    index_curve: list[dict[str, int | float]]
    towers: list[TowerScore] = field(default_factory=list)

    def to_json(self) -> str:
        """Gives all figures as JSON; one that is not known is null."""
        return json.dumps(_with_nulls(asdict(self)), indent=1, allow_nan=False)


def write_report(report: Report, folder: Path) -> None:
    """Writes `report.json` and `report.html` into `folder`."""
    (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    (folder / "report.html").write_text(_html(report), encoding="utf-8")


def shown(value: Estimate | float) -> str:
    """Gives a figure as people read it, a dash where it is not known.

    >>> shown(Estimate(0.34567, 0.33, 0.36))
    '0.346 [0.330, 0.360]'
    """
    if isinstance(value, float):
        return f"{value:.3f}" if math.isfinite(value) else "–"
    interval = f" [{shown(value.low)}, {shown(value.high)}]" if math.isfinite(value.value) else ""
    return shown(value.value) + interval


def _html(report: Report) -> str:
    environment = jinja2.Environment(loader=jinja2.PackageLoader("watchnext.evaluation", "."), autoescape=True)
    environment.filters["shown"] = shown
    pictures = {
        "retrieval": _picture(_draw_recall, report.retrieval) if report.retrieval else None,
        "reliability": _picture(_draw_reliability, report.reliability) if report.reliability else None,
        "groups": _picture_of_groups(report.reliability_by_group),
        "index": _picture(_draw_index, report.index_curve) if report.index_curve else None,
        "towers": _picture(draw_towers, report.towers) if report.towers else None,
        "training": _picture(_draw_training, report.training),
    }
    return environment.get_template("report.html.jinja").render(report=report, pictures=pictures)


def _picture(draw: Any, data: Any, height_inches: float = 3.6) -> str:
    """Gives what `draw` makes of `data` as a PNG in a data URL."""
    figure = Figure(figsize=(7.2, height_inches), dpi=110, layout="constrained")
    with matplotlib.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        draw(figure, data)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _draw_recall(figure: Figure, retrieval: dict[str, dict[str, Estimate]]) -> None:
    axes = figure.subplots()
    for name, scores in retrieval.items():
        cutoffs = sorted(int(metric.split("@")[1]) for metric in scores if metric.startswith("recall@"))
        found = [scores[f"recall@{k}"] for k in cutoffs]
        axes.plot(cutoffs, [one.value for one in found], marker="o", label=name)
        axes.fill_between(cutoffs, [one.low for one in found], [one.high for one in found], alpha=0.2)
    axes.set(xscale="log", xlabel="k", ylabel="recall@k", xticks=cutoffs, xticklabels=[str(k) for k in cutoffs])
    axes.legend(frameon=False)


def _draw_reliability(figure: Figure, reliability: list[tuple[float, float, int]]) -> None:
    axes = figure.subplots()
    predicted = [one[0] for one in reliability]
    watched = [one[1] for one in reliability]
    most = max(*predicted, *watched, 1e-9)
    axes.plot([0, most], [0, most], color="grey", linewidth=1, linestyle="--", label="perfect")
    axes.plot(predicted, watched, marker="o", label="tenths of the test impressions")
    axes.set(xlabel="expected watch seconds", ylabel="mean watch seconds")
    axes.legend(frameon=False)


def _picture_of_groups(tables: dict[str, list[GroupReliability]]) -> str | None:
    lines = sum(len(rows) + 2 for rows in tables.values())
    return _picture(_draw_groups, tables, 0.6 + 0.22 * lines) if tables else None


def _draw_groups(figure: Figure, tables: dict[str, list[GroupReliability]]) -> None:
    """A panel for each way of grouping, one below the other, with a line for each group."""
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


def _draw_index(figure: Figure, curve: list[dict[str, int | float]]) -> None:
    axes = figure.subplots()
    for name, label in (("recall", "mean"), ("recall_p5", "worst twentieth of the users")):
        axes.plot([point["p50_ms"] for point in curve], [point[name] for point in curve], marker="o", label=label)
    axes.set(xscale="log", xlabel="median milliseconds of a search", ylabel="share of the true best found")
    axes.legend(frameon=False)


def _draw_training(figure: Figure, training: dict[str, Curve]) -> None:
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


def _with_nulls(value: Any) -> Any:
    """Puts null, which JSON has, in the place of NaN and infinity, which it has not."""
    if isinstance(value, dict):
        return {key: _with_nulls(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nulls(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
