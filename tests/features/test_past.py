"""What a user did before, against loops over the user's events."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from watchnext.features.counters import QUANTITIES, halvings_a_second
from watchnext.features.past import pair_names, read_pasts, user_names

HORIZONS = {"5s": 5.0, "40s": 40.0, "all": math.inf}
RATES = halvings_a_second((5.0, 40.0))
KINDS = {"video": slice(0, 1), "channel": slice(1, 2), "tags": slice(2, 4), "language": slice(4, 5)}
WIDTHS = np.array([1, 1, 2, 1])
USER_NAMES = user_names(tuple(HORIZONS))
PAIR_NAMES = [name for kind in KINDS for name in pair_names(kind, tuple(HORIZONS))]
NOTHING = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Event:
    moment: int
    video: int
    seconds: float = math.nan
    completed: bool = False
    clicked: bool = False


@dataclass(frozen=True)
class World:
    """The keys of each video (itself, a channel, two tags, a language), and how many of its outcomes were completed."""

    keys: np.ndarray
    known: np.ndarray
    completed: np.ndarray
    settled_after: float = 0.0

    @classmethod
    def of(cls, *others, outcomes=None, settled_after=0.0):
        """From the channel, the tags and the language of each video, and from (completed, known) of each."""
        keys = np.column_stack([np.arange(len(others)), np.array(others, dtype=np.int32)])
        completed, known = np.array(outcomes or [(0, 0)] * len(others)).T
        return cls(keys, known, completed, settled_after)


def settled_of(events, moment, world):
    """Those whose outcome is known, and old enough to count."""
    ages = [moment - event.moment for event in events]
    return [
        event
        for event, age in zip(events, ages, strict=True)
        if age >= world.settled_after and (math.isnan(event.seconds) or age > event.seconds)
    ]


def lean(values, prior, weights=None):
    """A mean as if there were five more values, each of them what is to be expected."""
    weights = [1.0] * len(values) if weights is None else weights
    return (sum(weight * value for weight, value in zip(weights, values, strict=True)) + 5 * prior) / (sum(weights) + 5)


def user_oracle(events, moment, world, prior):
    settled = settled_of(events, moment, world)
    timed = [event for event in settled if not math.isnan(event.seconds)]
    share, log_mean, answer = prior[0], prior[3], {}
    for name, horizon in reversed(HORIZONS.items()):

        def halves(some, horizon=horizon):
            return [0.5 ** ((moment - event.moment) / horizon) for event in some]

        share = lean([event.completed for event in settled], share, halves(settled))
        log_mean = lean([math.log(1.0 + event.seconds) for event in timed], log_mean, halves(timed))
        answer[f"user.shown.{name}"] = sum(halves(events))
        answer[f"user.completed_share.{name}"], answer[f"user.log_watch_seconds.{name}"] = share, log_mean
    channels = {world.keys[event.video, 1] for event in events} - {0}
    return answer | {
        "user.watch_seconds": lean([event.seconds for event in timed], prior[2]),
        "user.longest_watch_seconds": max((event.seconds for event in timed), default=math.nan),
        "user.clicked_share": lean([event.clicked for event in settled], prior[1]),
        "user.completed_residual": lean([residual(event, world, prior) for event in settled], 0.0),
        "user.events": len(events),
        "user.outcomes": len(settled),
        "user.seconds_since_shown": since(events, moment),
        "user.seconds_since_completed": since([event for event in settled if event.completed], moment),
        "user.channels_share": len(channels) / len(events) if events else math.nan,
    }


def pair_oracle(kind, candidate, events, moment, world, user):
    """An event counts once for every pair of equal keys of this kind, its own and the candidate's."""
    shared = [
        event
        for event in events
        for own in world.keys[event.video, KINDS[kind]]
        for asked in world.keys[candidate, KINDS[kind]]
        if own == asked and own > 0
    ]
    settled = settled_of(shared, moment, world)
    timed = [event for event in settled if not math.isnan(event.seconds)]
    failed = [event for event in settled if not event.completed]
    values = {
        **{
            f"shown.{name}": sum(0.5 ** ((moment - event.moment) / horizon) for event in shared)
            for name, horizon in HORIZONS.items()
        },
        "completed_share": lean([event.completed for event in settled], user["user.completed_share.all"]),
        "log_watch_seconds": lean(
            [math.log(1.0 + event.seconds) for event in timed], user["user.log_watch_seconds.all"]
        ),
        "completed_residual": lean(
            [residual(event, world, user["prior"]) for event in settled], user["user.completed_residual"]
        ),
        "unsuccessful": len(failed),
        "seconds_since_shown": since(shared, moment),
        "seconds_since_completed": since([event for event in settled if event.completed], moment),
        "seconds_since_unsuccessful": since(failed, moment),
    }
    return {f"user_{kind}.{name}": value for name, value in values.items()}


