import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from watchnext.config import OBJECTIVES, Config, IndexConfig, RetrievalConfig, from_mapping, read_toml
from watchnext.errors import ConfigurationError

RANGES: list[tuple[str, str, float, float | None]] = [
    ("split", "validation_start", 1, None),
    ("split", "test_start", 1, None),
    ("split", "ranking_start", 1, None),
    ("split", "ranking_share", 0.01, 0.99),
    ("split", "validation_share", 0.0, 0.5),
    ("split", "test_share", 0.0, 0.5),
    ("prepare", "max_videos", 1, None),
    ("prepare", "max_search_tokens", 1, None),
    ("prepare", "max_categories", 1, None),
    ("prepare", "max_tags", 1, 64),
    ("prepare", "max_title_words", 1, 256),
    ("prepare", "memory_gigabytes", 0.5, None),
    ("retrieval", "history_length", 1, 1000),
    ("retrieval", "num_search_tokens", 1, 1000),
    ("retrieval", "transformer_layers", 1, 24),
    ("retrieval", "attention_heads", 1, 64),
    ("retrieval", "embedding_dim", 1, 4096),
    ("retrieval", "id_dropout", 0.0, 0.99),
    ("retrieval", "horizon", 1, 1000),
    ("retrieval", "unwatched_weight", 0.0, 1.0),
    ("retrieval", "half_life_days", 0.001, None),
    ("retrieval", "examples_per_user", 1, None),
    ("retrieval", "num_negatives", 1, None),
    ("retrieval", "sampling_power", 0.0, 1.0),
    ("retrieval", "temperature", 0.001, None),
    ("retrieval", "batch_size", 1, None),
    ("retrieval", "max_epochs", 1, None),
    ("retrieval", "patience", 1, None),
    ("retrieval", "learning_rate", 0.0, None),
    ("retrieval", "embedding_learning_rate", 0.0, None),
    ("retrieval", "dropout", 0.0, 0.99),
    ("retrieval", "seed", 0, None),
    ("index", "approximate_from", 1, None),
    ("index", "target_recall", 0.01, 1.0),
    ("index", "tuned_k", 1, None),
    ("index", "num_co_watched", 1, None),
    ("features", "history_length", 1, 1000),
    ("features", "last_watches", 1, 1000),
    ("ranking", "watch_unit_seconds", 0.001, None),
    ("ranking", "max_watch_seconds", 1.0, None),
    ("features", "habit_lag_days", 0.0, None),
    ("ranking", "num_buckets", 2, 1024),
    ("ranking", "head_weight", 0.0, None),
    ("ranking", "click_power", -10.0, 10.0),
    ("ranking", "completion_power", -10.0, 10.0),
    ("ranking", "like_power", -10.0, 10.0),
    ("ranking", "bias_dropout", 0.0, 1.0),
    ("ranking", "max_impressions", 1, None),
    ("ranking", "sampled_negatives", 1, 100),
    ("ranking", "batch_size", 1, None),
    ("ranking", "max_epochs", 1, None),
    ("ranking", "patience", 1, None),
    ("ranking", "learning_rate", 0.0, None),
    ("ranking", "embedding_learning_rate", 0.0, None),
    ("ranking", "dropout", 0.0, 0.99),
    ("ranking", "seed", 0, None),
    ("evaluation", "bootstrap_draws", 10, None),
    ("evaluation", "seed", 0, None),
    ("serving", "num_candidates", 1, None),
    ("serving", "co_watch_quota", 0, None),
    ("serving", "popular_quota", 0, None),
    ("serving", "fresh_quota", 0, None),
    ("serving", "channels_quota", 0, None),
    ("serving", "trending_quota", 0, None),
    ("serving", "max_per_channel", 0, None),
    ("serving", "max_per_topic", 0, None),
    ("serving", "budget_ms", 1, None),
    ("serving", "source_budget_ms", 1, None),
]
MOSTS = [(stage, key, most) for stage, key, _, most in RANGES if most is not None]


def built(stage: str, key: str, value: Any) -> Any:
    return getattr(getattr(from_mapping(Config, {stage: {key: value}}, ""), stage), key)


