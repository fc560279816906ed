"""Why a video is in a list: who nominated it, which watches pulled it in, what the ranker made of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from watchnext.examples.contexts import UserContext
from watchnext.examples.quantiles import Quantiles
from watchnext.features.inputs import RankingInputs
from watchnext.features.spec import FeatureSpec
from watchnext.ranking.network import RankingNetwork
from watchnext.retrieval.candidates import Candidates
from watchnext.serving.funnel import Funnel, Question, Ranked
from watchnext.serving.recommendation import Contribution, PulledBy, Recommendation, VisitorRecords, Why
from watchnext.shapes import Array, Float, Int

_MOST_REASONS = 3
_MOST_WATCHES = 50


@dataclass(frozen=True)
class Pull:
    """A watched video, and the share of the match between user and candidate that is gone without it."""

    video_row: int
    pull: float


def explained(
    funnel: Funnel,
    question: Question,
    candidates: Candidates,
    inputs: RankingInputs | None,
    page: Ranked,
    places: list[Recommendation],
) -> list[Recommendation]:
    """Gives the places of a page of one user with why each is there; without inputs, without what the ranker made."""
    rows = page.video_row[0][page.video_row[0] > 0]
    pulling = pulls(funnel, question, rows)
    adding: list[list[Contribution]] = [[] for _ in rows]
    if inputs is not None:
        order = {row: place for place, row in enumerate(candidates.video_row[0].tolist())}
        of = np.array([order[row] for row in rows.tolist()], dtype=np.int64)
        bundle = funnel.live.bundle
        adding = contributions(bundle.ranker.network, bundle.features, inputs, of, funnel)
    found = []
    for place, by, adds in zip(places, pulling, adding, strict=True):
        watched = np.array([one.video_row for one in by], dtype=np.int64)
        known = zip(funnel.live.ids_of(watched), funnel.live.describe(watched), by, strict=True)
        told = (PulledBy(video_id, one.title, pull.pull) for video_id, one, pull in known)
        found.append(replace(place, why=Why(place.sources, tuple(told), tuple(adds))))
    return found


def pulls(funnel: Funnel, question: Question, rows: Int[Array, "k"]) -> list[list[Pull]]:
    """Gives, for each video, the watches that pulled it in most: the user vector without each, exactly.

    `question` is of one user whose records are their own. A watch is left out with all its repeats; the newest fifty
    videos are tried.
    """
    records = question.records
    assert isinstance(records, VisitorRecords)
    events = records.events
    earlier = events.watch_places[events.watches.timestamp < question.moment]
    watched = events.video_row[earlier][::-1]
    tried = list(dict.fromkeys(watched.tolist()))[:_MOST_WATCHES]
    if not tried or not len(rows):
        return [[] for _ in rows]
    questions = [question, *(replace(question, records=_without(records, row)) for row in tried)]
    contexts = _stacked([funnel.context(one) for one in questions])
    vectors = funnel.live.generator.network.vectors_of(contexts)
    scores = vectors @ funnel.live.generator.video_vectors[rows].T
    shares = (scores[0] - scores[1:]) / np.maximum(np.abs(scores[0]), 1e-9)
    found = []
    for place in range(len(rows)):
        best = np.argsort(-shares[:, place], kind="stable")[:_MOST_REASONS]
        found.append([Pull(tried[one], float(shares[one, place])) for one in best if shares[one, place] > 0])
    return found


def contributions(
    network: RankingNetwork, spec: FeatureSpec, inputs: RankingInputs, places: Int[Array, "k"], funnel: Funnel
) -> list[list[Contribution]]:
    """Gives, for candidates of one user, the groups of inputs that move the expected watch seconds most.

    A group is put back to what is usual, the median of the training examples, or to an unknown id; what the expected
    seconds lose by that is its contribution. Groups act together, so contributions do not add up to the whole.
    """
    asked = replace(
        inputs,
        **{
            name: getattr(inputs, name)[:, places]
            for name in ("video_row", "channel_row", "video_ids", "tag_rows", "values", "duration_seconds")
        },
    )
    groups = _groups(network, spec, asked)
    names = [name for name, _ in groups]
    seconds = np.concatenate(
        [funnel.predictions(one).expected_watch_seconds for one in (asked, *(changed for _, changed in groups))]
    )
    added = seconds[0] - seconds[1:]
    found = []
    for place in range(len(places)):
        best = np.argsort(-np.abs(added[:, place]), kind="stable")[:_MOST_REASONS]
        found.append([Contribution(names[one], float(added[one, place])) for one in best])
    return found


def _groups(network: RankingNetwork, spec: FeatureSpec, inputs: RankingInputs) -> list[tuple[str, RankingInputs]]:
    """Each group's name, and the inputs without what it says."""
    names = [spec.names[place] for place in spec.places]
    query_names = [spec.query_names[place] for place in spec.query_places]
    found = [
        (name, replace(inputs, values=_usual(inputs.values, columns, network.quantiles)))
        for name, columns in _by_group(names).items()
    ]
    found += [
        (name, replace(inputs, query_values=_usual(inputs.query_values, columns, network.query_quantiles)))
        for name, columns in _by_group(query_names).items()
    ]
    for name, fields in (
        ("which video", ("video_row",)),
        ("which channel", ("channel_row",)),
        ("tags and categories", ("tag_rows", "video_ids")),
        ("last watches", ("last_watched",)),
    ):
        found.append((name, replace(inputs, **{field: np.zeros_like(getattr(inputs, field)) for field in fields})))
    return found


def _by_group(names: Sequence[str]) -> dict[str, list[int]]:
    """Columns by the part of their names before the dot."""
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        groups.setdefault(name.partition(".")[0], []).append(place)
    return groups


def _usual(values: Float[Array, "... columns"], columns: list[int], of: Quantiles) -> Float[Array, "... columns"]:
    """The values with the median in these columns."""
    changed = values.copy()
    for column in columns:
        median = of.knots[column, np.argmax(of.levels[column] >= 0.5)]
        changed[..., column] = median if np.isfinite(median) else np.nan
    return changed


def _without(records: VisitorRecords, video_row: int) -> VisitorRecords:
    """The records as if the video had never been met."""
    events = records.events
    kept = events.video_row != video_row
    times, columns = events.segments.timestamp[kept], {}
    for name in ("video_row", "watch_seconds", "clicked", "completed", "liked", "shown", "surface_row", "position"):
        columns[name] = getattr(events, name)[kept]
    watched = np.flatnonzero(columns["completed"] & (columns["video_row"] > 0))
    segments, watches = (
        replace(events.segments, offsets=np.array([0, 0, len(of)]), timestamp=of) for of in (times, times[watched])
    )
    return replace(records, events=replace(events, segments=segments, watches=watches, watch_places=watched, **columns))


def _stacked(contexts: list[UserContext]) -> UserContext:
    return UserContext(**{name: np.concatenate([getattr(one, name) for one in contexts]) for name in vars(contexts[0])})