def residual(event, world, prior):
    """How much more was completed than is usual of this video."""
    return event.completed - (world.completed[event.video] + 5 * prior[0]) / (world.known[event.video] + 5)


def since(events, moment):
    return moment - max((event.moment for event in events), default=math.nan)


def oracle(events, moment, candidates, world, prior, history_length=1_000):
    """What is written of the user, and of each candidate."""
    events = sorted((event for event in events if event.moment < moment), key=lambda event: event.moment)
    events = events[-history_length:]
    user = user_oracle(events, moment, world, prior)
    pairs = [
        {
            name: value
            for kind in KINDS
            for name, value in pair_oracle(kind, candidate, events, moment, world, user | {"prior": prior}).items()
        }
        for candidate in candidates
    ]
    return user, pairs


def as_arrays(people, asked, candidates, world, priors, history_length=1_000):
    """Answers for users, each with its events and asked at a moment of its own, as two arrays."""
    people = [sorted(events, key=lambda event: event.moment) for events in people]
    offsets = np.concatenate([[0], np.cumsum([len(events) for events in people], dtype=np.int64)])
    earlier = [sum(event.moment < moment for event in events) for events, moment in zip(people, asked, strict=True)]
    ends = offsets[:-1] + earlier
    columns = (
        ("video", np.int32),
        ("moment", np.int64),
        ("seconds", np.float32),
        ("clicked", bool),
        ("completed", bool),
    )
    everything = [event for events in people for event in events]
    sums = np.random.default_rng(0).random((len(world.keys), 3, len(QUANTITIES)))
    sums[:, -1, QUANTITIES.index("known")] = world.known
    sums[:, -1, QUANTITIES.index("completed")] = world.completed
    of_user = np.full((len(people), len(USER_NAMES)), -1.0, dtype=np.float32)
    of_pairs = np.full((len(people), candidates.shape[1], len(PAIR_NAMES)), -1.0, dtype=np.float32)
    read_pasts(
        *(np.array([getattr(event, name) for event in everything], dtype=kind) for name, kind in columns),
        np.maximum(ends - history_length, offsets[:-1]),
        ends,
        np.array(asked),
        world.settled_after,
        RATES,
        candidates,
        world.keys,
        WIDTHS,
        sums,
        np.array(priors),
        of_user,
        of_pairs,
        0,
        len(people),
    )
    return of_user, of_pairs


def answer(events, moment, candidates, world, prior=NOTHING, history_length=1_000):
    """One user's answers by name: of the user, and of each candidate."""
    of_user, of_pairs = as_arrays([events], [moment], np.array([candidates]), world, [prior], history_length)
    named = [dict(zip(PAIR_NAMES, line, strict=True)) for line in of_pairs[0].tolist()]
    return dict(zip(USER_NAMES, of_user[0].tolist(), strict=True)), named


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_allclose(found[name], value, rtol=5e-6, atol=1e-6, err_msg=name)


EVENTS = st.lists(
    st.builds(
        Event,
        moment=st.integers(1, 60),
        video=st.integers(0, 5),
        seconds=st.sampled_from([math.nan, 0.0, 0.5, 3.0, 20.75]),
        completed=st.booleans(),
        clicked=st.booleans(),
    ),
    max_size=15,
)
KEYS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)), min_size=6, max_size=6
)
OUTCOMES = st.lists(st.tuples(st.integers(0, 9), st.integers(9, 20)), min_size=6, max_size=6)
WORLDS = st.builds(
    lambda keys, outcomes, after: World.of(*keys, outcomes=outcomes, settled_after=after),
    KEYS,
    OUTCOMES,
    st.sampled_from([0.0, 1.0, 7.5, 30.0]),
)
PRIOR = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 100), st.floats(0, 5))
CANDIDATES = st.lists(st.integers(0, 5), min_size=1, max_size=6)


