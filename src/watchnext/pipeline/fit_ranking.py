"""Training the ranking network on impressions, each seen as it was at its own moment."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from watchnext.config import FeaturesConfig, RankingConfig, ServingConfig
from watchnext.errors import DataError
from watchnext.events.dataset import Dataset
from watchnext.examples.impressions import Impressions, impressions_between, with_unwatched
from watchnext.examples.quantiles import Quantiles
from watchnext.features.inputs import RankingInputs
from watchnext.features.spec import FeatureSpec, empty_state
from watchnext.features.state import FeatureState
from watchnext.layers.embedding import tables_of
from watchnext.progress import bar, say
from watchnext.ranking.network import RankingBatch, RankingNetwork, RankingSizes
from watchnext.ranking.objectives import Outcomes
from watchnext.retrieval.candidates import CandidateGenerator, Wish
from watchnext.serving.stages import excluded_videos, inputs_of, request_context
from watchnext.shapes import Array, Float, Int
from watchnext.training.checkpoint import Checkpoint
from watchnext.training.learner import Schedule
from watchnext.training.loop import Outcome, Task, fit

_CHUNK = 2048
_QUANTILE_ROWS = 200_000
_PROBE_ROWS = 64
_SHARE_WITHOUT_VIDEO = 0.02
_MOST_OF_NEW_ONES = 0.5
_DAY, _TINY = 86_400, 1e-9


@dataclass(frozen=True)
class FittedRanking:
    """The trained network, what its features remember at the end of the log, and how training went.

    `probe` are inputs of some impressions, for whoever opens the network to try it on.
    """

    network: RankingNetwork
    probe: RankingInputs
    state: FeatureState
    features: FeatureSpec
    outcomes: dict[str, Outcome]


def fit_ranking(
    dataset: Dataset,
    generator: CandidateGenerator,
    config: RankingConfig,
    features: FeaturesConfig,
    serving: ServingConfig,
    checkpoints: Path,
    made_from: str,
) -> FittedRanking:
    """Trains twice: until the loss on the validation period stops falling, then on everything before the test period.

    `generator` must have learnt from events before `ranking_start` only. `made_from` names dataset and retrieval
    network: a checkpoint of others is not gone on from.

    Raises:
        DataError: no impression between `ranking_start` and the test period has a known watch time.
    """
    has_impressions = bool(dataset.facts["has_impressions"])
    most = max(1, config.max_impressions // (1 if has_impressions else 1 + config.sampled_negatives))
    training = impressions_between(dataset.events, dataset.ranking_start, dataset.validation_start).latest(most)
    refuse_without_watch_time(training)
    state = empty_state(dataset, features)
    spec = FeatureSpec.of(dataset, state, generator.sources, features)
    validation = impressions_between(dataset.events, dataset.validation_start, dataset.test_start).latest(most)
    examples = training.followed_by(validation)
    if not has_impressions:
        examples = _with_unwatched_candidates(dataset, generator, examples, config, spec, serving)
    inputs = compute_inputs(
        dataset, generator, _some_without_video(dataset, examples, config.seed), serving, state, spec
    )
    probe = inputs.part(np.random.default_rng(config.seed).permutation(len(inputs))[:_PROBE_ROWS])
    learning = np.flatnonzero(examples.timestamp < dataset.validation_start)
    held_out = np.flatnonzero(examples.timestamp >= dataset.validation_start)
    network, search = fit_once(
        dataset, config, examples, inputs, learning, held_out, checkpoints / "search", None, made_from
    )
    if not len(held_out):
        some = np.random.default_rng(config.seed).permutation(learning)[:_QUANTILE_ROWS]
        network.calibrate(inputs.part(some), examples.watch_seconds[some])
        return FittedRanking(network, probe, state, spec, {"search": search})
    network.calibrate(inputs.part(held_out), examples.watch_seconds[held_out])
    say(f"ranking: best after pass {search.epochs}; now learning from everything before the test period")
    everything = np.arange(len(examples))
    final_network, final = fit_once(
        dataset, config, examples, inputs, everything, held_out[:0], checkpoints / "final", search.epochs, made_from
    )
    final_network.calibrate(inputs.part(held_out), examples.watch_seconds[held_out], like=network.calibration)
    return FittedRanking(final_network, probe, state, spec, {"search": search, "final": final})


def _some_without_video(dataset: Dataset, examples: Impressions, seed: int) -> Impressions:
    """The impressions, a share of them as if of videos outside the vocabulary: tomorrow's uploads are such.

    The vocabulary is that of the training period, so nothing else would teach what to expect of them. A site shows new
    videos for reasons of its own, so those that were new at their impression go first: such as the log first met within
    the length of a validation period. Up to half of them; where there are few, any others besides.
    """
    timelines = dataset.video_timelines.segments
    begin, end = (timelines.offsets[examples.video_row + later] for later in (0, 1))
    log_start = dataset.facts["log_start"]
    first_seen = timelines.timestamp[np.minimum(begin, len(timelines.timestamp) - 1)]
    first_seen = np.where(end > begin, first_seen, log_start)  # a candidate that nobody met is not new
    new_for_seconds = max(dataset.test_start - dataset.validation_start, _DAY)
    age = examples.timestamp - first_seen
    is_new = (age >= 0) & (age < new_for_seconds) & (first_seen >= log_start + new_for_seconds)
    new = float(is_new.mean())
    of_new = min(_MOST_OF_NEW_ONES, _SHARE_WITHOUT_VIDEO / max(new, _TINY))
    of_others = (_SHARE_WITHOUT_VIDEO - of_new * new) / max(1.0 - new, _TINY)
    known = np.random.default_rng(seed).random(len(examples)) >= np.where(is_new, of_new, of_others)
    return replace(examples, video_row=examples.video_row * known)


def refuse_without_watch_time(examples: Impressions) -> None:
    """Refuses examples of which nothing can be learnt.

    Raises:
        DataError: there are no examples, or nobody watched anything.
    """
    if not len(examples) or examples.watch_seconds.sum() == 0:
        raise DataError(
            "no impression before the validation period has a watch time above 0, so expected watch time cannot be "
            "learnt. Map watch_seconds (for ratings, a value such as 1 for a liked film does) in the log's TOML file."
        )


def compute_inputs(
    dataset: Dataset,
    generator: CandidateGenerator,
    examples: Impressions,
    serving: ServingConfig,
    state: FeatureState,
    spec: FeatureSpec,
) -> RankingInputs:
    """Gives the ranker's inputs of each impression, as of its timestamp, and fills the empty `state`."""
    num_features = len(spec.query_places) + len(spec.places)
    say(f"features: replaying the log for {num_features} features of {len(examples):,} impressions")
    values = state.replay(dataset.events, examples.user_row, examples.timestamp, examples.video_row[:, None])
    parts = []
    with bar("features", len(examples)) as progress:
        for start in range(0, len(examples), _CHUNK):
            part = examples.part(slice(start, start + _CHUNK))
            context = request_context(dataset, part.user_row, part.timestamp, generator, spec)
            excluded = excluded_videos(dataset, context, serving.exclude_seen)
            candidates = generator.describe(context, part.video_row[:, None], Wish(serving.num_candidates, excluded))
            known = values.part(slice(start, start + _CHUNK))
            parts.append(inputs_of(dataset.videos, context, part.surface_row, candidates, known, spec))
            progress.advance(len(part))
    names = vars(parts[0])
    return RankingInputs(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _with_unwatched_candidates(
    dataset: Dataset,
    generator: CandidateGenerator,
    shown: Impressions,
    config: RankingConfig,
    spec: FeatureSpec,
    serving: ServingConfig,
) -> Impressions:
    """Puts candidates of our own beside each watch, for a log that does not say what was shown and not watched."""
    say("ranking: the log has no impressions; our own unwatched candidates stand in for what was not watched")
    random = np.random.default_rng(config.seed)
    drawn = []
    with bar("drawing candidates", len(shown)) as progress:
        for start in range(0, len(shown), _CHUNK):
            part = shown.part(slice(start, start + _CHUNK))
            context = request_context(dataset, part.user_row, part.timestamp, generator, spec)
            excluded = excluded_videos(dataset, context, serving.exclude_seen)
            wish = Wish(serving.num_candidates, excluded)
            chosen = generator.draw(context, wish, config.sampled_negatives, random)
            drawn.append(np.where(chosen == part.video_row[:, None], 0, chosen))
            progress.advance(len(part))
    return with_unwatched(shown, np.concatenate(drawn))


def outcomes_of(examples: Impressions, duration_seconds: Float[Array, "rows"]) -> Outcomes:
    """Gives what came of impressions as the network takes it."""
    return Outcomes(
        torch.from_numpy(examples.watch_seconds.astype(np.float32)),
        torch.from_numpy(duration_seconds.astype(np.float32)),
        *(torch.from_numpy(column) for column in (examples.clicked, examples.completed, examples.liked)),
    )


def fit_once(
    dataset: Dataset,
    config: RankingConfig,
    examples: Impressions,
    inputs: RankingInputs,
    learning: Int[Array, "rows"],
    held_out: Int[Array, "samples"],
    folder: Path,
    passes: int | None,
    made_from: str,
) -> tuple[RankingNetwork, Outcome]:
    """Trains on the examples at the places `learning`, until the loss on `held_out` stops falling or for `passes`.

    The trained tables are bfloat16: calibration, probe and server know no others.
    """
    random = torch.Generator().manual_seed(config.seed)
    sample = np.random.default_rng(config.seed).permutation(learning)[:_QUANTILE_ROWS]
    network = RankingNetwork(
        sizes_of(dataset),
        config,
        Quantiles.fit(inputs.query_values[sample]),
        Quantiles.fit(inputs.values[sample, 0]),
        random,
    )
    durations = inputs.duration_seconds[:, 0]
    network.start_from(outcomes_of(examples.part(learning), durations[learning]))

    def batch_of(places: Int[Array, "rows"]) -> RankingBatch:
        part = examples.part(places)
        return RankingBatch(inputs.part(places), part.position, outcomes_of(part, durations[places]))

    def batches(epoch: int, first_step: int) -> Iterator[RankingBatch]:
        order = learning[np.random.default_rng([config.seed, epoch]).permutation(len(learning))]
        for start in range(first_step * config.batch_size, len(order), config.batch_size):
            yield batch_of(order[start : start + config.batch_size])

    @torch.inference_mode()
    def score() -> float:
        losses = [
            network.loss(batch_of(held_out[start : start + _CHUNK])).item() * len(held_out[start : start + _CHUNK])
            for start in range(0, len(held_out), _CHUNK)
        ]
        return -sum(losses) / len(held_out)

    steps = -(-len(learning) // config.batch_size)
    task = Task("ranking", steps, batches, network.loss, score if len(held_out) else None)
    schedule = Schedule(
        passes or config.max_epochs,
        config.patience,
        config.learning_rate,
        config.embedding_learning_rate,
        passes_planned=config.max_epochs,
    )
    purpose = f"{made_from} {config} {len(learning)}"
    outcome = fit(network, task, schedule, random, Checkpoint(folder, purpose))
    for table in tables_of(network):
        table.halve()
    return network, outcome


def sizes_of(dataset: Dataset) -> RankingSizes:
    """Reads the sizes of the vocabularies off a dataset."""
    sizes = {name: len(vocabulary) for name, vocabulary in dataset.vocabularies.items()}
    return RankingSizes(
        sizes["videos"],
        sizes["channels"],
        sizes["tags"],
        sizes["surfaces"],
        tuple(sizes[f"users.{name}"] for name in dataset.user_categories),
        tuple(sizes[f"videos.{name}"] for name in dataset.video_categories),
    )
