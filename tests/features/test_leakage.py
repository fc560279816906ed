"""The leakage audit: whatever happens at or after a moment, nothing computed as of that moment changes.

The small world's log is altered from a moment on, in several ways, and compiled again with that moment as the start
of the test period. Ids, contexts, next-watch examples, impressions, quantiles and every ranking feature must stay
the same, byte for byte. Altering what came before must show, or the audit would prove nothing.
"""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from watchnext import pipeline
from watchnext.config import FeaturesConfig, RetrievalConfig
from watchnext.events.dataset import Dataset
from watchnext.examples.contexts import context_as_of, seen_before
from watchnext.examples.impressions import impressions_between
from watchnext.examples.next_watch import NextWatchExamples, next_watches, targets_between
from watchnext.examples.quantiles import Quantiles
from watchnext.features.inputs import Nominations, ranking_inputs
from watchnext.features.spec import FeatureSpec, empty_state

DAY = 86_400
FEATURES = FeaturesConfig(history_length=12, last_watches=5, habit_lag_days=0.5)
RETRIEVAL = {
    "of the future": RetrievalConfig(history_length=12, num_search_tokens=6, examples_per_user=10, batch_size=500),
    "held out": RetrievalConfig(
        history_length=12,
        num_search_tokens=6,
        examples_per_user=10,
        batch_size=500,
        labels="held_out",
        horizon=3,
        unwatched_weight=0.3,
        weights="watch_seconds",
    ),
    "of windows": RetrievalConfig(
        history_length=12, num_search_tokens=6, examples_per_user=10, batch_size=500, history="transformer", horizon=3
    ),
}
CHANGED = ("video_id", "watch_seconds", "clicked", "completed", "surface")


def emptied(events, late, random):
    """Drops all late events but the last, which marks the end of the log."""
    late[np.argmax(events["timestamp"])] = False
    return {name: column[~late] for name, column in events.items()}


def shuffled(events, late, random):
    order = random.permutation(np.flatnonzero(late))
    for name in CHANGED:
        events[name][late] = events[name][order]
    return events


def rewritten(events, late, random):
    """Another video at another hour, watched for another time, at the earliest in the first late second."""
    start = events["timestamp"][late].min()
    events["video_id"][late] = random.integers(0, 100, late.sum())
    events["watch_seconds"][late] = random.integers(0, 500, late.sum())
    events["completed"][late] = random.random(late.sum()) < 0.5
    events["timestamp"][late] = start + random.integers(0, 2, late.sum()) * random.integers(0, DAY, late.sum())
    return events


def appended(events, late, random):
    """Five times as many late events, of new users and new videos too."""
    more = {name: np.repeat(column[late], 5) for name, column in events.items()}
    more["user_id"] = random.integers(0, 300, late.sum() * 5)
    more["video_id"] = random.integers(0, 150, late.sum() * 5)
    return {name: np.concatenate([column, more[name]]) for name, column in events.items()}


ALTERATIONS = [emptied, shuffled, rewritten, appended]


@pytest.fixture(scope="module", params=[0.45, 0.9], ids=["middle", "late"])
def audited(request, small_dataset, tmp_path_factory):
    """Gives the moment, and a function that alters the log and compiles it."""
    folder = tmp_path_factory.mktemp("audit")
    log = small_dataset.artifact.path.parent.parent / "log"
    events = columns_of(log / "events.parquet")
    random = np.random.default_rng(7)
    words = random.integers(0, 4, 1000)
    searches = {
        "user_id": random.integers(0, 240, 1000),
        "timestamp": random.choice(events["timestamp"], 1000),
        "query": np.array([f"more topic{word}" for word in words], dtype=object),
    }
    moments = [int(np.quantile(events["timestamp"], request.param * share)) for share in (0.4, 0.7, 1.0)]
    split = dict(zip(("ranking_start", "validation_start", "test_start"), moments, strict=True))

    def compiled(name, alter=lambda events, searches: (events, searches)):
        target = folder / name
        shutil.copytree(log, target / "log")
        altered = alter(*({key: column.copy() for key, column in table.items()} for table in (events, searches)))
        for table, columns in zip(("events", "searches"), altered, strict=True):
            pq.write_table(pa.table(columns), target / "log" / f"{table}.parquet")
        toml = target / "log" / "log.toml"
        toml.write_text(
            f"{toml.read_text()}\n[split]\n" + "".join(f"{key} = {value}\n" for key, value in split.items())
        )
        run = pipeline.Run(toml, target / "run")
        pipeline.prepare(run)
        return Dataset.open(run.part("dataset"))

    return moments[-1], compiled


@pytest.fixture(scope="module")
def untouched(audited):
    moment, compiled = audited
    return known_before(compiled("untouched"), moment)


@pytest.mark.parametrize("alter", ALTERATIONS)
def test_altering_the_future_changes_nothing_known_before(audited, untouched, alter):
    moment, compiled = audited

    def alter_future(events, searches):
        random = np.random.default_rng(1)
        late = searches["timestamp"] >= moment
        searches["query"][late] = "something else"
        searches["timestamp"][late] = random.permutation(searches["timestamp"][late])
        return alter(events, events["timestamp"] >= moment, random), searches

    altered = known_before(compiled(alter.__name__, alter_future), moment)
    assert [name for name in untouched if altered[name] != untouched[name]] == []


