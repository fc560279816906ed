"""What `watchnext features` prints: every input of the ranker, where it comes from and how it enters."""

from dataclasses import dataclass

from watchnext.config import FeaturesConfig
from watchnext.events.dataset import Dataset
from watchnext.features.inputs import QUERY_IDS
from watchnext.features.spec import FeatureSpec, empty_state
from watchnext.layers.embedding import embedding_dim_for
from watchnext.pipeline.fit_ranking import sizes_of
from watchnext.retrieval.co_watch import CoWatch
from watchnext.retrieval.popularity import RecentPopularity


@dataclass(frozen=True)
class FeatureRow:
    """One input: of a request or of each candidate; as an embedding of a table, or as a number."""

    name: str
    of: str
    enters: str


def feature_table(dataset: Dataset, config: FeaturesConfig, powers: bool = True) -> list[FeatureRow]:
    """Gives what the ranker will be told of a log; numbers enter with their `powers`, or alone.

    Raises:
        ConfigurationError: a feature that is to be left out is not there.
    """
    sizes = sizes_of(dataset)
    videos, channels, tags = (
        embedding_dim_for(size) for size in (sizes.num_videos, sizes.num_channels, sizes.num_tags)
    )
    rows = [
        FeatureRow("last_watched", "request", f"mean of up to {config.last_watches} × {videos}, table videos"),
        FeatureRow("video", "candidate", f"embedding of {videos}, table videos"),
        FeatureRow("channel", "candidate", f"embedding of {channels}, table channels"),
        FeatureRow("tags", "candidate", f"mean of embeddings of {tags}, table tags"),
    ]
    of_query = (*QUERY_IDS, *(f"user.{name}" for name in dataset.user_categories))
    for name, size in zip(of_query, sizes.query_ids, strict=True):
        rows.append(FeatureRow(name, "request", f"embedding of {embedding_dim_for(size)}"))
    for name, size in zip(dataset.video_categories, sizes.video_categories, strict=True):
        rows.append(FeatureRow(f"video.{name}", "candidate", f"embedding of {embedding_dim_for(size)}"))
    sources = ("network", CoWatch.name, RecentPopularity.name)
    spec = FeatureSpec.of(dataset, empty_state(dataset, config), sources, config)
    numbers = "quantile, its square and its root" if powers else "quantile"
    rows += [FeatureRow(spec.query_names[place], "request", numbers) for place in spec.query_places]
    return rows + [FeatureRow(spec.names[place], "candidate", numbers) for place in spec.places]
