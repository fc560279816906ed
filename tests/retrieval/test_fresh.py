import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchnext.retrieval.candidates import CandidateSource
from watchnext.retrieval.fresh import FreshUploads

HOUR, DAY = 3_600, 86_400


@pytest.fixture
def fresh_of(videos):
    """Fits on a catalogue whose row 1 was uploaded at the first of the given moments, and so on; 0 is unknown."""

    def fitted(uploaded_at: list[int]) -> FreshUploads:
        table = {name: column[: len(uploaded_at) + 1] for name, column in vars(videos).items()}
        times = np.array([0, *uploaded_at], dtype=np.int64)
        return FreshUploads.fit(dataclasses.replace(videos, **table | {"uploaded_at": times}))

    return fitted


@pytest.fixture
def lists_at(make_context):
    def nominated(fresh: FreshUploads, moments: list[int], k: int) -> tuple[list, list]:
        rows, scores = fresh.nominate(make_context(watched=[[]] * len(moments), moment=moments), k)
        return rows.tolist(), scores.tolist()

    return nominated


def oracle(uploaded_at: dict[int, int], moment: int, k: int) -> list[int]:
    """Every video of the last seven days, one by one."""
    new = [(at, row) for row, at in uploaded_at.items() if 0 < at <= moment <= at + 7 * DAY]
    rows = [row for _, row in sorted(new, reverse=True)][:k]
    return rows + [0] * (k - len(rows))


def test_the_newest_come_first_with_minus_their_age_in_days(fresh_of, lists_at):
    rows, scores = lists_at(fresh_of([10 * DAY, 12 * DAY, 11 * DAY]), [12 * DAY + 12 * HOUR], 4)
    assert rows == [[2, 3, 1, 0]]
    assert scores == [[-0.5, -1.5, -2.5, 0.0]]


def test_nothing_that_was_uploaded_after_the_moment_comes(fresh_of, lists_at):
    fresh = fresh_of([10 * DAY, 11 * DAY])
    assert lists_at(fresh, [10 * DAY - 1, 10 * DAY, 11 * DAY - 1, 11 * DAY], 2)[0] == [[0, 0], [1, 0], [1, 0], [2, 1]]


def test_after_seven_days_a_video_is_no_longer_new(fresh_of, lists_at):
    assert lists_at(fresh_of([10 * DAY]), [17 * DAY, 17 * DAY + 1], 1)[0] == [[1], [0]]


def test_a_video_of_unknown_upload_is_not_new(fresh_of, lists_at):
    assert lists_at(fresh_of([0, 5]), [10], 3)[0] == [[2, 0, 0]]


@pytest.mark.parametrize("uploaded_at", [[], [0, 0]])
def test_an_empty_catalogue_has_nothing_new(fresh_of, lists_at, uploaded_at):
    rows, scores = lists_at(fresh_of(uploaded_at), [0, 10], 2)
    assert rows == [[0, 0], [0, 0]] and scores == [[0.0, 0.0], [0.0, 0.0]]


def test_an_upload_since_is_new_at_once_and_the_one_before_it_knows_nothing_of_it(fresh_of, lists_at):
    fresh = fresh_of([10 * DAY, 12 * DAY])
    later = fresh.with_uploads(np.array([3, 4]), np.array([13, 11]) * DAY)
    assert lists_at(later, [13 * DAY, 13 * DAY - 1], 5)[0] == [[3, 2, 4, 1, 0], [2, 4, 1, 0, 0]]
    assert lists_at(fresh, [13 * DAY], 5)[0] == [[2, 1, 0, 0, 0]]


def test_an_upload_is_new_beside_a_catalogue_of_unknown_uploads(fresh_of, lists_at):
    rows, scores = lists_at(fresh_of([0]).with_uploads(np.array([2]), np.array([DAY])), [2 * DAY], 2)
    assert rows == [[2, 0]] and scores == [[-1.0, 0.0]]


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 30), max_size=10),
    st.lists(st.integers(1, 30), max_size=5),
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.integers(1, 20),
)
def test_lists_are_those_of_looking_at_every_video(make_context, known, since, moments, k):
    uploaded_at = {row + 1: DAY * day for row, day in enumerate(known + since)}
    rows = np.array([row for row, at in uploaded_at.items() if at and row <= len(known)], dtype=np.int32)
    times = np.array([uploaded_at[row] for row in rows.tolist()], dtype=np.int64)
    order = np.argsort(times, kind="stable")
    fresh = FreshUploads(times[order], rows[order])
    for part in (since[:2], since[2:]):
        first = max(fresh.since.rows, default=len(known)) + 1 if fresh.since else len(known) + 1
        fresh = fresh.with_uploads(first + np.arange(len(part)), np.array(part, dtype=np.int64) * DAY)
    days = np.array(moments) * DAY
    found, _ = fresh.nominate(make_context(watched=[[]] * len(moments), moment=days), k)
    assert found.tolist() == [oracle(uploaded_at, moment * DAY, k) for moment in moments]


def test_an_opened_source_nominates_the_same(fresh_of, lists_at, tmp_path):
    fresh = fresh_of([10 * DAY, 12 * DAY, 0])
    fresh.save(tmp_path)
    for k in (1, 5):
        assert lists_at(FreshUploads.open(tmp_path), [12 * DAY, 18 * DAY], k) == lists_at(
            fresh, [12 * DAY, 18 * DAY], k
        )


def test_it_is_a_candidate_source(fresh_of):
    fresh = fresh_of([1])
    assert isinstance(fresh, CandidateSource)
    assert fresh.name == "fresh"
