import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchnext.serving.diversity import diverse

CHANNELS = np.array([7, 7, 7, 8, 8, 0, 0])


def oracle(groups: list[tuple[list[int], int]], k: int) -> list[int]:
    """Takes places in order while every limit allows, then fills up in order."""
    count = len(groups[0][0])
    taken: list[int] = []
    for place in range(count):
        allowed = all(
            not limit or not of[place] or sum(of[one] == of[place] for one in taken) < limit for of, limit in groups
        )
        if allowed and len(taken) < k:
            taken.append(place)
    rest = [place for place in range(count) if place not in taken]
    return sorted(taken + rest[: max(0, k - len(taken))])


@pytest.mark.parametrize(
    ("limit", "k", "places"),
    [
        (0, 4, [0, 1, 2, 3]),
        (1, 3, [0, 3, 5]),
        (2, 4, [0, 1, 3, 4]),
        (1, 4, [0, 3, 5, 6]),  # of no channel there may be any number
        (1, 5, [0, 1, 3, 5, 6]),  # the best that was left out fills up
        (1, 99, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_no_channel_has_more_than_its_limit_unless_k_wants_them(limit, k, places):
    assert diverse([(CHANNELS, limit)], k).tolist() == places


def test_every_limit_counts():
    topics = np.array([1, 2, 3, 1, 2, 3, 4])
    assert diverse([(CHANNELS, 2), (topics, 1)], 3).tolist() == [0, 1, 5]
    assert diverse([(CHANNELS, 0), (topics, 1)], 3).tolist() == [0, 1, 2]
    # Place 2 is a third of channel 7: it takes nothing of topic 3.
    assert diverse([(CHANNELS, 2), (topics, 1)], 4).tolist() == [0, 1, 5, 6]


def test_an_empty_list_stays_empty():
    assert diverse([(CHANNELS[:0], 1)], 3).tolist() == []
    assert diverse([(CHANNELS[:0], 0)], 3).tolist() == []


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=15),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(1, 20),
)
def test_pages_are_those_of_taking_one_by_one(ranked, of_channel, of_topic, k):
    channels, topics = [one for one, _ in ranked], [one for _, one in ranked]
    found = diverse([(np.array(channels, dtype=int), of_channel), (np.array(topics, dtype=int), of_topic)], k)
    assert found.tolist() == oracle([(channels, of_channel), (topics, of_topic)], k)
    assert len(found) == min(k, len(ranked))
