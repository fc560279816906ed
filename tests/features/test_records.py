"""What everybody did with a key, against loops over all events for each question."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from watchnext.features.counters import Counters, halvings_a_second
from watchnext.features.records import read_records, record_names, replay

HORIZONS = (5.0, 40.0)
RATES = halvings_a_second(HORIZONS)
NAMES = record_names(("5s", "40s", "all"))
NOTHING = (0.0,) * 7
NEVER = 10**15


@dataclass(frozen=True)
class Event:
    moment: int
    video: int
    seconds: float = math.nan
    completed: bool = False
    clicked: bool = False

    @property
    def known_at(self) -> int:
        return self.moment + (0 if math.isnan(self.seconds) else math.floor(self.seconds))


def oracle(events, keys, moment, video, prior):
    """One question, by loops; an event counts once for every pair of equal keys, its own and the asked video's.

    `prior` has the means of everything, then how often anything was shown, horizon by horizon.
    """
    shared = [
        event for event in events for own in keys[event.video] for asked in keys[video] if own == asked and own > 0
    ]
    seen = [event for event in shared if event.moment < moment]
    settled = [event for event in shared if event.known_at < moment]
    timed = [event for event in settled if not math.isnan(event.seconds)]
    mean_of = {
        "completed_share": (settled, lambda event: event.completed),
        "clicked_share": (settled, lambda event: event.clicked),
        "watch_seconds": (timed, lambda event: event.seconds),
        "log_watch_seconds": (timed, lambda event: math.log(1.0 + event.seconds)),
    }
    answer = {}
    for name, horizon, of_all in zip(("5s", "40s", "all"), (5.0, 40.0, math.inf), prior[4:], strict=True):
        answer[f"shown.{name}"] = sum(0.5 ** ((moment - event.moment) / horizon) for event in seen) / (of_all or 1.0)
    for (mean, (some, value)), usual in zip(mean_of.items(), prior[:4], strict=True):
        for name, horizon in (("all", math.inf), ("40s", 40.0), ("5s", 5.0)):
            weights = [0.5 ** ((moment - event.known_at) / horizon) for event in some]
            total = sum(weight * value(event) for weight, event in zip(weights, some, strict=True))
            usual = (total + 10 * usual) / (sum(weights) + 10)
            answer[f"{mean}.{name}"] = usual
    completed = [event.known_at for event in settled if event.completed]
    answer["seconds_since_shown"] = moment - max((event.moment for event in seen), default=math.nan)
    answer["seconds_since_completed"] = moment - max(completed, default=math.nan)
    return answer


def replayed(events, keys, questions, prior=NOTHING, until=NEVER):
    """The counters, and the answers to questions (moment, video) in the order in which they are asked."""
    keys = np.array(keys)
    counters = Counters.empty(int(keys.max(initial=0)) + 1, len(RATES))
    events = sorted(events, key=lambda event: event.moment)
    known_at = np.array([event.known_at for event in events], dtype=np.int64)
    columns = (
        ("moment", np.int64),
        ("video", np.int32),
        ("seconds", np.float32),
        ("completed", bool),
        ("clicked", bool),
    )
    out = np.full((len(questions), 1, len(NAMES)), -1.0, dtype=np.float32)
    replay(
        *(np.array([getattr(event, name) for event in events], dtype=kind) for name, kind in columns),
        np.argsort(known_at, kind="stable"),
        known_at,
        until,
        keys,
        *vars(counters).values(),
        RATES,
        np.array([moment for moment, _ in questions], dtype=np.int64),
        np.arange(len(questions)),
        np.array([video for _, video in questions], dtype=np.int64),
        np.array([prior] * len(questions)).reshape(len(questions), len(NOTHING)),
        out,
    )
    return counters, [dict(zip(NAMES, line, strict=True)) for line in out[:, 0].tolist()]


def answer_to(events, moment, video=1, keys=((0,), (1,)), prior=NOTHING):
    return replayed(events, keys, [(moment, video)], prior)[1][0]


EVENTS = st.lists(
    st.builds(
        Event,
        moment=st.integers(1, 60),
        video=st.integers(0, 4),
        seconds=st.sampled_from([math.nan, 0.0, 0.5, 3.0, 20.75]),
        completed=st.booleans(),
        clicked=st.booleans(),
    ),
    max_size=25,
)
QUESTIONS = st.lists(st.tuples(st.integers(0, 90), st.integers(0, 4)), max_size=8).map(sorted)
KEYS = st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=5, max_size=5)
OF_ALL = st.sampled_from([0.0, 0.125, 1.0, 77.0])
PRIOR = st.tuples(*(st.floats(0, most) for most in (1, 1, 100, 5)), OF_ALL, OF_ALL, OF_ALL)


def test_every_column_has_a_name_of_its_own():
    assert len(set(NAMES)) == len(NAMES)
    assert list(answer_to([], 10)) == list(NAMES)
    assert all(value != -1.0 for value in answer_to([], 10).values())


@given(EVENTS, KEYS, QUESTIONS, PRIOR)
@settings(max_examples=200)
def test_a_replay_equals_loops_over_all_events(events, keys, questions, prior):
    for (moment, video), found in zip(questions, replayed(events, keys, questions, prior)[1], strict=True):
        expected = oracle(events, keys, moment, video, prior)
        assert expected.keys() == found.keys()
        for name in NAMES:
            assert_allclose(found[name], expected[name], rtol=3e-6, atol=1e-12, err_msg=name)


@given(EVENTS, KEYS, st.integers(0, 60))
@settings(max_examples=100)
def test_a_replay_stops_before_what_is_to_come(events, keys, until):
    """The counters are those of the shorter log, but for outcomes that were not known yet."""
    stopped, _ = replayed(events, keys, [], until=until)
    earlier = [event for event in events if event.moment < until]
    shorter, _ = replayed(earlier, keys, [])
    assert_array_equal(stopped.shown_at, shorter.shown_at)
    assert_array_equal(stopped.sums[:, -1, 0], shorter.sums[:, -1, 0])
    settled = [event for event in earlier if event.known_at < until]
    expected = [sum(key == row for event in settled for key in keys[event.video]) for row in range(len(stopped.sums))]
    assert_array_equal(stopped.sums[1:, -1, 1], expected[1:])


@given(EVENTS, KEYS)
@settings(max_examples=50)
def test_key_zero_is_nobodys(events, keys):
    counters, _ = replayed(events, keys, [(70, 1)])
    assert not any(array[0].any() for array in vars(counters).values())


@given(EVENTS, KEYS, QUESTIONS, st.integers(0, 8))
@settings(max_examples=100)
def test_asking_changes_no_answer(events, keys, questions, place):
    one = questions[place : place + 1]
    assert str(replayed(events, keys, one)[1]) == str(replayed(events, keys, questions)[1][place : place + 1])


def test_an_event_fades_from_when_it_happened_and_its_outcome_from_when_it_was_known():
    # At 25 the impression of 10 is 15 s old, three horizons; what came of it, known at 20, is 5 s old.
    found = answer_to([Event(10, 1, 10.0, completed=True)], 25)
    assert found["shown.5s"] == pytest.approx(0.125)
    assert found["shown.all"] == 1.0
    # ever (1 + 0) / 11; over 40 s w = 2^-(1/8): (w + 10/11) / (w + 10); over 5 s (1/2 + 10 that) / 10.5.
    middle = (0.5**0.125 + 10 / 11) / (0.5**0.125 + 10)
    shares = [found[f"completed_share.{name}"] for name in ("all", "40s", "5s")]
    assert shares == pytest.approx([1 / 11, middle, (0.5 + 10 * middle) / 10.5])
    assert (found["seconds_since_shown"], found["seconds_since_completed"]) == (15.0, 5.0)


def test_without_events_every_mean_is_the_prior_and_nothing_has_a_time():
    found = answer_to([], 10, prior=(0.5, 0.25, 30.0, 3.0, 0.0, 0.0, 0.0))
    assert [found[f"watch_seconds.{name}"] for name in ("5s", "40s", "all")] == [30.0, 30.0, 30.0]
    assert [found[f"completed_share.{name}"] for name in ("5s", "40s", "all")] == [0.5, 0.5, 0.5]
    assert math.isnan(found["seconds_since_shown"]) and math.isnan(found["seconds_since_completed"])


def test_what_happens_in_the_same_second_is_not_seen():
    events = [Event(10, 1, 0.0, True, True), Event(10, 1)]
    assert answer_to(events, 10)["shown.all"] == 0.0
    assert answer_to(events, 11)["shown.all"] == 2.0
    # Of watching no second the outcome is known in the same one.
    assert [answer_to(events, moment)["clicked_share.all"] > 0 for moment in (10, 11)] == [False, True]


def test_an_outcome_is_seen_the_second_after_the_watch_has_ended():
    watched = [Event(10, 1, 30.9, completed=True)]
    assert [answer_to(watched, moment)["completed_share.all"] > 0 for moment in (11, 40, 41)] == [False, False, True]
    assert answer_to(watched, 40)["shown.all"] == 1.0


def test_an_unknown_watch_time_is_no_watch_of_no_seconds():
    found = answer_to([Event(10, 1, completed=True)], 20, prior=(0.0, 0.0, 44.0, 4.0, 0.0, 0.0, 0.0))
    assert found["watch_seconds.all"] == 44.0 and found["log_watch_seconds.all"] == 4.0
    assert found["completed_share.all"] == pytest.approx(1 / 11)


def test_how_often_is_told_as_a_share_of_all_that_was_shown():
    events, means = [Event(10, 1), Event(25, 1), Event(25, 1)], (0.0, 0.0, 0.0, 0.0)
    # At 30 they are 20 s and 5 s old: 1/16 + 2/2 over 5 s, and 3 ever; of everything there were 8, 16 and 30.
    found = answer_to(events, 30, prior=(*means, 8.0, 16.0, 30.0))
    assert [found["shown.5s"], found["shown.all"]] == pytest.approx([1.0625 / 8, 0.1])
    assert found["shown.40s"] == pytest.approx((0.5**0.5 + 2 * 0.5**0.125) / 16)


def test_videos_with_a_key_in_common_learn_from_one_another():
    keys = ((0, 0), (1, 2), (2, 3), (3, 0), (4, 0))
    events = [Event(10, 1), Event(20, 2)]
    # Video 1 shares key 2 with the other and key 1 with itself; 3 shares one key with video 2; 4 shares none.
    assert [answer_to(events, 30, video, keys)["shown.all"] for video in range(5)] == [0.0, 3.0, 3.0, 1.0, 0.0]
    assert [answer_to(events, 30, video, keys)["seconds_since_shown"] for video in (1, 2, 3)] == [10.0, 10.0, 10.0]


def test_reading_a_part_of_the_users_writes_that_part_only():
    keys = np.array([[0, 0], [1, 2], [2, 3]])
    events = [Event(10, 1, 4.0, True), Event(12, 2, 1.0), Event(15, 1)]
    counters, _ = replayed(events, keys, [])
    moments, candidates = np.array([20, 21, 22]), np.array([[1, 2], [2, 0], [0, 1]])
    priors = np.random.default_rng(0).random((3, len(NOTHING)))

    def read(begin, end):
        out = np.full((3, 2, len(NAMES)), -1.0, dtype=np.float32)
        arguments = (*vars(counters).values(), RATES, keys, moments, candidates, priors, out)
        read_records(*arguments, begin, end)
        return out

    whole = read(0, 3)
    assert not (whole == -1.0).any()
    assert_array_equal(read(1, 2)[1], whole[1])
    assert (read(1, 2)[[0, 2]] == -1.0).all()
    for user, place in np.ndindex(candidates.shape):
        expected = oracle(events, keys, moments[user], candidates[user, place], priors[user])
        assert_allclose(whole[user, place], [expected[name] for name in NAMES], rtol=3e-6)
