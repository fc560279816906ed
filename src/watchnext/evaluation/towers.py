"""What towers of several sizes are worth on a log: the paper's table 1 (§4.3)."""

import json
from dataclasses import asdict, dataclass

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
