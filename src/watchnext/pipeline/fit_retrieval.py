"""Training the retrieval network: validation decides how long, then it learns from both periods."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from watchnext.config import RetrievalConfig
from watchnext.errors import DataError
from watchnext.evaluation.metrics import recall
from watchnext.events.dataset import Dataset
from watchnext.examples.contexts import context_as_of, seen_before
from watchnext.examples.next_watch import (
    NextWatches,
    RetrievalBatch,
    next_watches,
    retrieval_batches,
    targets_between,
)
from watchnext.examples.quantiles import Quantiles
from watchnext.progress import say
from watchnext.retrieval.exact_index import ExactIndex
from watchnext.retrieval.network import RetrievalNetwork, RetrievalSizes
from watchnext.retrieval.sampling import EveryVideo, FrequencySampler, Sampler
from watchnext.training.checkpoint import Checkpoint
from watchnext.training.loop import Outcome, Schedule, Task, fit

_VALIDATION_USERS = 5000
_VALIDATION_K = 100


def fit_retrieval(
    dataset: Dataset, config: RetrievalConfig, checkpoints: Path
) -> tuple[RetrievalNetwork, dict[str, Outcome]]:
    """Gives the trained network and how each fit went.

    First it learns from the training period until recall on the validation period stops rising. With `refit`, a
    second network then learns from everything before the test period for as many passes.

    Raises:
        DataError: there are no completed watches to learn from.
    """
    network, outcome = _fit_once(dataset, config, dataset.validation_start, checkpoints / "search", None)
    outcomes = {"search": outcome}
    if config.refit:
        say(f"retrieval: best after pass {outcome.epochs}; learning again from training and validation period")
        network, outcomes["refit"] = _fit_once(
            dataset, config, dataset.test_start, checkpoints / "refit", outcome.epochs
        )
    return network, outcomes


def _fit_once(
    dataset: Dataset, config: RetrievalConfig, before: int, folder: Path, passes: int | None
) -> tuple[RetrievalNetwork, Outcome]:
    generator = torch.Generator().manual_seed(config.seed)
    examples = next_watches(dataset.events, before, config.examples_per_user)
    if not len(examples):
        raise DataError("there is no completed watch before the test period: nothing to learn retrieval from.")
    quantiles = Quantiles.fit(dataset.users.continuous[1:])
    network = RetrievalNetwork(RetrievalSizes.of(dataset), config, quantiles, generator)
    sampler = _sampler(dataset, config)
    num_steps = -(-len(examples) // config.batch_size)

    def batches(epoch: int, first_step: int) -> Iterator[RetrievalBatch]:
        order = np.random.default_rng([config.seed, epoch]).permutation(len(examples))
        rest = order[first_step * config.batch_size :]
        return retrieval_batches(dataset, examples, rest, config.batch_size, config.history_length, config.num_search_tokens, before)

    recall_on_validation = _Validation(dataset, network, config) if passes is None else None
    task = Task(
        "retrieval",
        num_steps,
        batches,
        lambda batch: network.loss(batch, sampler.sample(generator)),
        recall_on_validation.score if recall_on_validation and recall_on_validation.users.size else None,
    )
    schedule = Schedule(
        passes or config.max_epochs,
        config.patience,
        config.learning_rate,
        config.embedding_learning_rate,
        passes_planned=config.max_epochs,
    )
    purpose = f"{dataset.artifact.fingerprint} {config} {before}"
    return network, fit(network, task, schedule, generator, Checkpoint(folder, purpose))


def _sampler(dataset: Dataset, config: RetrievalConfig) -> Sampler:
    if config.num_negatives >= dataset.num_videos - 1:
        return EveryVideo(dataset.num_videos)
    counts = torch.from_numpy(np.array(dataset.videos.num_completed))
    return FrequencySampler(counts, config.num_negatives, config.sampling_power)


class _Validation:
    """Recall on what users completed in the validation period, as of its start."""

    def __init__(self, dataset: Dataset, network: RetrievalNetwork, config: RetrievalConfig) -> None:
        users, targets = targets_between(dataset.events, dataset.validation_start, dataset.test_start)
        chosen = np.random.default_rng(config.seed).permutation(len(users))[:_VALIDATION_USERS]
        self.users = users[chosen]
        self.network = network
        moments = np.full(len(chosen), dataset.validation_start)
        self.context = context_as_of(dataset, self.users, moments, config.history_length, config.num_search_tokens)
        self.seen = seen_before(dataset, self.users, moments)
        self.targets = [np.setdiff1d(targets[place], seen) for place, seen in zip(chosen, self.seen, strict=True)]

    def score(self) -> float:
        index = ExactIndex(self.network.video_vectors)
        lists, _ = index.search(self.network.vectors_of(self.context), _VALIDATION_K, self.seen)
        return float(np.nanmean(recall(lists, self.targets, _VALIDATION_K)))


__all__ = ["NextWatches", "fit_retrieval"]