def test_every_column_has_a_name_of_its_own():
    names = [*USER_NAMES, *PAIR_NAMES]
    assert len(set(names)) == len(names)
    of_user, of_pairs = as_arrays([[]], [10], np.array([[0]]), World.of((0, 0, 0, 0)), [NOTHING])
    assert not (of_user == -1.0).any() and not (of_pairs == -1.0).any()


@given(EVENTS, st.integers(0, 90), CANDIDATES, WORLDS, PRIOR, st.sampled_from([1, 3, 100]))
@settings(max_examples=300)
def test_a_past_equals_loops_over_the_users_events(events, moment, candidates, world, prior, history_length):
    user, pairs = answer(events, moment, candidates, world, prior, history_length)
    expected_user, expected_pairs = oracle(events, moment, candidates, world, prior, history_length)
    assert_same(user, expected_user)
    for found, expected in zip(pairs, expected_pairs, strict=True):
        assert_same(found, expected)


@given(st.lists(EVENTS, min_size=1, max_size=4), WORLDS, st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_users_do_not_mix_and_a_candidate_alone_has_the_same_bytes(people, world, random):
    asked = [random.randrange(90) for _ in people]
    candidates = np.array([[random.randrange(6) for _ in range(5)] for _ in people])
    priors = [[random.random() for _ in range(4)] for _ in people]
    of_user, of_pairs = as_arrays(people, asked, candidates, world, priors, 10)
    for user, place in np.ndindex(candidates.shape):
        one = slice(user, user + 1)
        alone = as_arrays(people[one], asked[one], candidates[one, place : place + 1], world, priors[one], 10)
        assert alone[0].tobytes() == of_user[user].tobytes()
        assert alone[1].tobytes() == of_pairs[user, place].tobytes()


def test_many_candidates_share_a_table_without_being_taken_for_one_another():
    """Thousands of keys, up to the largest there is: in the table of their hashes many find their place taken."""
    random = np.random.default_rng(1)
    channels = random.choice([1, 2, 3, 2**20, 2**31 - 1, 77_777], 700)
    tags = random.choice(np.concatenate([random.integers(1, 2**31 - 1, 900), [0] * 90, np.arange(1, 700)]), (700, 2))
    languages = random.integers(0, 3, 700)
    world = World.of(*np.column_stack([channels, tags, languages]).tolist(), outcomes=[(1, 3)] * 700)
    events = [
        Event(int(moment), int(video), 2.0, bool(random.random() < 0.5))
        for moment, video in zip(random.integers(1, 500, 60), random.integers(0, 700, 60), strict=True)
    ]
    candidates = [*range(700), *(event.video for event in events)]
    user, pairs = answer(events, 510, candidates, world)
    expected_user, expected_pairs = oracle(events, 510, candidates, world, NOTHING)
    assert_same(user, expected_user)
    for found, expected in zip(pairs, expected_pairs, strict=True):
        assert found.keys() == expected.keys()
        assert_allclose([*found.values()], [*expected.values()], rtol=5e-6, atol=1e-6)


def test_a_user_without_a_past_has_what_is_to_be_expected():
    user, pairs = answer([], 100, [1], World.of((0, 0, 0, 0), (1, 1, 0, 0)), (0.5, 0.25, 30.0, 3.0))
    named = [user[f"user.{name}"] for name in ("completed_share.5s", "clicked_share", "watch_seconds", "events")]
    assert named == [0.5, 0.25, 30.0, 0.0]
    assert user["user.completed_residual"] == 0.0
    assert math.isnan(user["user.channels_share"]) and math.isnan(user["user.longest_watch_seconds"])
    assert (pairs[0]["user_tags.completed_share"], pairs[0]["user_tags.log_watch_seconds"]) == (0.5, 3.0)
    assert math.isnan(pairs[0]["user_video.seconds_since_shown"])


def test_a_past_worked_by_hand():
    # Video 1: usually 3 of 5 completed, with a prior of 1/2: (3 + 2.5) / 10 = 0.55. Video 2: nothing known, 1/2.
    world = World.of((0, 0, 0, 0), (7, 1, 2, 0), (7, 2, 0, 0), outcomes=[(0, 0), (3, 5), (0, 0)])
    events = [Event(50, 1, 30.0, completed=True), Event(60, 2, 4.0, clicked=True)]
    user, (of_video, of_both) = answer(events, 100, [1, 2], world, (0.5, 0.0, 0.0, 0.0))
    assert user["user.completed_residual"] == pytest.approx((0.45 - 0.5) / 7)
    assert user["user.completed_share.all"] == 0.5  # (1 + 2.5) / 7
    assert user["user.watch_seconds"] == pytest.approx(34 / 7)
    assert (user["user.longest_watch_seconds"], user["user.channels_share"]) == (30.0, 0.5)
    assert of_video["user_video.completed_share"] == pytest.approx((1 + 2.5) / 6)
    assert of_video["user_video.completed_residual"] == pytest.approx((0.45 - 5 * 0.05 / 7) / 6)
    assert of_video["user_tags.shown.all"] == 3.0  # tags 1 and 2 of the first, tag 2 of the second
    assert of_video["user_channel.seconds_since_shown"] == 40.0
    assert of_video["user_channel.seconds_since_completed"] == 50.0
    assert of_both["user_video.unsuccessful"] == 1.0
    assert of_both["user_video.seconds_since_unsuccessful"] == 40.0
    assert math.isnan(of_video["user_video.seconds_since_unsuccessful"])


def test_the_same_number_is_another_key_in_another_kind():
    world = World.of((0, 0, 0, 0), (3, 2, 2, 4), (1, 4, 3, 2))
    _, (pair,) = answer([Event(10, 1)], 20, [2], world)
    assert [pair[f"user_{kind}.shown.all"] for kind in KINDS] == [0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("age", "seconds", "settled_after", "expected"),
    [
        (9, math.nan, 10.0, 0.0),
        (10, math.nan, 10.0, 1.0),
        (10, 9.5, 10.0, 1.0),
        (10, 10.0, 10.0, 0.0),  # whoever watched for ten seconds may still be watching
        (11, 10.5, 10.0, 1.0),
        (11, 11.0, 0.0, 0.0),
        (1, 0.0, 0.0, 1.0),
    ],
)
def test_an_outcome_counts_once_it_is_old_enough_and_the_watch_has_ended(age, seconds, settled_after, expected):
    world = World.of((0, 0, 0, 0), (1, 0, 0, 0), settled_after=settled_after)
    user, _ = answer([Event(100, 1, seconds, completed=True)], 100 + age, [1], world)
    assert (user["user.outcomes"], user["user.events"]) == (expected, 1.0)
    assert (user["user.completed_share.all"] > 0) == bool(expected)


def test_what_happened_at_the_moment_is_no_past():
    user, (pair,) = answer(
        [Event(10, 1, 0.0, True), Event(20, 1, 0.0, True)], 20, [1], World.of((0, 0, 0, 0), (1, 0, 0, 0))
    )
    assert (user["user.events"], pair["user_video.shown.all"], user["user.seconds_since_shown"]) == (1.0, 1.0, 10.0)


def test_a_part_of_the_users_is_written_alone():
    world = World.of((0, 0, 0, 0), (1, 1, 0, 0))
    events, size = [Event(5, 1)], (3, len(USER_NAMES))
    of_user, of_pairs = np.full(size, -1.0, np.float32), np.full((3, 1, len(PAIR_NAMES)), -1.0, np.float32)
    line = [np.array([getattr(event, name) for event in events]) for name in ("video", "moment", "seconds")]
    flags, ends = np.array([False]), np.ones(3, dtype=np.int64)
    sums = np.zeros((2, 3, len(QUANTITIES)))
    read_pasts(
        *line, flags, flags, ends - 1, ends, np.full(3, 9), 0.0, RATES, np.ones((3, 1), int), world.keys, WIDTHS, sums,
        np.zeros((3, 4)), of_user, of_pairs, 1, 2,
    )  # fmt: skip
    assert_array_equal((of_user == -1.0).all(axis=1), [True, False, True])
    assert_array_equal((of_pairs == -1.0).all(axis=(1, 2)), [True, False, True])
