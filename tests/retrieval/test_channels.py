import dataclasses
from collections import Counter

import numpy as np
import pytest

from watchnext.retrieval.candidates import CandidateSource
from watchnext.retrieval.channels import WatchedChannels

# Row: channel, completed watches. Row 7 is of no channel.
VIDEOS = {1: (1, 5), 2: (1, 9), 3: (2, 1), 4: (2, 8), 5: (2, 3), 6: (3, 7), 7: (0, 99)}


@pytest.fixture
def channels_of(videos):
    """Fits on a catalogue of the given rows, each with its channel and its completed watches."""

    def fitted(known: dict[int, tuple[int, int]]) -> WatchedChannels:
        table = {name: column[[0] * (len(known) + 1)] for name, column in vars(videos).items()}
        channel_row = np.array([0, *(channel for channel, _ in known.values())], dtype=np.int32)
        num_completed = np.array([0, *(count for _, count in known.values())])
        return WatchedChannels.fit(
            dataclasses.replace(videos, **table | {"channel_row": channel_row, "num_completed": num_completed})
        )

    return fitted


@pytest.fixture
def nominated(make_context):
    def lists(channels: WatchedChannels, watched: list[list[int]], k: int) -> tuple[list, list]:
        rows, scores = channels.nominate(make_context(watched=watched), k)
        return rows.tolist(), scores.tolist()

    return lists


def oracle(known: dict[int, tuple[int, int]], watched: list[int], k: int) -> list[tuple[int, int]]:
    """Rows and scores, dealt out channel by channel."""
    counts = Counter(known[row][0] for row in watched if row and known[row][0])
    favourites = sorted(counts, key=lambda channel: (-counts[channel], channel))[:10]
    piles = [
        sorted((row for row in known if known[row][0] == channel), key=lambda row: (-known[row][1], row))[:50]
        for channel in favourites
    ]
    dealt = [
        (pile[turn], counts[channel])
        for turn in range(50)
        for channel, pile in zip(favourites, piles, strict=True)
        if turn < len(pile)
    ]
    return (dealt + [(0, 0)] * k)[:k]


def test_channels_take_turns_the_most_watched_first(channels_of, nominated):
    # Channel 2 was watched twice, channel 1 once: its best, the other's best, its second, and so on.
    rows, scores = nominated(channels_of(VIDEOS), [[3, 5, 1]], 6)
    assert rows == [[4, 2, 5, 1, 3, 0]]
    assert scores == [[2, 1, 2, 1, 2, 0]]


def test_who_watched_nothing_or_only_videos_of_no_channel_gets_nothing(channels_of, nominated):
    rows, scores = nominated(channels_of(VIDEOS), [[], [7], [6]], 2)
    assert rows == [[0, 0], [0, 0], [6, 0]]
    assert scores == [[0, 0], [0, 0], [1, 0]]


def test_of_channels_watched_as_often_the_smaller_row_is_first(channels_of, nominated):
    assert nominated(channels_of(VIDEOS), [[6, 1]], 2)[0] == [[2, 6]]


@pytest.mark.parametrize("known", [{}, {1: (0, 3)}])
def test_a_catalogue_without_channels_nominates_nobody(channels_of, nominated, known):
    assert nominated(channels_of(known), [list(known)], 2)[0] == [[0, 0]]


def test_a_channel_is_listed_with_its_best_fifty(channels_of, nominated):
    known = {row: (1, row) for row in range(1, 61)}
    rows, _ = nominated(channels_of(known), [[3]], 60)
    assert rows == [[*range(60, 10, -1), *[0] * 10]]


def test_only_the_ten_most_watched_channels_count(channels_of, nominated):
    known = {row: (row, 1) for row in range(1, 13)}
    rows, _ = nominated(channels_of(known), [[*range(1, 13), 12, 12, 11]], 12)
    assert rows == [[12, 11, *range(1, 9), 0, 0]]


@pytest.mark.parametrize("k", [1, 7, 80])
def test_lists_are_those_of_dealing_out_by_hand(channels_of, nominated, k):
    random = np.random.default_rng(k)
    known = {row: (int(random.integers(0, 14)), int(random.integers(0, 5))) for row in range(1, 200)}
    channels = channels_of(known)
    for length in (1, 5, 50):
        watched = random.integers(0, 200, length).tolist()
        rows, scores = nominated(channels, [watched], k)
        assert list(zip(rows[0], scores[0], strict=True)) == oracle(known, watched, k)


def with_uploads(channels, *row_and_channel):
    rows, of_channels = np.array(row_and_channel).T
    return channels.with_uploads(rows, of_channels)


def test_uploads_since_come_first_and_leave_the_turns_of_the_others_alone(channels_of, nominated):
    channels = channels_of(VIDEOS)
    later = with_uploads(with_uploads(channels, (8, 1)), (9, 1))
    assert nominated(later, [[1, 2, 6]], 6)[0] == [[9, 8, 2, 6, 1, 0]]
    assert nominated(channels, [[1, 2, 6]], 6)[0] == [[2, 6, 1, 0, 0, 0]]


def test_three_uploads_of_a_channel_are_enough(channels_of, nominated):
    channels = channels_of(VIDEOS)
    channels = with_uploads(channels, *((row, 3) for row in range(8, 13)))
    assert nominated(channels, [[6]], 5)[0] == [[12, 11, 10, 6, 0]]


def test_an_upload_of_an_unknown_channel_is_nominated_to_nobody(channels_of, nominated):
    channels = channels_of(VIDEOS)
    assert with_uploads(channels, (8, 0)).since == channels.since == {}


def test_an_opened_source_nominates_the_same_without_what_came_since(channels_of, nominated, tmp_path):
    channels = channels_of(VIDEOS)
    with_uploads(channels, (8, 1)).save(tmp_path)
    watched = [[3, 5, 1], [6], []]
    assert nominated(WatchedChannels.open(tmp_path), watched, 9) == nominated(channels, watched, 9)


def test_it_is_a_candidate_source(channels_of):
    channels = channels_of(VIDEOS)
    assert isinstance(channels, CandidateSource)
    assert channels.name == "channels"
