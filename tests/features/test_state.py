"""The ranker's memory: the log replayed and the state as it stands give the same answers, and none knows the future."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from watchnext.events.dataset import Segments, UserEvents, VideoTable
from watchnext.features.state import FeatureState, FeatureValues, Keys, horizon_name

HORIZONS = (30.0, 600.0)
USERS, VIDEOS, END = 8, 15, 1_000
WATCHED = [np.nan, 0.0, 0.7, 8.0, 45.5, 300.0]


@dataclasses.dataclass
class Log:
    """Events as columns in any order; whoever changes a column changes the log."""

    user: np.ndarray
    moment: np.ndarray
    video: np.ndarray
    seconds: np.ndarray
    clicked: np.ndarray
    completed: np.ndarray

    @classmethod
    def random(cls, seed, num=300):
        """The last event marks the end of the log."""
        random = np.random.default_rng(seed)
        return cls(
            random.integers(1, USERS, num),
            np.append(random.integers(1, END, num - 1), END),
            random.integers(0, VIDEOS, num),
            random.choice(WATCHED, num).astype(np.float32),
            random.random(num) < 0.5,
            random.random(num) < 0.5,
        )

    def where(self, chosen):
        return Log(*(column[chosen] for column in vars(self).values()))

    def followed_by(self, other):
        return Log(*(np.concatenate(both) for both in zip(vars(self).values(), vars(other).values(), strict=True)))

    def copy(self):
        return Log(*(column.copy() for column in vars(self).values()))

    @property
    def events(self):
        order = np.lexsort((self.moment, self.user))
        one = self.where(order)
        offsets = np.searchsorted(one.user, np.arange(USERS + 1))
        nothing = np.zeros(0, dtype=np.int64)
        return UserEvents(
            Segments(offsets, one.moment),
            one.video.astype(np.int32),
            one.seconds,
            one.clicked,
            one.completed,
            np.zeros(len(order), dtype=bool),
            np.ones(len(order), dtype=bool),
            np.zeros(len(order), dtype=np.int32),
            np.zeros(len(order), dtype=np.int16),
            Segments(np.zeros(USERS + 1, dtype=np.int64), nothing),
            nothing,
        )


def video_table(channels, categorical, tags):
    num = len(channels)
    nothing = np.zeros((num, 0), dtype=np.int32)
    rows = (np.array(columns, dtype=np.int32).reshape(num, -1) for columns in (categorical, tags))
    categories, tag_rows = rows
    zeros = np.zeros(num, dtype=np.int64)
    continuous = np.zeros((num, 0), dtype=np.float32)
    return VideoTable(np.array(channels, dtype=np.int32), categories, continuous, tag_rows, nothing, zeros, zeros)


def random_keys(seed=0):
    random = np.random.default_rng(seed)
    channels, categorical, tags = (
        random.integers(0, most, (VIDEOS, width)) for most, width in ((5, 1), (4, 2), (7, 3))
    )
    for column in (channels, categorical, tags):
        column[0] = 0
    return Keys.of(video_table(channels[:, 0], categorical, tags), ["category", "language"])


KEYS = random_keys()


def empty(settled_after=20.0, history_length=12):
    return FeatureState.empty(KEYS, HORIZONS, settled_after, history_length)


@dataclasses.dataclass
class Questions:
    """Who is asked about which video, and when."""

    user: np.ndarray
    moment: np.ndarray
    video: np.ndarray

    @classmethod
    def random(cls, seed, moments, num=120):
        random = np.random.default_rng(seed)
        columns = random.integers(0, USERS, num), random.choice(moments, num), random.integers(0, VIDEOS, num)
        return cls(*columns)

    def where(self, chosen):
        return Questions(self.user[chosen], self.moment[chosen], self.video[chosen])

    def answered_by_replay(self, log, **settled):
        return empty(**settled).replay(log.events, self.user, self.moment, self.video[:, None])


NOBODY = Questions(*(np.zeros(0, dtype=np.int64) for _ in range(3)))


def replayed(log, until=END, **settled):
    """A state that has seen everything before `until`."""
    state = empty(**settled)
    nothing = state.replay(log.events, NOBODY.user, NOBODY.moment, NOBODY.video[:, None], until)
    assert nothing.query.shape[0] == nothing.candidates.shape[0] == 0
    return state


def frozen(values: FeatureValues) -> list[bytes]:
    """What is said of each question, as bytes: NaN equals NaN in there."""
    rows = zip(values.query, values.candidates, strict=True)
    return [query.tobytes() + candidates.tobytes() for query, candidates in rows]


@pytest.fixture
def threads():
    """Gives what sets the number of threads, which is put back in the end."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("settled", [{}, {"settled_after": 0.0, "history_length": 3}], ids=["usual", "short"])
