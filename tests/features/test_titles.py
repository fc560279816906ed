"""Searches beside titles: a log worked by hand, and a slow count."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from watchnext.config import FeaturesConfig, PrepareConfig, SplitConfig
from watchnext.events.compiling import compile_dataset
from watchnext.events.dataset import Dataset
from watchnext.events.log import read_log
from watchnext.events.mapping import read_log_file
from watchnext.examples.contexts import context_as_of
from watchnext.features.inputs import Nominations, ranking_inputs
from watchnext.features.spec import FeatureSpec, empty_state
from watchnext.features.titles import searched_titles

FILES = {
    "watches": "user_id,video_id,timestamp,watch_seconds\n"
    + "".join(f"ann,{video},{when},40\n" for when, video in enumerate("abcd", start=10))
    + "ann,a,40,40\nann,a,95,40\n",
    "videos": "video_id,title\na,Jazz piano - jazz\nb,Late jazz LIVE\nc,...\n",
    "searches": 'user_id,timestamp,query\nann,20,"Piano, JAZZ jazz!"\nann,60,late film\nbob,60,a film\n',
}
NAMES = ["user_title.searched_tokens", "user_title.searched_share"]


@pytest.fixture
def compiled(tmp_path):
    """Gives a function that compiles some of the tables."""

    def compile_tables(*tables):
        for table in tables:
            (tmp_path / f"{table}.csv").write_text(FILES[table])
        toml = tmp_path / "log.toml"
        toml.write_text("".join(f'{table}.files = "{table}.csv"\n' for table in tables))
        with read_log(read_log_file(toml)[0], memory_gigabytes=0.5) as log:
            split = SplitConfig(ranking_start=20, validation_start=30, test_start=90)
            compile_dataset(log, tmp_path / "dataset", split, PrepareConfig())
        return Dataset.open(tmp_path / "dataset")

    return compile_tables


def values_of(dataset, user, moment, num_tokens=9):
    """What the ranker reads of the videos a, b, c, d and of an unknown one, by name."""
    config = FeaturesConfig(horizons_seconds=(60.0,))
    state = empty_state(dataset, config)
    spec = FeatureSpec.of(dataset, state, ("network",), config)
    users, moments = dataset.vocabularies["users"].rows_of([user]), np.array([moment])
    candidates = dataset.vocabularies["videos"].rows_of([*"abcd", "unknown"])[None]
    context = context_as_of(dataset, users, moments, 5, num_tokens)
    nominations = Nominations(np.zeros((1, 5)), np.zeros((1, 5, 1), dtype=int), np.full((1, 5, 1), np.nan))
    values = state.read(dataset.events, users, moments, candidates)
    found = ranking_inputs(dataset.videos, context, users * 0, candidates, nominations, values, spec).values[0]
    names = [spec.names[place] for place in spec.places]
    return {name: column.tolist() for name, column in zip(names, found.T, strict=True)}


@pytest.mark.parametrize(
    ("user", "moment", "tokens", "shares"),
    [
        # a has the words jazz and piano, b late, jazz and live, c and d none; "film" is in no title, nor are pairs.
        ("ann", 20, [0, 0], [0, 0]),
        ("ann", 21, [2, 1], [1, 1 / 3]),
        ("ann", 60, [2, 1], [1, 1 / 3]),
        ("ann", 61, [2, 2], [1, 2 / 3]),
        ("bob", 99, [0, 0], [0, 0]),
        ("nobody", 99, [0, 0], [0, 0]),
    ],
)
def test_words_searched_for_before_the_moment_are_counted(compiled, user, moment, tokens, shares):
    values = values_of(compiled("watches", "videos", "searches"), user, moment)
    assert values[NAMES[0]] == [*tokens, 0, 0, 0]
    assert_array_equal(values[NAMES[1]], np.array([*shares, np.nan, np.nan, np.nan], dtype=np.float32))


def test_only_the_last_tokens_count(compiled):
    # ann's tokens of second 60 are film, late and "late film": three places are theirs.
    values = values_of(compiled("watches", "videos", "searches"), "ann", 61, num_tokens=3)
    assert values[NAMES[0]] == [0, 1, 0, 0, 0]


@pytest.mark.parametrize("tables", [("watches", "videos"), ("watches", "searches"), ("watches",)])
def test_a_log_without_searches_or_titles_has_no_such_features(compiled, tables):
    values = values_of(compiled(*tables), "ann", 61)
    assert not set(NAMES) & set(values) and "network_score" in values


@pytest.mark.parametrize("num_words", [0, 1, 6])
@pytest.mark.parametrize("num_tokens", [0, 1, 7, 40])
def test_counts_are_those_of_sets(num_words, num_tokens):
    random = np.random.default_rng(num_tokens)
    titles = random.integers(0, 30, (50, num_words)).astype(np.int32)
    titles[:5] = 0
    videos, searched = random.integers(0, 50, (20, 8)), random.integers(0, 30, (20, num_tokens))
    found = searched_titles(titles, videos, searched)
    for user in range(20):
        for place, video in enumerate(videos[user]):
            words = set(titles[video].tolist()) - {0}
            both = words & set(searched[user].tolist())
            share = len(both) / len(words) if words else np.nan
            assert_array_equal(found[user, place], np.array([len(both), share], dtype=np.float32))
