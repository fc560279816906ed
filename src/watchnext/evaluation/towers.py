"""What towers of several sizes are worth on a log: the paper's table 1 (§4.3)."""

import json
from dataclasses import asdict, dataclass

from matplotlib.figure import Figure

from watchnext.evaluation.bootstrap import Estimate


@dataclass(frozen=True)
class TowerScore:
    """The weighted per-user loss of one tower, and by how much it is above that of the deepest one.

    `papers` is the loss that the paper gives for its own log.
    """

    name: str
    weighted_loss: Estimate
    above_the_deepest: Estimate
    papers: float


def towers_as_json(scores: list[TowerScore]) -> str:
    """Gives the scores as JSON text."""
    return json.dumps([asdict(one) for one in scores], indent=1)


def towers_from_json(text: str) -> list[TowerScore]:
    """Gives the scores that `towers_as_json` wrote."""
    return [
        TowerScore(row["name"], Estimate(**row["weighted_loss"]), Estimate(**row["above_the_deepest"]), row["papers"])
        for row in json.loads(text)
    ]


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