def test_a_state_says_what_a_replay_said_at_that_moment(seed, settled):
    log = Log.random(seed)
    asked = Questions.random(seed, np.array([1, 2, 77, *log.moment[:3], *(log.moment[:3] + 1), 999]))
    answers = frozen(asked.answered_by_replay(log, **settled))
    assert len(set(answers)) > 50
    for moment in np.unique(asked.moment).tolist():
        then = np.flatnonzero(asked.moment == moment)
        one = asked.where(then)
        read = replayed(log, moment, **settled).read(log.events, one.user, one.moment, one.video[:, None])
        assert frozen(read) == [answers[place] for place in then]


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 40), st.lists(st.integers(1, 60), min_size=1, max_size=3), st.booleans()
)
@settings(max_examples=30)
def test_it_does_so_in_any_crowded_log(seed, num, moments, settled_at_once):
    log = Log.random(seed, num)
    log.moment[:-1] = log.moment[:-1] % 50 + 1
    settled = {"settled_after": 0.0 if settled_at_once else 9.5}
    asked = Questions.random(seed, moments, 10)
    answers = frozen(asked.answered_by_replay(log, **settled))
    for place, moment in enumerate(asked.moment.tolist()):
        one = asked.where(slice(place, place + 1))
        read = replayed(log, moment, **settled).read(log.events, one.user, one.moment, one.video[:, None])
        assert frozen(read) == [answers[place]]


@pytest.mark.parametrize("history_length", [1, 7, 1_000])
def test_a_users_past_are_the_latest_events_of_so_many(history_length):
    log, users = Log.random(8), np.arange(USERS)
    values = replayed(log, history_length=history_length).read(
        log.events, users, np.full(USERS, END), np.full((USERS, 1), 3)
    )
    num_events = [min(history_length, int(((log.user == user) & (log.moment < END)).sum())) for user in users]
    assert values.query[:, empty().query_names.index("user.events")].tolist() == num_events
    assert max(num_events) > 30 or history_length < 30


def test_a_candidate_among_many_and_alone_is_told_the_same():
    log, everything = Log.random(0), np.tile(np.arange(VIDEOS), (USERS, 1))
    users, moments, state = np.arange(USERS), np.full(USERS, END), replayed(log)
    together = state.read(log.events, users, moments, everything)
    for video in range(VIDEOS):
        alone = state.read(log.events, users, moments, everything[:, video : video + 1])
        assert alone.query.tobytes() == together.query.tobytes()
        assert alone.candidates[:, 0].tobytes() == together.candidates[:, video].tobytes()
    for user in range(USERS):
        one = slice(user, user + 1)
        assert frozen(state.read(log.events, users[one], moments[one], everything[one])) == [frozen(together)[user]]


def test_the_order_of_questions_changes_no_answer():
    log, asked = Log.random(1), Questions.random(1, np.arange(1, END))
    order = np.random.default_rng(2).permutation(len(asked.user))
    answers = frozen(asked.answered_by_replay(log))
    assert frozen(asked.where(order).answered_by_replay(log)) == [answers[place] for place in order]