def test_altering_the_past_shows_everywhere(audited, untouched):
    moment, compiled = audited

    def alter_past(events, searches):
        early = events["timestamp"] < moment
        events["completed"][early] ^= np.random.default_rng(2).random(early.sum()) < 0.3
        shuffled(events, early, np.random.default_rng(1))
        searches["query"] = np.roll(searches["query"], 1)
        return events, searches

    altered = known_before(compiled("past", alter_past), moment)
    assert [name for name in untouched if altered[name] == untouched[name]] == []


def test_the_last_event_before_the_moment_shows(audited, untouched):
    moment, compiled = audited

    def alter_one(events, searches):
        last = np.flatnonzero(events["timestamp"] == events["timestamp"][events["timestamp"] < moment].max())[0]
        events["watch_seconds"][last] += 1.0
        return events, searches

    altered = known_before(compiled("last", alter_one), moment)
    changed = {name for name in untouched if altered[name] != untouched[name]}
    # What is held out weighs its watch seconds, and its history is everything before the moment.
    held_out = {"histories held out", "targets held out"}
    assert changed == {"contexts at the moment", "impressions", "requests", *held_out}


def known_before(dataset, moment):
    """Everything that a model may learn from, or is asked with, as of `moment`, as bytes."""
    random = np.random.default_rng(3)
    users, start = np.arange(1, 241), dataset.facts["log_start"]
    moments = random.integers(start, moment, len(users))
    labels = next_watches(dataset.events, moment, 10)
    shown = impressions_between(dataset.events, start, moment)
    candidates = random.integers(0, dataset.num_videos, (len(users), 8))
    features = inputs_of(dataset, shown.user_row, shown.timestamp, shown.surface_row, shown.video_row[:, None])
    requests = inputs_of(dataset, users, np.full(len(users), moment), np.ones(len(users), int), candidates)
    learnt = {name: NextWatchExamples(dataset, config, moment) for name, config in RETRIEVAL.items()}
    batches = {name: list(examples.batches(np.random.default_rng(4), 0)) for name, examples in learnt.items()}
    everybody = np.full(len(users), moment)
    return {
        "ids": [ids_in(dataset, name) for name in ("videos", "channels", "tags", "search_tokens", "surfaces")],
        "frequencies": frozen([dataset.videos.num_completed]),
        "contexts at the moment": frozen(vars(context_as_of(dataset, users, everybody, 12, 6)).values()),
        "contexts before": frozen(vars(context_as_of(dataset, users, moments, 12, 6)).values()),
        "seen": frozen(seen_before(dataset, users, everybody)),
        "labels": frozen(vars(labels).values()),
        **{f"histories {name}": [frozen(vars(batch.context).values()) for batch in batches[name]] for name in batches},
        **{f"targets {name}": [targets_in(batch) for batch in batches[name]] for name in batches},
        "windows": [windows_in(batch) for batch in batches["of windows"]],
        "wanted": frozen([examples.num_wanted(dataset.num_videos) for examples in learnt.values()]),
        "impressions": frozen(vars(shown).values()),
        "targets": frozen(targets_between(dataset.events, start, moment)[1]),
        "features": frozen(vars(features).values()),
        "requests": frozen(vars(requests).values()),
        "quantiles": frozen(vars(Quantiles.fit(features.values[:, 0])).values()),
    }


def inputs_of(dataset, users, moments, surfaces, candidates):
    context = context_as_of(dataset, users, moments, 12, 6)
    nobody_did = (*candidates.shape, 1)
    nominations = Nominations(np.zeros(candidates.shape), np.zeros(nobody_did, dtype=int), np.full(nobody_did, np.nan))
    state = empty_state(dataset, FEATURES)
    spec = FeatureSpec.of(dataset, state, ("network",), FEATURES)
    if candidates.shape[1] == 1:
        values = state.replay(dataset.events, users, moments, candidates)
    else:
        nobody = np.zeros(0, dtype=np.int64)
        state.replay(dataset.events, nobody, nobody, nobody[:, None], until=int(moments.max()))
        values = state.read(dataset.events, users, moments, candidates)
    return ranking_inputs(dataset.videos, context, surfaces, candidates, nominations, values, spec)


def targets_in(batch):
    parts = (batch.example_age_days, batch.target_row, batch.target_weight)
    return frozen([part.numpy() for part in parts])


def windows_in(batch):
    windows = batch.windows
    return frozen([*vars(windows.history).values(), windows.window.numpy(), windows.hidden.numpy()])


def frozen(arrays):
    return [(array.dtype.str, array.shape, np.ascontiguousarray(array).tobytes()) for array in arrays]


def ids_in(dataset, name):
    vocabulary = dataset.vocabularies[name]
    return vocabulary.ids_of(np.arange(1, len(vocabulary)))


def columns_of(file):
    table = pq.read_table(file)
    return {name: table[name].to_numpy().copy() for name in table.column_names}