def above(value: float) -> float:
    return value + 1 if isinstance(value, int) else math.nextafter(value, math.inf)


def below(value: float) -> float:
    return value - 1 if isinstance(value, int) else math.nextafter(value, -math.inf)


@pytest.mark.parametrize("key", ["click_power", "completion_power", "like_power"])
def test_a_power_of_what_nothing_learns_is_refused(key: str) -> None:
    table = {"ranking": {key: 0.5, "head_weight": 0.0}}
    with pytest.raises(ConfigurationError, match="click_power, completion_power and like_power need head_weight above"):
        from_mapping(Config, table, "")


@pytest.mark.parametrize(("stage", "key", "least"), [(stage, key, least) for stage, key, least, _ in RANGES])
def test_the_least_value_is_taken_and_less_is_refused(stage: str, key: str, least: float) -> None:
    assert built(stage, key, least) == least
    with pytest.raises(ConfigurationError, match=rf"\[{stage}\] {key} = .*: (at least|between) {least}"):
        built(stage, key, below(least))


@pytest.mark.parametrize(("stage", "key", "most"), MOSTS)
def test_the_largest_value_is_taken_and_more_is_refused(stage: str, key: str, most: float) -> None:
    assert built(stage, key, most) == most
    with pytest.raises(ConfigurationError, match=rf"\[{stage}\] {key} = .*: between .* and {most} was expected"):
        built(stage, key, above(most))


def test_every_number_has_a_range_in_this_file() -> None:
    listed = {(stage, key) for stage, key, _, _ in RANGES}
    numbers = {
        (stage.name, spec.name)
        for stage in dataclasses.fields(Config)
        for spec in dataclasses.fields(getattr(Config(), stage.name))
        if spec.type in (int, float, int | None, float | None)
    }
    assert numbers == listed


def test_every_setting_is_explained() -> None:
    for stage in dataclasses.fields(Config):
        assert all(spec.metadata["doc"] for spec in dataclasses.fields(getattr(Config(), stage.name)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ConfigurationError, match=r"\[retrieval\] learning_rate = "):
        built("retrieval", "learning_rate", value)


def test_the_defaults_survive_a_round_trip() -> None:
    assert from_mapping(Config, dataclasses.asdict(Config()), "") == Config()


def test_changed_settings_survive_a_round_trip() -> None:
    changed = from_mapping(Config, {"split": {"test_start": 9}, "retrieval": {"tower": [8, 4]}}, "")
    assert from_mapping(Config, dataclasses.asdict(changed), "") == changed != Config()


def test_the_defaults_are_the_papers() -> None:
    retrieval = Config().retrieval
    assert (retrieval.history_length, retrieval.tower, retrieval.embedding_dim) == (50, (1024, 512, 256), 256)


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"'history_lenght' in \[retrieval\]: did you mean 'history_length'"):
        from_mapping(Config, {"retrieval": {"history_lenght": 3}}, "")


def test_an_unknown_key_near_nothing_lists_the_known() -> None:
    with pytest.raises(ConfigurationError, match="known are: approximate_from, engine, num_co_watched, target_recall"):
        from_mapping(IndexConfig, {"zzzzzz": 3}, "index")


