"""Windows against what they stand for: each example with its own past."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from watchnext.events.dataset import Segments
from watchnext.examples.contexts import context_as_of
from watchnext.examples.windows import windows_of

# For each user the times of the events, and the moments of the examples: any, also before the first event.
USERS = st.lists(
    st.tuples(st.lists(st.integers(0, 12), max_size=14).map(sorted), st.lists(st.integers(0, 14), max_size=8)),
    min_size=1,
    max_size=4,
)
LENGTHS = st.integers(1, 7)


def segments_of(users):
    offsets = np.cumsum([0, *(len(times) for times, _ in users)])
    return Segments(offsets, np.array([time for times, _ in users for time in times], dtype=np.int64))


def examples_of(users):
    """User and moment of each example, those of the users in turns, so that their order is not the users'."""
    pairs = [(nth, user, moment) for user, (_, moments) in enumerate(users) for nth, moment in enumerate(moments)]
    pairs.sort()
    return (
        np.array([user for _, user, _ in pairs], dtype=np.int64),
        np.array([moment for *_, moment in pairs], dtype=np.int64),
    )


def past_of(users, user, moment):
    """Places of all events of a user strictly before the moment, newest first."""
    start = sum(len(times) for times, _ in users[:user])
    return [start + place for place, time in enumerate(users[user][0]) if time < moment][::-1]


def visible(windows, window, hidden):
    """Places that an example sees: the window's newest first, without the hidden ones."""
    return [windows.end[window] - 1 - place for place in range(hidden, windows.length)]


@settings(max_examples=150)
@given(USERS, LENGTHS)
@example([([0] * 14, [0, 1])], 4)  # all in one second
@example([(list(range(13)), [0, 0, 13]), ([], [5])], 3)  # no past, beside a long one
@example([(list(range(12)), list(range(13)))], 6)
@example([(list(range(6)), list(range(7)))], 6)  # just not too long
@example([(list(range(7)), list(range(8)))], 6)  # just too long
def test_every_example_is_in_one_window_and_sees_its_newest_past(users, length):
    owner, moments = examples_of(users)
    windows = windows_of(segments_of(users), owner, moments, length)
    assert sorted(windows.members.tolist()) == list(range(len(owner)))
    assert windows.offsets[0] == 0 and windows.offsets[-1] == len(owner)
    assert (np.diff(windows.offsets) > 0).all() and len(windows.offsets) == len(windows) + 1
    for window in range(len(windows)):
        user = windows.user_row[window]
        begins = sum(len(times) for times, _ in users[:user])
        assert windows.end[window] == begins + len(past_of(users, user, windows.moment[window]))
        for member in range(windows.offsets[window], windows.offsets[window + 1]):
            place = windows.members[member]
            assert owner[place] == user
            past = past_of(users, user, moments[place])
            seen = [row for row in visible(windows, window, windows.hidden[member]) if row >= begins]
            assert seen == past[: len(seen)]
            assert 2 * len(seen) >= length or seen == past


@settings(max_examples=100)
@given(USERS, LENGTHS)
@example([(list(range(6)), list(range(7)))], 6)
def test_a_user_whose_past_fits_has_one_window_and_a_longer_one_few(users, length):
    owner, moments = examples_of(users)
    windows = windows_of(segments_of(users), owner, moments, length)
    for user in set(owner.tolist()):
        longest = max(len(past_of(users, user, moment)) for moment in moments[owner == user])
        most = 1 if longest <= length else 1 + longest // max(length // 2, 1)
        assert (windows.user_row == user).sum() <= most


def test_windows_worked_by_hand():
    # Ten events at 0, 1, … 9; examples as of 2, 5, 7, 8, 10 know 2, 5, 7, 8 and 10 of them. Windows of 4 move by 2:
    # 10 is in the newest, 7 and 8 in the next (7 sees all but the newest), 5 one further on, and 2 in the last.
    segments = Segments(np.array([0, 10]), np.arange(10))
    windows = windows_of(segments, np.zeros(5, dtype=np.int64), np.array([2, 5, 7, 8, 10]), 4)
    members = [windows.members[start:end].tolist() for start, end in zip(windows.offsets, windows.offsets[1:])]  # noqa: B905
    assert members == [[0], [1], [2, 3], [4]]
    assert windows.end.tolist() == windows.moment.tolist() == [2, 5, 8, 10]
    assert windows.hidden.tolist() == [0, 0, 1, 0, 0]


def test_no_examples_have_no_windows():
    none = np.zeros(0, dtype=np.int64)
    windows = windows_of(Segments(np.array([0, 3]), np.arange(3)), none, none, 4)
    assert (len(windows), windows.offsets.tolist()) == (0, [0])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("length", [1, 4, 50])
def test_a_batch_has_the_examples_and_the_histories_of_the_chosen_windows(records_of, random_log, seed, length):
    records = records_of(*random_log(seed))
    random = np.random.default_rng(seed)
    owner, moments = random.integers(1, 6, 40), random.integers(0, 42, 40)
    windows = windows_of(records.events.segments, owner, moments, length)
    chosen = random.permutation(len(windows))[: max(1, len(windows) - 2)]
    members, batch = windows.batch(records, chosen)
    expected = [windows.members[windows.offsets[one] : windows.offsets[one + 1]] for one in chosen]
    assert members.tolist() == np.concatenate(expected).tolist()
    assert batch.window.tolist() == [place for place, rows in enumerate(expected) for _ in rows]
    own = context_as_of(records, owner[members], moments[members], length, 1)
    for place, (window, hidden) in enumerate(zip(batch.window, batch.hidden, strict=True)):
        assert batch.history.user_row[window] == owner[members[place]]
        for column in ("video_row", "timestamp", "watch_seconds", "completed"):
            np.testing.assert_array_equal(
                getattr(batch.history, column)[window, hidden:], getattr(own, column)[place, : length - hidden]
            )


def test_no_chosen_windows_give_no_examples(records_of):
    windows = windows_of(Segments(np.array([0, 3]), np.arange(3)), np.array([0]), np.array([2]), 4)
    members, batch = windows.batch(records_of([]), np.zeros(0, dtype=np.int64))
    assert (len(members), len(batch.window), len(batch.history)) == (0, 0, 0)
