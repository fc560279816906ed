"""Where retrieval and ranking meet: candidates become the ranker's inputs, in training as in serving."""

from watchnext.events.dataset import VideoTable
from watchnext.examples.contexts import UserContext, UserRecords, context_as_of, seen_before
from watchnext.features.inputs import Nominations, RankingInputs, ranking_inputs
from watchnext.features.spec import FeatureSpec
from watchnext.features.state import FeatureValues
from watchnext.retrieval.candidates import CandidateGenerator, Candidates
from watchnext.shapes import Array, Int, RowLists


def request_context(
    records: UserRecords,
    user_rows: Int[Array, "batch"],
    moments: Int[Array, "batch"],
    generator: CandidateGenerator,
    spec: FeatureSpec,
) -> UserContext:
    """Gives what both stages ask of the users' past: the longer of their histories, of which each uses its part."""
    config = generator.network.config
    length = max(config.history_length, spec.config.last_watches)
    return context_as_of(records, user_rows, moments, length, config.num_search_tokens)


def excluded_videos(records: UserRecords, context: UserContext, exclude_seen: bool) -> RowLists | None:
    """Gives the rows that no source may nominate; a struck video gives its place to the next one.

    In training too: which sources nominate a video is a feature.
    """
    return seen_before(records, context.user_row, context.moment) if exclude_seen else None


def inputs_of(
    videos: VideoTable,
    context: UserContext,
    surface_row: Int[Array, "batch"],
    candidates: Candidates,
    values: FeatureValues,
    spec: FeatureSpec,
) -> RankingInputs:
    """Gives the ranker's inputs for the candidates of each user; of sources it did not learn it reads nothing."""
    known = slice(0, spec.num_sources)
    nominations = Nominations(
        candidates.network_score, candidates.rank[:, :, known], candidates.source_score[:, :, known]
    )
    return ranking_inputs(videos, context, surface_row, candidates.video_row, nominations, values, spec)
