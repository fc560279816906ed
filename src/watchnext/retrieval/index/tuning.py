"""How hard an approximate index has to look: measured, never guessed."""

import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from watchnext.progress import bar, say
from watchnext.retrieval.index.exact import ExactIndex
from watchnext.retrieval.index.protocol import CurvePoint, TunableIndex, VideoIndex
from watchnext.shapes import Array, Float, Int

_WHOLE = 0.9995
_AS_FAST = 1.1  # times are noisy: of efforts about as fast as the fastest the least is taken, for filters need more


def tuned(index: TunableIndex, queries: Float[Array, "batch dim"], k: int, target_recall: float) -> TunableIndex:
    """Gives the index with the effort that finds `target_recall` of the true k best of the queries fastest.

    Recall is a mean over the queries, which should be users that the index will serve. It keeps the curve that was
    measured; where no effort reaches the target, it takes the largest and says so.
    """
    k = min(k, max(len(index.vectors) - 1, 1))
    curve = recall_curve(index, queries, k)
    enough = [point for point in curve if point.recall >= target_recall]
    if not enough:
        say(f"index: recall@{k} {curve[-1].recall:.3f} at most; {target_recall:g} was asked for", "yellow")
    fastest = min((point.p50_ms for point in enough), default=0.0)
    chosen = next((point for point in enough if point.p50_ms <= _AS_FAST * fastest), curve[-1])
    say(f"index: recall@{k} {chosen.recall:.3f} (worst twentieth {chosen.recall_p5:.3f}) in {chosen.p50_ms:.2f} ms")
    return index.with_effort(chosen.effort, curve)


def recall_curve(index: TunableIndex, queries: Float[Array, "batch dim"], k: int) -> tuple[CurvePoint, ...]:
    """Measures ever larger efforts, one query at a time, until nearly everything is found."""
    efforts, curve = index.efforts(), list[CurvePoint]()
    with bar("index: measuring recall", len(efforts)) as progress:
        right, _ = ExactIndex(index.vectors).search(queries, k)
        for effort in efforts:
            curve.append(_point(effort, index.with_effort(effort), queries, right))
            progress.advance()
            if curve[-1].recall >= _WHOLE:
                break
    return tuple(curve)


def save_tuning(folder: Path, index: TunableIndex) -> None:
    """Writes the effort, and the curve by which it was chosen."""
    told = {"effort": index.effort, "curve": [asdict(point) for point in index.curve]}
    (folder / "tuning.json").write_text(json.dumps(told))


def open_tuning(folder: Path) -> tuple[int, tuple[CurvePoint, ...]]:
    """Reads them."""
    told = json.loads((folder / "tuning.json").read_text())
    return told["effort"], tuple(CurvePoint(**point) for point in told["curve"])


def recalls(found: Int[Array, "batch k"], right: Int[Array, "batch k"]) -> Float[Array, "batch"]:
    """Gives the share of each query's true best that was found; places without a video do not count."""
    pairs = zip(found, right, strict=True)
    return np.array([np.isin(best[best > 0], rows).mean() if best.any() else 1.0 for rows, best in pairs])


def _point(effort: int, index: VideoIndex, queries: Array, right: Int[Array, "batch k"]) -> CurvePoint:
    found, seconds = [], []
    index.search(queries[:1], right.shape[1])  # what is compiled or mapped at the first call
    for query in queries:
        began = time.perf_counter()
        rows, _ = index.search(query[None], right.shape[1])
        seconds.append(time.perf_counter() - began)
        found.append(rows[0])
    share = recalls(np.array(found), right)
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1e3
    return CurvePoint(effort, float(share.mean()), float(np.quantile(share, 0.05)), float(p50), float(p99))
