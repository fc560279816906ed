"""Training the retrieval network: once on early events, to learn for how long, then on everything."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from watchnext.artifacts import Artifact, open_artifact
from watchnext.config import RetrievalConfig
from watchnext.errors import DataError
from watchnext.evaluation.metrics import recall
from watchnext.events.dataset import Dataset
from watchnext.examples.contexts import context_as_of, seen_before
from watchnext.examples.next_watch import NextWatchExamples, RetrievalBatch, targets_between, watch_counts
from watchnext.examples.quantiles import Quantiles
from watchnext.layers.embedding import TableStorage
from watchnext.layers.tensors import training_device
from watchnext.pipeline.calibration import fitted_calibration
from watchnext.progress import say
from watchnext.retrieval.calibration import Calibration
from watchnext.retrieval.index.exact import ExactIndex
from watchnext.retrieval.network import RetrievalNetwork
from watchnext.retrieval.sampling import SampledVideos, sampler_for
from watchnext.retrieval.saved import open_network
from watchnext.retrieval.sizes import RetrievalSizes
from watchnext.retrieval.video_side import FreeAndTower
from watchnext.retrieval.warm_start import start_from
from watchnext.training.checkpoint import Checkpoint
from watchnext.training.learner import Schedule
from watchnext.training.loop import Outcome, Task, fit

_VALIDATION_USERS = 5000
_VALIDATION_K = 100
_TABLE_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class FittedRetrieval:
    """The network that serves, the earlier one whose scores teach the ranker, and how training went.

    `calibration` was fitted to the early one, on the watches that came next: later ones are of videos that
    it never met, and it serves as the final one does, just after what it learnt from.
    """

    network: RetrievalNetwork
    early_network: RetrievalNetwork
    outcomes: dict[str, Outcome]
    calibration: Calibration


@dataclass(frozen=True)
class WarmStart:
    """A dataset of an earlier day and the retrieval networks that were made from it."""

    dataset: Dataset
    retrieval: Artifact

    @classmethod
    def open(cls, folder: Path) -> "WarmStart":
        """Opens them in a run's folder, or in a bundle.

        Raises:
            ArtifactError: they are not there, damaged, or do not belong together.
        """
        dataset, retrieval = Dataset.open(folder / "dataset"), open_artifact(folder / "retrieval", "retrieval")
        retrieval.require_parent(dataset.artifact)
        return cls(dataset, retrieval)

    def network(self, which: str) -> RetrievalNetwork:
        """Gives the network that served (""), or the one that taught the ranker ("early")."""
        return open_network(self.retrieval, self.dataset.videos, which)


def fit_retrieval(
    dataset: Dataset, config: RetrievalConfig, checkpoints: Path, warm: WarmStart | None = None
) -> FittedRetrieval:
    """Trains twice.

    The early network learns from what came before `ranking_start` until its recall on the validation period stops
    rising; the ranker is taught with its scores, since it has seen none of the ranker's labels. The network that
    serves then learns from everything before the test period for as many passes. With `warm`, each goes on from
    its predecessor.

    Raises:
        DataError: there are no completed watches to learn from, or a predecessor knows too much.
        ConfigurationError: the predecessors have other inputs or layers.
    """
    if warm is not None:
        _refuse_knowing_too_much(warm.dataset, dataset)
    early_network, early = fit_once(dataset, config, dataset.ranking_start, checkpoints / "early", None, warm, "early")
    say(f"retrieval: best after pass {early.epochs}; now learning from everything before the test period")
    network, final = fit_once(dataset, config, dataset.test_start, checkpoints / "final", early.epochs, warm, "")
    start = dataset.ranking_start
    end = start + max(dataset.test_start - dataset.validation_start, 1)
    calibration = fitted_calibration(early_network.trained(), dataset, start, end, config.seed)
    return FittedRetrieval(network, early_network, {"early": early, "final": final}, calibration)


def fit_once(
    dataset: Dataset,
    config: RetrievalConfig,
    before: int,
    folder: Path,
    passes: int | None,
    warm: WarmStart | None = None,
    which: str = "",
) -> tuple[RetrievalNetwork, Outcome]:
    """Trains one network on the events before a moment: for so many passes, or until validation recall stops rising.

    Raises:
        DataError: there are no completed watches to learn from.
    """
    generator = torch.Generator().manual_seed(config.seed)
    examples = NextWatchExamples(dataset, config, before)
    if not len(examples):
        raise DataError(
            f"no completed watch happened before {before} (Unix time), so there is nothing to learn retrieval from. "
            "Give a later [split] ranking_start or a longer log."
        )
    network = _network(dataset, config, generator, folder)
    if warm is not None:
        start_from(network, dataset, warm.network(which), warm.dataset)
    counts = watch_counts(dataset.events, before, dataset.num_videos)
    if isinstance(network.videos, FreeAndTower):
        network.videos.watched.copy_(torch.from_numpy(counts > 0))
    in_batch = "in_batch" in config.sampling  # to count what is wanted reads every example
    wanted = examples.num_wanted(dataset.num_videos) if in_batch else np.zeros_like(counts)
    sampler = sampler_for(config, counts, wanted, len(examples))

    def batches(epoch: int, first_step: int) -> Iterator[tuple[RetrievalBatch, SampledVideos]]:
        order = np.random.default_rng([config.seed, epoch])
        for step, batch in enumerate(examples.batches(order, first_step), first_step):
            random = np.random.default_rng([config.seed, epoch, step])
            yield batch, sampler.sample(random, batch.target_row.numpy())

    validation = _Validation(dataset, network, config) if passes is None else None
    task = Task(
        "retrieval",
        examples.num_batches,
        batches,
        lambda batch: network.loss(*batch),
        validation.score if validation and validation.users.size else None,
    )
    schedule = Schedule(
        passes or config.max_epochs,
        config.patience,
        config.learning_rate,
        config.embedding_learning_rate,
        passes_planned=config.max_epochs,
    )
    purpose = f"{dataset.artifact.fingerprint} {config} {before} {warm.retrieval.fingerprint if warm else ''}"
    return network, fit(network, task, schedule, generator, Checkpoint(folder, purpose))


def _network(dataset: Dataset, config: RetrievalConfig, generator: torch.Generator, folder: Path) -> RetrievalNetwork:
    tables = folder / "tables" if config.mapped_tables else None
    if tables is not None:
        tables.mkdir(parents=True, exist_ok=True)
        for file in tables.iterdir():
            file.unlink()
    return RetrievalNetwork(
        RetrievalSizes.of(dataset),
        config,
        Quantiles.fit(np.asarray(dataset.users.continuous[1:])),
        Quantiles.fit(np.asarray(dataset.videos.continuous[1:])),
        dataset.videos,
        generator,
        TableStorage(_TABLE_TYPES[config.table_type], tables),
    )


def _refuse_knowing_too_much(old: Dataset, new: Dataset) -> None:
    """Refuses networks that have seen what this run is to be judged by."""
    for name in ("ranking_start", "test_start"):
        if getattr(old, name) > getattr(new, name):
            raise DataError(
                f"the warm start learnt from events up to {getattr(old, name)}, but this run's {name} is "
                f"{getattr(new, name)}: it would know what it is to be judged by. Start from an earlier bundle."
            )


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
        model = self.network.trained()
        index = ExactIndex(model.video_vectors, training_device())
        lists, _ = index.search(model.vectors_of(self.context), _VALIDATION_K, self.seen)
        return float(np.nanmean(recall(lists, self.targets, _VALIDATION_K)))
