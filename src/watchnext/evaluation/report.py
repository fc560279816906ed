"""The report: the figures as JSON, and as one HTML page with pictures that needs nothing else."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from watchnext.evaluation.bootstrap import Estimate
from watchnext.evaluation.reliability import GroupReliability
from watchnext.evaluation.towers import TowerScore

Scores = dict[str, dict[str, Estimate | float]]
Curve = dict[str, list[float]]


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
    from watchnext.evaluation import plots  # here: Matplotlib takes a second to load, and who serves draws nothing

    environment = jinja2.Environment(loader=jinja2.PackageLoader("watchnext.evaluation", "."), autoescape=True)
    environment.filters["shown"] = shown
    pictures = {
        "retrieval": plots.picture(plots.draw_recall, report.retrieval),
        "reliability": plots.picture(plots.draw_reliability, report.reliability),
        "groups": plots.picture_of_groups(report.reliability_by_group),
        "index": plots.picture(plots.draw_index, report.index_curve),
        "towers": plots.picture(plots.draw_towers, report.towers),
        "training": plots.picture(plots.draw_training, report.training),
    }
    return environment.get_template("report.html.jinja").render(report=report, pictures=pictures)


def _with_nulls(value: Any) -> Any:
    """Puts null, which JSON has, in the place of NaN and infinity, which it has not."""
    if isinstance(value, dict):
        return {key: _with_nulls(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nulls(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
