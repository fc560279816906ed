"""Making class probabilities honest: one number, fitted on watches that training did not see."""

import numpy as np
import torch

from watchnext.events.dataset import Dataset
from watchnext.examples.contexts import context_as_of
from watchnext.progress import bar
from watchnext.retrieval.network import RetrievalModel
from watchnext.shapes import Array, Float

_MOST_WATCHES = 5000
_MOST_LOGITS = 200_000_000
_WATCHES_AT_ONCE = 128
_TEMPERATURES = np.exp(np.linspace(np.log(0.5), np.log(4.0), 43))


def probability_temperature(model: RetrievalModel, dataset: Dataset, start: int, end: int, seed: int) -> float:
    """Gives what to divide logits by so that the watches of [start, end) become as likely as they can.

    A network that saw few examples is too sure of itself: above 1. Every watch is asked for as of its own moment.
    Without watches in the period it is 1.

    Source: temperature scaling (Guo et al., 2017).
    """
    watches = dataset.events.watches
    inside = np.flatnonzero((watches.timestamp >= start) & (watches.timestamp < end))
    chosen = np.random.default_rng(seed).permutation(inside)
    chosen = chosen[: max(1, min(_MOST_WATCHES, _MOST_LOGITS // dataset.num_videos))]
    rows = np.asarray(dataset.events.video_row[dataset.events.watch_places[chosen]], dtype=np.int64)
    chosen, rows = chosen[rows > 0], rows[rows > 0]
    if not len(chosen):
        return 1.0
    owners = np.searchsorted(watches.offsets, chosen, side="right") - 1
    moments = np.asarray(watches.timestamp[chosen])
    losses = np.zeros(len(_TEMPERATURES))
    with bar("calibrating probabilities", len(chosen)) as progress:
        for first in range(0, len(chosen), _WATCHES_AT_ONCE):
            part = slice(first, first + _WATCHES_AT_ONCE)
            length, tokens = model.config.history_length, model.config.num_search_tokens
            context = context_as_of(dataset, owners[part], moments[part], length, tokens)
            losses += _losses(torch.from_numpy(model.logits(context)), torch.from_numpy(rows[part]))
            progress.advance(len(rows[part]))
    return float(_TEMPERATURES[losses.argmin()])


def _losses(logits: Float[torch.Tensor, "batch videos"], rows: torch.Tensor) -> Float[Array, "_"]:
    """The summed -log P at every temperature."""
    wanted = logits.gather(1, rows[:, None])[:, 0]
    found = [
        float((torch.logsumexp(logits / temperature, dim=1) - wanted / temperature).sum())
        for temperature in _TEMPERATURES
    ]
    return np.array(found)
