"""What the retrieval network must know of a dataset to have the right shape."""

from dataclasses import dataclass
from typing import Any

from watchnext.events.dataset import Dataset


@dataclass(frozen=True)
class RetrievalSizes:
    """Lengths of vocabularies and numbers of columns."""

    num_videos: int
    num_search_tokens: int
    num_channels: int
    num_tags: int
    num_title_tokens: int
    user_categories: tuple[int, ...]
    video_categories: tuple[tuple[str, int], ...]
    num_user_values: int
    num_video_values: int
    has_impressions: bool
    training_days: float

    @classmethod
    def of(cls, dataset: Dataset) -> "RetrievalSizes":
        """Reads them off a dataset."""
        vocabularies = dataset.vocabularies
        return cls(
            len(vocabularies["videos"]),
            len(vocabularies["search_tokens"]) if dataset.facts["num_searches"] else 0,
            len(vocabularies["channels"]),
            len(vocabularies["tags"]),
            len(vocabularies["title_tokens"]),
            tuple(len(vocabularies[f"users.{name}"]) for name in dataset.user_categories),
            tuple((name, len(vocabularies[f"videos.{name}"])) for name in dataset.video_categories),
            len(dataset.facts["user_numbers"]),
            len(dataset.facts["video_numbers"]),
            bool(dataset.facts["has_impressions"]),
            max((dataset.test_start - int(dataset.facts["log_start"])) / 86_400.0, 1e-6),
        )

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> "RetrievalSizes":
        """Reads them off what was saved: JSON has lists where these are tuples."""
        categories = tuple((str(name), int(size)) for name, size in facts["video_categories"])
        return cls(**facts | {"user_categories": tuple(facts["user_categories"]), "video_categories": categories})
