"""Where retrieval and ranking meet: candidates become the ranker's inputs, in training as in serving."""

from watchnext.examples.contexts import UserContext
from watchnext.features.inputs import FeatureSettings, Nominations, RankingInputs, VideoRecords, ranking_inputs
from watchnext.retrieval.candidates import Candidates
from watchnext.shapes import Array, Int


def inputs_of(
    records: VideoRecords,
    context: UserContext,
    surface_row: Int[Array, "batch"],
    candidates: Candidates,
    settings: FeatureSettings,
) -> RankingInputs:
    """Gives the ranker's inputs for the candidates of each user."""
    nominations = Nominations(candidates.network_score, candidates.nominated)
    return ranking_inputs(records, context, surface_row, candidates.video_row, nominations, settings)
