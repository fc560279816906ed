"""Every setting, one frozen dataclass a stage, with its default, its range and its source.

`from_mapping` builds any of them from a TOML table and refuses what it does not know with the nearest known name.
The table of keys in docs/your-log.md is printed by `watchnext settings` from the texts in this file.
"""

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from watchnext.errors import ConfigurationError

T = TypeVar("T")


def setting(
    default: Any,
    doc: str,
    *,
    least: int | float | None = None,
    most: int | float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field that knows its explanation and its range (both ends included)."""
    return field(default=default, metadata={"doc": doc, "least": least, "most": most, "choices": choices})


class Checked:
    """A settings dataclass: its ranges are checked when it is built."""

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            _check_range(type(self), spec, getattr(self, spec.name))


@dataclass(frozen=True)
class SplitConfig(Checked):
    """Where the training, validation and test periods meet: global moments, the same for all users."""

    validation_start: int | None = setting(
        None, "first second of the validation period (Unix time); from validation_share if absent", least=1
    )
    test_start: int | None = setting(
        None, "first second of the test period (Unix time); from test_share if absent", least=1
    )
    ranking_start: int | None = setting(
        None, "first second from which impressions teach the ranker (Unix time); from ranking_share if absent", least=1
    )
    ranking_share: float = setting(
        0.5,
        "latest share of the events before the validation period that teach the ranker",
        least=0.01,
        most=0.99,
    )
    validation_share: float = setting(
        0.1, "share of the events before the test period that validate", least=0.0, most=0.5
    )
    test_share: float = setting(
        0.1, "latest share of the events that test; 0 trains on the whole log", least=0.0, most=0.5
    )


@dataclass(frozen=True)
class PrepareConfig(Checked):
    """How a log becomes a dataset."""

    max_videos: int = setting(10_000_000, "videos kept, by frequency before the test period (§3.1: top N)", least=1)
    max_search_tokens: int = setting(1_000_000, "unigrams and bigrams kept, by frequency (§3.2)", least=1)
    max_categories: int = setting(100_000, "values kept of each further categorical column, by frequency", least=1)
    max_tags: int = setting(8, "tags kept of one video", least=1, most=64)
    max_title_words: int = setting(16, "words kept of one title", least=1, most=256)
    unwatched_videos: bool = setting(
        False,
        "keep videos that only the videos table knows, up to max_videos: new uploads, for [retrieval] videos = "
        "'tower' or 'both'",
    )
    memory_gigabytes: float = setting(
        8.0, "memory that prepare may use; what needs more goes through the disk", least=0.5
    )


@dataclass(frozen=True)
class RetrievalConfig(Checked):
    """Candidate generation: millions of videos to hundreds (§3)."""

    history_length: int = setting(50, "latest watches, and latest impressions, in a bag (§3.2)", least=1, most=1000)
    num_search_tokens: int = setting(50, "latest search tokens in the bag (§3.2)", least=1, most=1000)
    history: str = setting(
        "mean",
        "how a history becomes a vector: the paper's mean (§3.2), a weighted mean whose weights are learnt, or a "
        "causal transformer over the ordered events and the time between them",
        choices=("mean", "attention", "transformer"),
    )
    recent_watches: tuple[int, ...] = setting(
        (), "history = 'mean': further means of only so many newest watches each, which tell it something of the order"
    )
    history_bags: tuple[str, ...] = setting(
        (), "further bags of what the watched videos have: 'channel', 'tags', or a categorical column of the videos"
    )
    transformer_layers: int = setting(2, "layers of history = 'transformer'", least=1, most=24)
    attention_heads: int = setting(2, "heads of one of its layers; they share embedding_dim", least=1, most=64)
    tower: tuple[int, ...] = setting((1024, 512, 256), "widths of the ReLU layers; the last is the user vector (§3.4)")
    last_relu: bool = setting(
        True, "a ReLU behind the last layer too; false with tower = [256] is the paper's depth 0 (§3.4)"
    )
    embedding_dim: int = setting(256, "floats of a watch or token embedding (§3.4)", least=1, most=4096)
    videos: str = setting(
        "free",
        "where a video's vector comes from: a free vector each (§3.1), a tower over its attributes, which gives new "
        "uploads a vector at once, or the sum of both",
        choices=("free", "tower", "both"),
    )
    video_tower: tuple[int, ...] = setting(
        (256,), "widths of the hidden ReLU layers of the video tower; a linear layer follows"
    )
    id_dropout: float = setting(
        0.2,
        "with videos = 'both', share of the free vectors left out at random while training, so that the tower stands "
        "alone",
        least=0.0,
        most=0.99,
    )
    labels: str = setting(
        "future",
        "what an example is to predict: a watch after its history, or one held out of the middle (§3.3, figure 5)",
        choices=("future", "held_out"),
    )
    horizon: int = setting(1, "watches after the history that one example is to predict", least=1, most=1000)
    unwatched_weight: float = setting(
        0.0,
        "weight of what was shown but not completed as something to predict; above 0 the horizon counts everything "
        "shown",
        least=0.0,
        most=1.0,
    )
    weights: str = setting(
        "equal",
        "what a label weighs: one, or its watch seconds relative to the mean",
        choices=("equal", "watch_seconds"),
    )
    half_life_days: float | None = setting(
        None, "age at which an example weighs half; absent: all ages weigh the same", least=0.001
    )
    examples_per_user: int = setting(50, "latest watches of a user that become examples (§3.3)", least=1)
    num_negatives: int = setting(
        5000,
        "sampled videos shared by a batch (§3.1); the full softmax where the catalogue is not larger",
        least=1,
    )
    sampling: tuple[str, ...] = setting(
        ("unigram",),
        "where negatives come from, in equal parts: 'unigram' (by watch count), 'uniform', 'log_uniform' (by place in "
        "the order of frequency), 'in_batch' (the other examples' targets, besides num_negatives), 'full' (all videos)",
        choices=("unigram", "uniform", "log_uniform", "in_batch", "full"),
    )
    sampling_power: float = setting(0.75, "'unigram' draws by watch count to this power", least=0.0, most=1.0)
    replacement: bool = setting(True, "draw with replacement; false draws each video at most once a step")
    mask_seen: bool = setting(
        False, "leave what a user's history holds out of the softmax, as a service that never repeats itself does"
    )
    temperature: float = setting(1.0, "the dot product is divided by it to give the logit", least=0.001)
    batch_size: int = setting(2048, "examples of one step", least=1)
    max_epochs: int = setting(5, "passes over the examples at most; the rates fall over them", least=1)
    patience: int = setting(1, "passes without a better validation recall before training stops", least=1)
    learning_rate: float = setting(0.001, "Adam, for the tower", least=0.0)
    embedding_learning_rate: float = setting(0.2, "row-wise Adagrad, for the embedding tables", least=0.0)
    table_type: str = setting(
        "float32",
        "how embedding tables are stored; bfloat16 halves them, rounded at random so that small steps count",
        choices=("float32", "bfloat16"),
    )
    mapped_tables: bool = setting(False, "keep the tables in files beside the checkpoints: they may exceed the memory")
    example_age: bool = setting(True, "feed the age of each example; false only to see what it is worth (§3.3)")
    dropout: float = setting(0.3, "share of a bag's watches left out at random while training", least=0.0, most=0.99)
    seed: int = setting(1, "of every random act of this stage", least=0)


@dataclass(frozen=True)
class IndexConfig(Checked):
    """Finding the videos with the largest dot product, and the other sources of candidates."""

    engine: str = setting(
        "auto",
        "exact scan, cells, Faiss, ScaNN (an extra), or the choice by size",
        choices=("auto", "exact", "cells", "faiss", "scann"),
    )
    approximate_from: int = setting(200_000, "videos from which 'auto' takes an approximate engine", least=1)
    target_recall: float = setting(
        0.98, "share of a user's true best that an approximate index is tuned to find", least=0.01, most=1.0
    )
    tuned_k: int = setting(500, "how many of the best that is", least=1)
    num_co_watched: int = setting(100, "neighbours kept of each video in the co-watch source", least=1)


@dataclass(frozen=True)
class FeaturesConfig(Checked):
    """What the ranker is told of users, moments and candidates (§4.1); `watchnext features` lists it."""

    horizons_seconds: tuple[float, ...] = setting(
        (1_800.0, 3_600.0, 86_400.0, 604_800.0, 2_592_000.0),
        "half-lives of the counters: what happened so long ago counts half; beside them one that never fades",
    )
    history_length: int = setting(100, "latest impressions that the user's past is computed from", least=1, most=1000)
    last_watches: int = setting(10, "last watched videos that enter as embeddings (§4.1)", least=1, most=1000)
    habit_lag_days: float = setting(
        1.5,
        "what came of a user's own impressions counts once they are this old: not what one sitting says of itself",
        least=0.0,
    )
    exclude: tuple[str, ...] = setting((), "features left out, by name or pattern, say ['user_tags.*']")

    def __post_init__(self) -> None:
        super().__post_init__()
        horizons = list(self.horizons_seconds)
        if horizons != sorted(set(horizons)) or not 1.0 <= min(horizons, default=1.0) or math.inf in horizons:
            raise ConfigurationError(
                f"[features] horizons_seconds = {horizons}: rising half-lives of at least a second were expected."
            )


OBJECTIVES = (
    "weighted_logistic",
    "tweedie",
    "log_squared",
    "ordinal",
    "tree",
    "error_adaptive",
    "duration_quantiles",
)
"""The ways to learn watch time, each a class of ranking/."""


@dataclass(frozen=True)
class RankingConfig(Checked):
    """Ranking: hundreds of candidates to dozens (§4)."""

    tower: tuple[int, ...] = setting((1024, 512, 256), "widths of the ReLU layers (§4.3, table 1)")
    powers: bool = setting(True, "continuous features enter with square and root too; false to see what that is worth")
    objectives: tuple[str, ...] = setting(
        ("ordinal", "log_squared", "tweedie"),
        "losses that teach watch time, added up: the first gives the order, the last the seconds (docs/ranking.md)",
        choices=OBJECTIVES,
    )
    negatives: str = setting(
        "all",
        "of 'weighted_logistic', which impressions count as a negative of weight 1: 'all' makes the odds the expected "
        "watch time at any click rate; 'unclicked' is the paper's, right for small click rates (§4.2)",
        choices=("all", "unclicked"),
    )
    weights: str = setting(
        "watch_seconds",
        "of 'weighted_logistic', what a positive weighs; 'equal' only to see what watch time is worth",
        choices=("watch_seconds", "equal"),
    )
    watch_unit_seconds: float = setting(10.0, "a watch of this length weighs as much as one negative", least=0.001)
    max_watch_seconds: float = setting(
        86_400.0,
        "longer watches are learnt as this long; calibration gives the seconds back",
        least=1.0,
    )
    num_buckets: int = setting(32, "of watch time, for 'ordinal', 'tree' and 'error_adaptive'", least=2, most=1024)
    head_weight: float = setting(
        0.3,
        "weight of learning clicks, completions and likes too, each by a logit of its own; 0 leaves them out",
        least=0.0,
    )
    click_power: float = setting(
        0.0,
        "lists are sorted by expected watch time · P(click)^click_power · the same of completions and likes",
        least=-10.0,
        most=10.0,
    )
    completion_power: float = setting(0.0, "see click_power", least=-10.0, most=10.0)
    like_power: float = setting(0.0, "see click_power", least=-10.0, most=10.0)
    bias_dropout: float = setting(
        0.1,
        "share of impressions that are learnt without position and surface: the neutral of serving",
        least=0.0,
        most=1.0,
    )
    max_impressions: int = setting(
        500_000, "latest impressions that teach the ranker, drawn candidates included; bounds time and memory", least=1
    )
    sampled_negatives: int = setting(
        4,
        "unwatched candidates of our own drawn for each watch where the log has no impressions",
        least=1,
        most=100,
    )
    batch_size: int = setting(1024, "impressions of one step", least=1)
    max_epochs: int = setting(3, "passes over the impressions at most; the rates fall over them", least=1)
    patience: int = setting(1, "passes without a better validation loss before training stops", least=1)
    learning_rate: float = setting(0.001, "Adam, for the tower", least=0.0)
    embedding_learning_rate: float = setting(0.02, "row-wise Adagrad, for the embedding tables", least=0.0)
    dropout: float = setting(0.3, "share of hidden units left out while training", least=0.0, most=0.99)
    precision: str = setting(
        "auto",
        "of matrix products when serving: 'auto' is bfloat16 where the processor has it, else int8; either takes half "
        "the time and is held to the network's own predictions",
        choices=("auto", "float32", "bfloat16", "int8"),
    )
    seed: int = setting(1, "of every random act of this stage", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_weight == 0.0 and any((self.click_power, self.completion_power, self.like_power)):
            raise ConfigurationError(
                "[ranking] click_power, completion_power and like_power need head_weight above 0: with 0 nothing "
                "learns what they multiply."
            )


@dataclass(frozen=True)
class EvaluationConfig(Checked):
    """How the test period is scored."""

    cutoffs: tuple[int, ...] = setting((10, 50, 100, 500), "the k of recall@k and ndcg@k")
    bootstrap_draws: int = setting(1000, "resamples of users behind each 95 % interval", least=10)
    exclude_seen: bool = setting(True, "strike videos the user was shown before from lists and targets")
    seed: int = setting(1, "of the bootstrap", least=0)


@dataclass(frozen=True)
class ServingConfig(Checked):
    """How a request is answered."""

    num_candidates: int = setting(
        500, "videos that are ranked for one request (§2): those of other sources, the rest the network's", least=1
    )
    co_watch_quota: int = setting(50, "videos co-watched with the user's last watches, beside the network's", least=0)
    popular_quota: int = setting(20, "popular videos of the days before the request", least=0)
    fresh_quota: int = setting(20, "newest uploads, of the seven days before the request", least=0)
    channels_quota: int = setting(20, "videos of the channels that the user watched most", least=0)
    trending_quota: int = setting(20, "videos most watched since the bundle was made", least=0)
    max_per_channel: int = setting(0, "videos of one channel on a page; 0 for any number", least=0)
    max_per_topic: int = setting(0, "videos of one category, or first tag, on a page; 0 for any number", least=0)
    exclude_seen: bool = setting(True, "never recommend what the user was shown before")
    budget_ms: float = setting(50.0, "time for one request; what it is too short for is left out, and said so", least=1)
    source_budget_ms: float = setting(
        35.0, "time for each source of candidates; one that is later is left out", least=1
    )
    clock: str = setting(
        "log",
        "what 'now' is: 'log', the latest moment that the log or an event speaks of; 'wall', the clock on the wall",
        choices=("log", "wall"),
    )

    @property
    def of_training(self) -> dict[str, Any]:
        """What the ranker's inputs depend on; all else may change between training and the bundle."""
        return {"num_candidates": self.num_candidates, "exclude_seen": self.exclude_seen}


@dataclass(frozen=True)
class Config:
    """All settings of one run; saved beside every artifact it made."""

    split: SplitConfig = field(default_factory=SplitConfig)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    index: IndexConfig = field(default_factory=IndexConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    ranking: RankingConfig = field(default_factory=RankingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    serving: ServingConfig = field(default_factory=ServingConfig)

    def __post_init__(self) -> None:
        retrieval = self.retrieval
        if not retrieval.tower:
            raise ConfigurationError("[retrieval] tower = []: at least the user vector's width is needed, say [256].")
        if retrieval.sampling == ("in_batch",) and retrieval.batch_size == 1:
            raise ConfigurationError("[retrieval] sampling = ['in_batch'] has no negatives with batch_size = 1.")
        if retrieval.embedding_dim % retrieval.attention_heads and retrieval.history == "transformer":
            raise ConfigurationError(
                f"[retrieval] attention_heads = {retrieval.attention_heads} must divide embedding_dim = "
                f"{retrieval.embedding_dim}."
            )
        if retrieval.history == "transformer" and retrieval.labels == "held_out":
            raise ConfigurationError("[retrieval] history = 'transformer' is causal: labels = 'future' is needed.")
        split = self.split
        moments = [split.ranking_start, split.validation_start, split.test_start]
        given = [moment for moment in moments if moment is not None]
        if given != sorted(set(given)):
            raise ConfigurationError(
                f"[split] ranking_start, validation_start, test_start = {given}: each must be later than the last."
            )


def read_toml(path: Path) -> dict[str, Any]:
    """Gives the tables of a TOML file.

    Raises:
        ConfigurationError: there is no such file, or it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as missing:
        raise ConfigurationError(f"there is no file {path}; docs/your-log.md shows how to write one.") from missing
    except (IsADirectoryError, UnicodeDecodeError) as unreadable:
        raise ConfigurationError(f"{path} is not a text file; a TOML file was expected.") from unreadable
    except tomllib.TOMLDecodeError as broken:
        raise ConfigurationError(f"{path} is not valid TOML: {broken}.") from broken


def from_mapping(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Builds the settings dataclass `cls` from `table`; nested dataclasses from nested tables.

    Raises:
        ConfigurationError: an unknown key (with the nearest known one), a wrong type, a value out of range.
    """
    kinds = typing.get_type_hints(cls)
    refuse_unknown(table, kinds, where)
    return cls(**{key: _converted(value, kinds[key], f"{where}.{key}".lstrip(".")) for key, value in table.items()})


def refuse_unknown(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Refuses keys of `table` that are not `known`, naming the nearest one.

    Raises:
        ConfigurationError: the first unknown key.
    """
    names = sorted(known)
    for key in table:
        if key not in names:
            nearest = difflib.get_close_matches(key, names, n=1)
            advice = f"did you mean '{nearest[0]}'?" if nearest else f"known are: {', '.join(names)}."
            raise ConfigurationError(f"unknown key '{key}' in [{where}]: {advice}")


def _converted(value: Any, kind: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"[{where}] should be a table, but is {value!r}.")
        return from_mapping(typing.cast(type[Any], kind), value, where)
    if typing.get_origin(kind) is types.UnionType:
        kind = next(part for part in typing.get_args(kind) if part is not types.NoneType)
        return None if value is None else _converted(value, kind, where)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigurationError(f"{where} = {value!r}: a list was expected.")
        return tuple(_converted(part, typing.get_args(kind)[0], where) for part in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ConfigurationError(f"{where} = {value!r}: {kind.__name__} was expected.")
    return value


def _check_range(cls: type[Any], spec: dataclasses.Field[Any], value: Any) -> None:
    least, most, choices = (spec.metadata.get(key) for key in ("least", "most", "choices"))
    where = f"[{cls.__name__.removesuffix('Config').lower()}] {spec.name} = {value!r}"
    parts = value if isinstance(value, tuple) else (value,)
    if choices and not (parts and set(parts) <= set(choices)):
        raise ConfigurationError(f"{where}: one of {', '.join(choices)} was expected.")
    if isinstance(value, tuple) and any(isinstance(part, int) and part < 1 for part in value):
        raise ConfigurationError(f"{where}: every entry must be at least 1.")
    if value is None or isinstance(value, tuple | str | bool):
        return
    within = (least is None or value >= least) and (most is None or value <= most)
    if not (within and math.isfinite(value)):
        bounds = f"at least {least}" if most is None else f"between {least} and {most}"
        raise ConfigurationError(f"{where}: {bounds} was expected.")


def settings_lines() -> Iterator[str]:
    """Gives the settings as commented TOML, one table a stage."""
    for stage in dataclasses.fields(Config):
        yield f"[{stage.name}]"
        defaults = getattr(Config(), stage.name)
        for spec in dataclasses.fields(defaults):
            value = getattr(defaults, spec.name)
            yield f"# {spec.metadata['doc']}"
            yield f"# {spec.name} =" if value is None else f"{spec.name} = {_as_toml(value)}"
        yield ""


def _as_toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    return f'"{value}"' if isinstance(value, str) else str(value)