def test_nothing_depends_on_the_number_of_threads(threads):
    log, asked = Log.random(2, 2_000), Questions.random(2, np.arange(1, END), 500)
    users, candidates = np.arange(64) % USERS, np.random.default_rng(0).integers(0, VIDEOS, (64, 50))
    found = []
    for count in (1, 2):
        threads(count)
        state = replayed(log)
        read = state.read(log.events, users, np.full(64, END), candidates)
        found.append((frozen(asked.answered_by_replay(log)), frozen(read), counted(state)))
    assert found[0] == found[1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("moment", [2, 300, 700])
def test_what_happens_at_the_moment_or_later_changes_nothing_said_until_then(seed, moment):
    log = Log.random(seed)
    log.moment[:20] = moment
    asked = Questions.random(seed, np.append(np.arange(1, moment), [moment] * 50))
    answers = frozen(asked.answered_by_replay(log))
    early, other = log.where(log.moment < moment), Log.random(seed + 100)
    other.moment[:] = np.maximum(other.moment, moment)
    now = asked.where(asked.moment == moment)
    arguments = (now.user, now.moment, now.video[:, None])
    said = frozen(replayed(log, moment).read(log.events, *arguments))
    for later in (other.where(other.moment == END), other, other.followed_by(other)):
        altered = early.followed_by(later)
        assert frozen(asked.answered_by_replay(altered)) == answers
        assert frozen(replayed(altered, moment).read(altered.events, *arguments)) == said


@pytest.mark.parametrize("column", ["user", "moment", "video", "seconds", "clicked", "completed"])
def test_any_column_of_what_happened_before_shows(column):
    log, asked = Log.random(3), Questions.random(3, [500])
    early, changed = log.moment < 400, log.copy()
    values = getattr(changed, column)
    values[early] = np.roll(values[early], 1)
    answers, others = (frozen(asked.answered_by_replay(one)) for one in (log, changed))
    assert sum(one != other for one, other in zip(answers, others, strict=True)) > 100


@pytest.mark.parametrize("column", ["clicked", "completed"])
def test_the_last_event_before_the_moment_shows(column):
    log = Log.random(4)
    log.moment[0], log.video[0], log.user[0], log.seconds[0] = 499, 3, 5, 0.0
    asked, changed = Questions(np.array([5]), np.array([500]), np.array([3])), log.copy()
    getattr(changed, column)[0] ^= True
    for settled_after, places in ((1.0, ("query", "candidates")), (2.0, ("candidates",))):
        answers = [asked.answered_by_replay(one, settled_after=settled_after) for one in (log, changed)]
        for name in places:
            assert getattr(answers[0], name).tobytes() != getattr(answers[1], name).tobytes()


@pytest.mark.parametrize("column", ["clicked", "completed", "seconds"])
def test_an_outcome_is_not_seen_before_it_is_known(column):
    log = Log.random(5)
    log.moment[:50] = np.arange(450, 500)
    watching = (log.moment < 500) & (log.moment + log.seconds >= 500)
    assert watching.sum() > 10
    changed = log.copy()
    if column == "seconds":
        changed.seconds[watching] += np.arange(1.0, watching.sum() + 1.0, dtype=np.float32)
    else:
        getattr(changed, column)[watching] ^= True
    asked, later = Questions.random(5, [400, 499, 500]), Questions.random(5, [END])
    assert frozen(asked.answered_by_replay(log)) == frozen(asked.answered_by_replay(changed))
    states = [replayed(one, 500) for one in (log, changed)]
    assert counted(states[0]) == counted(states[1])
    assert frozen(later.answered_by_replay(log)) != frozen(later.answered_by_replay(changed))


def test_once_the_log_has_ended_all_that_came_of_it_is_known():
    log = Log.random(7).where(slice(-1, None))
    log.video[:], log.seconds[:], log.completed[:] = 3, 300.0, True
    asked = Questions(np.array([0, 0]), np.array([END, END + 1]), np.array([3, 3]))
    values, name = asked.answered_by_replay(log), empty().names.index("video.completed_share.all")
    assert values.candidates[0, 0, name] == 0.0 < values.candidates[1, 0, name]


def counted(state):
    """Everything that is remembered, as bytes."""
    return {
        kind: {name: array.tobytes() for name, array in vars(counters).items()}
        for kind, counters in state.counters.items()
    }


def saved(state, folder):
    state.save(folder)
    return FeatureState.open(
        folder, state.keys, state.horizons_seconds, state.settled_after_seconds, state.history_length
    )


@pytest.mark.parametrize("num_events", [1, 6, 300])
def test_an_opened_state_says_the_same_and_is_mapped(num_events, tmp_path):
    log, asked = Log.random(6, num_events), Questions.random(6, [END])
    state = replayed(log, END + 1)
    opened = saved(state, tmp_path)
    arguments = (log.events, asked.user, asked.moment, asked.video[:, None])
    assert frozen(opened.read(*arguments)) == frozen(state.read(*arguments))
    assert frozen(opened.read(*arguments)) != frozen(empty().read(*arguments))
    assert counted(saved(opened, tmp_path / "again")) == counted(opened)
    assert all(isinstance(counters.sums.base, np.memmap) for counters in opened.counters.values())


def test_a_saved_state_has_counters_of_what_ever_happened(tmp_path):
    log = Log.random(6, 3)
    log.video[:] = 7, 3, 7
    opened = saved(replayed(log, END + 1), tmp_path)
    assert len(opened.counters["video"].sums) == 3
    assert_array_equal(opened.counters["video"].sums[:, -1, 0], [0.0, 1.0, 2.0])
    assert_array_equal(
        opened.slots_of("video", np.arange(VIDEOS)), np.isin(range(VIDEOS), 3) + 2 * np.isin(range(VIDEOS), 7)
    )


def test_every_column_has_a_name_of_its_own():
    state, asked = empty(), Questions.random(0, [5])
    values = state.read(Log.random(0).events, asked.user, asked.moment, asked.video[:, None])
    assert values.query.shape == (120, len(state.query_names))
    assert values.candidates.shape == (120, 1, len(state.names))
    names = [*state.query_names, *state.names]
    assert len(set(names)) == len(names)
    assert {name.split(".")[0] for name in state.query_names} == {"everything", "user"}
    kinds = ["video", "channel", "category", "language", "tags"]
    assert {name.split(".")[0] for name in state.names} == {*kinds, *(f"user_{kind}" for kind in kinds)}
    assert state.horizons == ("30s", "10min", "all")


@pytest.mark.parametrize("settled_after", [0.0, 50.0])
def test_each_name_names_its_column(settled_after):
    """User 1 watched video 3 for 8 seconds at 100; at 130 two users are shown it, while another watches since 70."""
    seconds = np.array([8.0, 200.0, 0.0], dtype=np.float32)
    log = Log(np.array([1, 7, 7]), np.array([100, 70, END]), np.array([3, 0, 0]), seconds, *np.ones((2, 3), dtype=bool))
    asked = Questions(np.array([1, 2]), np.array([130, 130]), np.array([3, 3]))
    values = asked.answered_by_replay(log, settled_after=settled_after)
    state = empty()
    own, other = (dict(zip(state.query_names, line, strict=True)) for line in values.query.tolist())
    assert own["everything.shown.30s"] == other["everything.shown.30s"] == pytest.approx(0.75)
    assert own["everything.watch_seconds.all"] == pytest.approx(8 / 11)
    assert own["everything.seconds_since_completed"] == 22.0
    assert (own["user.events"], other["user.events"]) == (1.0, 0.0)
    assert (own["user.outcomes"], own["user.seconds_since_shown"]) == (float(settled_after <= 30), 30.0)
    own, other = (dict(zip(state.names, line, strict=True)) for line in values.candidates[:, 0].tolist())
    # Of everything shown, half a horizon's worth of 30 s after one, a quarter after two.
    assert [own["video.shown.30s"], own["video.shown.all"]] == pytest.approx([0.5 / 0.75, 0.5])
    assert own["video.shown.10min"] == pytest.approx(0.5**0.05 / (0.5**0.05 + 0.5**0.1))
    assert own["video.completed_share.all"] == other["video.completed_share.all"]
    # The prior of a video is the share of everything, (1 + 0) / 11.
    assert own["video.completed_share.all"] == pytest.approx((1 + 10 / 11) / 11)
    assert (own["user_video.shown.all"], other["user_video.shown.all"]) == (1.0, 0.0)
    assert (own["user_video.seconds_since_shown"], own["video.seconds_since_shown"]) == (30.0, 30.0)
    # A user's share leans to that of everything, 1 / 11, and that of a user and a video to the user's.
    known = int(settled_after <= 30)
    of_user = (known + 5 / 11) / (known + 5)
    assert own["user_video.completed_share"] == pytest.approx((known + 5 * of_user) / (known + 5))


def test_keys_of_a_table_of_videos():
    table = video_table([0, 2, 1], [[0, 0], [3, 1], [0, 4]], [[0, 0], [5, 6], [7, 0]])
    keys = Keys.of(table, ["category", "language"])
    assert keys.kinds == ("video", "channel", "category", "language", "tags")
    assert keys.widths.tolist() == [1, 1, 1, 1, 2]
    assert keys.sizes == (3, 3, 4, 5, 8)
    assert keys.rows.tolist() == [[0, 0, 0, 0, 0, 0], [1, 2, 3, 1, 5, 6], [2, 1, 0, 4, 7, 0]]
    assert keys.of_videos(np.array([2, 0, 2])).tolist() == keys.rows[[2, 0, 2]].tolist()
    assert_array_equal(keys.rows[:, keys.places_of("language")], [[0], [1], [4]])
    assert_array_equal(keys.rows[:, keys.places_of("tags")], [[0, 0], [5, 6], [7, 0]])


def test_a_kind_lies_behind_the_columns_of_those_before_it():
    keys = Keys(("video", "tags", "channel"), np.array([1, 2, 1]), 1, (np.array([[5, 6]]), np.array([[2]])))
    assert [keys.rows[:, keys.places_of(kind)].tolist() for kind in keys.kinds] == [[[0]], [[5, 6]], [[2]]]


def test_a_category_may_have_the_name_of_a_kind_of_ours():
    """Two kinds of one name would share the counters of one, too few for the other's keys."""
    categories = ["channel", "everything", "user", "video", "language"]
    keys = Keys.of(video_table([0, 9, 9], [[0] * 5, [1, 2, 3, 4, 5], [2, 3, 4, 5, 6]], [[0], [1], [0]]), categories)
    state = FeatureState.empty(keys, HORIZONS, 0.0, 5)
    assert [len(state.counters[kind].sums) for kind in keys.kinds] == [3, 10, 3, 4, 5, 6, 7, 2]
    assert [keys.rows[1, keys.places_of(kind)][0] for kind in keys.kinds] == [1, 9, 1, 2, 3, 4, 5, 1]
    names = [*state.query_names, *state.names]
    assert len(set(names)) == len(names)
    assert any(name.startswith("language.") for name in names)


def test_videos_may_have_neither_categories_nor_tags():
    keys = Keys.of(video_table([0, 1], np.zeros((2, 0)), np.zeros((2, 0))), [])
    assert keys.kinds == ("video", "channel", "tags") and keys.sizes == (2, 2, 1)
    log = Log.random(0).copy()
    log.video %= 2
    state = FeatureState.empty(keys, HORIZONS, 0.0, 5)
    values = state.replay(log.events, np.array([1]), np.array([END]), np.array([[1]]))
    found = dict(zip(state.names, values.candidates[0, 0].tolist(), strict=True))
    assert found["tags.shown.all"] == found["user_tags.shown.all"] == 0.0
    assert found["video.shown.all"] == pytest.approx(log.video[:-1].mean())  # the last event is not past


@pytest.mark.parametrize(
    ("seconds", "name"),
    [(1.0, "1s"), (1.5, "1.5s"), (90.0, "90s"), (60.0, "1min"), (5_400.0, "90min"), (7_200.0, "2h"), (86_400.0, "1d")],
)
def test_a_horizon_is_named_in_its_largest_whole_unit(seconds, name):
    assert horizon_name(seconds) == name


def test_a_question_later_than_what_is_counted_is_refused_and_one_just_then_is_answered():
    events, moment = Log.random(0).events, END // 2
    question = np.array([1]), np.array([moment]), np.array([[1]])
    with pytest.raises(ValueError, match=f"as of {moment} came, but what happened from {moment - 1} on is not counted"):
        empty().replay(events, *question, until=moment - 1)
    state = empty()
    replayed_answer, read_answer = state.replay(events, *question, until=moment), state.read(events, *question)
    assert_array_equal(replayed_answer.query, read_answer.query)
    assert_array_equal(replayed_answer.candidates, read_answer.candidates)
