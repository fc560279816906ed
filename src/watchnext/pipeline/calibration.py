"""Making class probabilities honest: two numbers, fitted on watches that training did not see."""

import numpy as np
import torch

from watchnext.events.dataset import Dataset
from watchnext.examples.contexts import context_as_of
from watchnext.progress import bar
from watchnext.retrieval.calibration import AS_LEARNT, Calibration
from watchnext.retrieval.network import RetrievalModel
from watchnext.shapes import Array, Bool, Float, Int, Tensor

_MOST_WATCHES = 5000
_MOST_LOGITS = 200_000_000
_WATCHES_AT_ONCE = 128
_TEMPERATURES = np.exp(np.linspace(np.log(0.5), np.log(4.0), 43))
_SPREADS = np.append(1e-9, np.geomspace(0.002, 0.5, 29))


def fitted_calibration(model: RetrievalModel, dataset: Dataset, start: int, end: int, seed: int) -> Calibration:
    """Gives the calibration that makes the watches of [start, end) as likely as they can be.

    The catalogue is the one that the model could know, the videos that anybody met before the start, and every watch
    is asked for as of its own moment. Without watches in the period nothing is changed.
    """
    met = _met_before(dataset, start)
    watches = dataset.events.watches
    inside = np.flatnonzero((watches.timestamp >= start) & (watches.timestamp < end))
    inside = inside[met[dataset.events.video_row[dataset.events.watch_places[inside]]]]
    if not len(inside):
        return AS_LEARNT
    chosen = np.random.default_rng(seed).permutation(inside)
    chosen = chosen[: max(1, min(_MOST_WATCHES, _MOST_LOGITS // dataset.num_videos))]
    rows = np.asarray(dataset.events.video_row[dataset.events.watch_places[chosen]], dtype=np.int64)
    owners = np.searchsorted(watches.offsets, chosen, side="right") - 1
    moments = np.asarray(watches.timestamp[chosen])
    losses = np.zeros((len(_TEMPERATURES), len(_SPREADS)))
    with bar("calibrating probabilities", len(chosen)) as progress:
        for first in range(0, len(chosen), _WATCHES_AT_ONCE):
            part = slice(first, first + _WATCHES_AT_ONCE)
            length, tokens = model.config.history_length, model.config.num_search_tokens
            context = context_as_of(dataset, owners[part], moments[part], length, tokens)
            logits = torch.from_numpy(model.logits(context)).masked_fill_(torch.from_numpy(~met), -torch.inf)
            losses += _losses(logits, rows[part])
            progress.advance(len(rows[part]))
    temperature, spread = np.unravel_index(losses.argmin(), losses.shape)
    return Calibration(float(_TEMPERATURES[temperature]), float(_SPREADS[spread]))


def _met_before(dataset: Dataset, moment: int) -> Bool[Array, "videos"]:
    """Which videos anybody was shown or watched before; row 0 never."""
    segments = dataset.video_timelines.segments
    everyone = np.arange(dataset.num_videos)
    met: Array = segments.ends_before(everyone, np.full(len(everyone), moment)) > segments.offsets[:-1]
    met[0] = False
    return met


def _losses(logits: Float[Tensor, "batch videos"], rows: Int[Array, "batch"]) -> Float[Array, "temperatures spreads"]:
    """The summed -log P of the rows, for every calibration."""
    wanted = logits[torch.arange(len(rows)), torch.from_numpy(rows)]
    num_videos = float((logits[0] > -torch.inf).sum())
    losses = np.zeros((len(_TEMPERATURES), len(_SPREADS)))
    for place, temperature in enumerate(_TEMPERATURES):
        learnt = (wanted / temperature - torch.logsumexp(logits / temperature, dim=1)).double().numpy()
        either = np.logaddexp(learnt[:, None] + np.log1p(-_SPREADS), np.log(_SPREADS / num_videos))
        losses[place] = -either.sum(axis=0)
    return losses