@pytest.mark.parametrize(
    ("stage", "key", "value", "expected"),
    [
        ("retrieval", "batch_size", "12", "int"),
        ("retrieval", "batch_size", 12.0, "int"),
        ("retrieval", "batch_size", True, "int"),
        ("retrieval", "dropout", True, "float"),
        ("retrieval", "dropout", "0.1", "float"),
        ("serving", "exclude_seen", 1, "bool"),
        ("index", "engine", 3, "str"),
        ("split", "test_start", "2020-01-01", "int"),
        ("split", "test_start", False, "int"),
        ("retrieval", "tower", 256, "a list"),
        ("retrieval", "tower", "256", "a list"),
        ("retrieval", "tower", [256, 1.5], "int"),
        ("retrieval", "tower", [True], "int"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(stage: str, key: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{stage}\.{key} = .*: {expected} was expected"):
        built(stage, key, value)


def test_an_integer_serves_as_a_float() -> None:
    share = built("retrieval", "dropout", 0)
    assert (share, type(share)) == (0.0, float)


def test_a_list_becomes_a_tuple() -> None:
    assert built("retrieval", "tower", [8, 4]) == (8, 4)


def test_an_optional_moment_takes_an_integer() -> None:
    assert built("split", "test_start", 7) == 7


def test_a_value_in_the_place_of_a_table_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"\[retrieval\] should be a table, but is 3"):
        from_mapping(Config, {"retrieval": 3}, "")


def test_an_unknown_choice_names_the_known() -> None:
    with pytest.raises(
        ConfigurationError, match=r"\[index\] engine = 'annoy': one of auto, exact, cells, faiss, scann"
    ):
        IndexConfig(engine="annoy")


CHOICES = [
    ("index", "engine", ["auto", "exact", "cells", "faiss", "scann"]),
    ("retrieval", "history", ["mean", "attention", "transformer"]),
    ("retrieval", "videos", ["free", "tower", "both"]),
    ("retrieval", "labels", ["future", "held_out"]),
    ("retrieval", "weights", ["equal", "watch_seconds"]),
    ("retrieval", "table_type", ["float32", "bfloat16"]),
    ("ranking", "negatives", ["all", "unclicked"]),
    ("ranking", "weights", ["watch_seconds", "equal"]),
    ("ranking", "precision", ["auto", "float32", "bfloat16", "int8"]),
    ("serving", "clock", ["log", "wall"]),
]


@pytest.mark.parametrize(("stage", "key", "choices"), CHOICES)
def test_every_known_choice_is_taken_and_another_refused(stage: str, key: str, choices: list[str]) -> None:
    assert [built(stage, key, choice) for choice in choices] == choices
    with pytest.raises(ConfigurationError, match=rf"\[{stage}\] {key} = 'odd': one of {', '.join(choices)} was"):
        built(stage, key, "odd")


def test_every_setting_with_choices_is_in_this_file() -> None:
    with_choices = {
        (stage.name, spec.name)
        for stage in dataclasses.fields(Config)
        for spec in dataclasses.fields(getattr(Config(), stage.name))
        if spec.metadata["choices"]
    }
    assert with_choices == {(stage, key) for stage, key, _ in CHOICES} | {
        ("retrieval", "sampling"),
        ("ranking", "objectives"),
    }


def test_every_source_of_negatives_is_taken_alone_and_all_together() -> None:
    names = ("unigram", "uniform", "log_uniform", "in_batch", "full")
    assert [built("retrieval", "sampling", [name]) for name in names] == [(name,) for name in names]
    assert built("retrieval", "sampling", list(names)) == names
    assert built("retrieval", "sampling", ["unigram", "unigram", "uniform"]) == ("unigram", "unigram", "uniform")


def test_every_objective_is_taken_alone_and_all_together() -> None:
    assert [built("ranking", "objectives", [name]) for name in OBJECTIVES] == [(name,) for name in OBJECTIVES]
    assert built("ranking", "objectives", list(OBJECTIVES)) == OBJECTIVES
    with pytest.raises(ConfigurationError, match=r"\[ranking\] objectives = .*: one of weighted_logistic, tweedie"):
        built("ranking", "objectives", ["median"])


@pytest.mark.parametrize("names", [[], ["trigram"], ["unigram", "trigram"]])
def test_no_source_of_negatives_or_an_unknown_one_is_refused(names: list[str]) -> None:
    with pytest.raises(
        ConfigurationError, match=r"\[retrieval\] sampling = .*: one of unigram, uniform, log_uniform, in_"
    ):
        built("retrieval", "sampling", names)


def test_a_single_name_is_no_list_of_names() -> None:
    with pytest.raises(ConfigurationError, match=r"retrieval\.sampling = 'unigram': a list was expected"):
        built("retrieval", "sampling", "unigram")


def test_bags_of_any_name_are_taken_as_the_log_decides() -> None:
    assert built("retrieval", "history_bags", ["channel", "mood"]) == ("channel", "mood")
    assert built("retrieval", "history_bags", []) == ()


def test_an_age_at_which_examples_weigh_half_may_be_absent() -> None:
    assert (Config().retrieval.half_life_days, built("retrieval", "half_life_days", None)) == (None, None)


@pytest.mark.parametrize("key", ["tower", "video_tower", "recent_watches"])
def test_a_layer_without_units_and_a_bag_without_watches_are_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"\[retrieval\] {key} = \(8, 0\): every entry must be at least 1"):
        RetrievalConfig(**{key: (8, 0)})


def test_a_tower_without_layers_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"\[retrieval\] tower = \[\]: at least the user vector's width"):
        from_mapping(Config, {"retrieval": {"tower": []}}, "")


def test_a_video_tower_without_hidden_layers_is_taken() -> None:
    assert built("retrieval", "video_tower", []) == ()


def test_a_batch_of_one_has_no_other_examples_to_draw_negatives_from() -> None:
    alone = {"sampling": ["in_batch"], "batch_size": 1}
    with pytest.raises(ConfigurationError, match=r"sampling = \['in_batch'\] has no negatives with batch_size = 1"):
        from_mapping(Config, {"retrieval": alone}, "")
    for taken in ({**alone, "batch_size": 2}, {**alone, "sampling": ["in_batch", "uniform"]}):
        assert from_mapping(Config, {"retrieval": taken}, "").retrieval.batch_size == taken["batch_size"]


def test_the_heads_of_a_transformer_share_the_embedding() -> None:
    uneven = {"history": "transformer", "embedding_dim": 8, "attention_heads": 3}
    with pytest.raises(ConfigurationError, match=r"attention_heads = 3 must divide embedding_dim = 8"):
        from_mapping(Config, {"retrieval": uneven}, "")
    for taken in ({**uneven, "attention_heads": 4}, {**uneven, "history": "attention"}):
        assert from_mapping(Config, {"retrieval": taken}, "").retrieval.history == taken["history"]


def test_a_causal_transformer_cannot_learn_from_labels_of_the_middle() -> None:
    held_out = {"history": "transformer", "labels": "held_out"}
    with pytest.raises(ConfigurationError, match=r"history = 'transformer' is causal: labels = 'future' is needed"):
        from_mapping(Config, {"retrieval": held_out}, "")
    for taken in ({**held_out, "labels": "future"}, {**held_out, "history": "attention"}):
        assert from_mapping(Config, {"retrieval": taken}, "").retrieval.labels == taken["labels"]


@pytest.mark.parametrize(
    "moments",
    [
        {"ranking_start": 20, "validation_start": 10},
        {"validation_start": 20, "test_start": 10},
        {"ranking_start": 30, "test_start": 20},
        {"validation_start": 10, "test_start": 10},
    ],
)
def test_moments_out_of_order_are_refused(moments: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="each must be later than the last"):
        from_mapping(Config, {"split": moments}, "")


def test_moments_in_order_are_taken() -> None:
    split = from_mapping(Config, {"split": {"ranking_start": 1, "validation_start": 2, "test_start": 3}}, "").split
    assert (split.ranking_start, split.validation_start, split.test_start) == (1, 2, 3)


def test_a_toml_file_becomes_its_tables(tmp_path: Path) -> None:
    file = tmp_path / "log.toml"
    file.write_text('[log]\nname = "mine"\n')
    assert read_toml(file) == {"log": {"name": "mine"}}


def test_a_missing_toml_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no file .*absent\.toml"):
        read_toml(tmp_path / "absent.toml")


def test_a_folder_is_no_toml_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a text file"):
        read_toml(tmp_path)


def test_bytes_that_are_no_text_are_no_toml_file(tmp_path: Path) -> None:
    (tmp_path / "log.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="is not a text file"):
        read_toml(tmp_path / "log.toml")


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "log.toml").write_text("[log\n")
    with pytest.raises(ConfigurationError, match=r"is not valid TOML: .*line 1"):
        read_toml(tmp_path / "log.toml")
