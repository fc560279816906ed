"""What every encoder of histories must do, and what each does alone."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from watchnext.config import RetrievalConfig
from watchnext.examples.contexts import UserContext
from watchnext.examples.windows import BatchWindows
from watchnext.layers.embedding import IN_MEMORY, tables_of
from watchnext.retrieval.history import ENCODERS, gap_buckets

LENGTH, DIM, NUM_VIDEOS = 6, 8, 40
CONFIG = RetrievalConfig(history_length=LENGTH, embedding_dim=DIM, tower=(DIM,), dropout=0.5)
KINDS = {
    "mean": {"history": "mean"},
    "mean and recent": {"history": "mean", "recent_watches": (1, 3)},
    "recent longer than the bag": {"history": "mean", "recent_watches": (9,)},
    "attention": {"history": "attention"},
    "transformer": {"history": "transformer"},
}


def encoder_of(kind, has_impressions=True, **changes):
    config = dataclasses.replace(CONFIG, **KINDS[kind], **changes)
    random = torch.Generator().manual_seed(0)
    encoder = ENCODERS[config.history](config, NUM_VIDEOS, has_impressions, random, IN_MEMORY)
    with torch.no_grad():
        # All that is learnt has some value, so that every input shows.
        for learnt in [*encoder.parameters(), *(table.weight[1:] for table in tables_of(encoder))]:
            learnt.add_(torch.randn(learnt.shape, generator=random) * 0.5)
    return encoder.eval()


@pytest.fixture(params=KINDS)
def encoder(request):
    return encoder_of(request.param)


def context_of(rows, times=None, completed=None, moment=100_000, width=None) -> UserContext:
    """Histories newest first; unless told otherwise, all completed, an event every hundred seconds."""
    width = max(len(row) for row in rows) if width is None else width
    times = [[90_000 - 100 * place for place in range(len(row))] for row in rows] if times is None else times
    completed = [[True] * len(row) for row in rows] if completed is None else completed
    watched = [
        [(video, time) for video, time, done in zip(*columns, strict=True) if done and video]
        for columns in zip(rows, times, completed, strict=True)
    ]

    def padded(lists, kind):
        return np.array([[*row, *[0] * (width - len(row))] for row in lists], dtype=kind).reshape(len(rows), width)

    batch = len(rows)
    return UserContext(
        user_row=np.arange(1, batch + 1),
        moment=np.full(batch, moment),
        video_row=padded(rows, np.int64),
        timestamp=padded(times, np.int64),
        watch_seconds=np.zeros((batch, width)),
        clicked=padded(completed, bool),
        completed=padded(completed, bool),
        watched_row=padded([[video for video, _ in part] for part in watched], np.int64),
        token_row=np.zeros((batch, 1), dtype=np.int64),
        categorical=np.zeros((batch, 0), dtype=np.int64),
        continuous=np.zeros((batch, 0)),
    )


ROWS = [[1, 2, 3], [4], [], [5, 6, 7, 8, 9, 10], [3, 1, 3]]


def vectors(encoder, *arguments, **named):
    with torch.no_grad():
        return encoder(context_of(*arguments, **named)).numpy()


def same(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


# What every encoder must do


def test_there_are_as_many_floats_as_the_encoder_says(encoder):
    assert vectors(encoder, ROWS).shape == (5, encoder.num_outputs)
    assert vectors(encoder, ROWS).any(axis=1).tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("training", [True, False])
def test_without_history_the_vector_is_zero(encoder, training):
    encoder.train(training)
    assert not vectors(encoder, [[], []], width=4).any()
    assert np.isfinite(vectors(encoder, ROWS)).all()


def test_padding_changes_nothing(encoder):
    same(vectors(encoder, [[1, 2, 3], [4]], width=6), vectors(encoder, [[1, 2, 3], [4]]))


def test_vectors_are_those_of_single_users(encoder):
    same(vectors(encoder, ROWS), np.concatenate([vectors(encoder, [row], width=6) for row in ROWS]))


def test_only_the_newest_part_of_a_longer_history_is_used(encoder):
    newest = [5, 6, 7, 8, 9, 10]
    assert np.array_equal(vectors(encoder, [newest]), vectors(encoder, [[*newest, 11, 12]]))
    assert not np.allclose(vectors(encoder, [newest]), vectors(encoder, [[*newest[:5], 11]]))


def test_every_event_counts(encoder):
    before = vectors(encoder, [ROWS[3]])
    for place in range(LENGTH):
        changed = list(ROWS[3])
        changed[place] = 20
        assert not np.allclose(vectors(encoder, [changed]), before, atol=1e-4)


def test_an_unknown_newest_video_does_not_hide_the_older_ones(encoder):
    completed = [[False, True, True]]
    times = [[95_000, 90_000, 89_900]]
    found = vectors(encoder, [[0, 3, 2]], times=times, completed=completed)
    assert found.any()
    if not hasattr(encoder, "by_place"):  # one that goes by the place may notice that there was something
        same(found, vectors(encoder, [[3, 2]]))


def test_serving_is_deterministic_and_training_is_not(encoder):
    assert np.array_equal(vectors(encoder, ROWS), vectors(encoder, ROWS))
    encoder.train()
    trained = [vectors(encoder, ROWS) for _ in range(4)]
    assert not all(np.array_equal(one, trained[0]) for one in trained)


def test_training_is_repeated_by_the_state_of_the_generator(encoder):
    encoder.train()
    state = encoder.generator.get_state()
    first = vectors(encoder, ROWS)
    encoder.generator.set_state(state)
    assert np.array_equal(vectors(encoder, ROWS), first)


@pytest.mark.parametrize("kind", KINDS)
def test_without_dropout_training_computes_what_serves(kind):
    encoder = encoder_of(kind, dropout=0.0)
    served = vectors(encoder, ROWS)
    encoder.train()
    same(vectors(encoder, ROWS), served)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_reaches_tables_and_parameters_and_is_finite(kind):
    encoder = encoder_of(kind, dropout=0.0).train()
    found = encoder(context_of(ROWS))  # one of them without history
    (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    for parameter in encoder.parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0
    for table in tables_of(encoder):
        assert set(range(1, 11)) <= {int(row) for use in table.uses for row in use.rows}
        for use in table.uses:
            gradients = use.gradients.float()
            assert gradients.isfinite().all() and gradients.abs().max() > 0


# The paper's mean


def table_of(encoder, which="watched"):
    return getattr(encoder, which).weight.numpy()


def test_means_of_the_watched_and_of_the_shown_stand_side_by_side():
    encoder = encoder_of("mean")
    completed = [[True, False, True]]
    expected = [table_of(encoder)[[1, 3]].mean(axis=0), table_of(encoder, "shown")[[1, 2, 3]].mean(axis=0)]
    same(vectors(encoder, [[1, 2, 3]], completed=completed)[0], np.concatenate(expected))


def test_without_impressions_there_is_one_mean():
    encoder = encoder_of("mean", has_impressions=False)
    assert encoder.num_outputs == DIM and len(tables_of(encoder)) == 1
    same(vectors(encoder, [[1, 2, 3]])[0], table_of(encoder)[[1, 2, 3]].mean(axis=0))


def test_recent_watches_have_means_of_their_own_from_the_same_table():
    encoder = encoder_of("mean and recent", has_impressions=False)
    table = table_of(encoder)
    expected = [table[[5, 6, 7, 8]].mean(axis=0), table[5], table[[5, 6, 7]].mean(axis=0)]
    same(vectors(encoder, [[5, 6, 7, 8]])[0], np.concatenate(expected))
    same(vectors(encoder, [[5]])[0], np.concatenate([table[5]] * 3))


@pytest.mark.parametrize(("kind", "ordered"), [("mean", False), ("mean and recent", True), ("attention", True)])
def test_order_counts_only_where_something_looks_at_it(kind, ordered):
    one, other = (vectors(encoder_of(kind), [rows]) for rows in ([1, 2, 3, 4], [4, 3, 2, 1]))
    assert np.allclose(one, other, atol=1e-5) is not ordered


def test_half_of_the_watches_are_left_out_at_half_dropout():
    encoder = encoder_of("mean", history_length=100).train()
    kept = encoder._thinned(np.arange(1, 10_001).reshape(100, 100)).numpy()
    assert abs((kept > 0).mean() - 0.5) < 0.02
    assert set(kept[kept > 0]) <= set(range(1, 10_001))


# Learnt weights


def plain_attention(heads=1):
    """One that weighs all events the same, and whose events are the rows of its table alone."""
    encoder = encoder_of("attention", attention_heads=heads)
    with torch.no_grad():
        for learnt in encoder.parameters():
            learnt.zero_()
    return encoder, encoder.events.videos.weight.numpy()


def test_without_anything_learnt_attention_is_the_mean_of_what_was_shown():
    encoder, table = plain_attention()
    completed = [[True, False, False]]
    same(vectors(encoder, [[1, 2, 3]], completed=completed)[0], table[[1, 2, 3]].mean(axis=0))


def test_ages_give_weights_to_each_head():
    encoder, table = plain_attention(heads=2)
    with torch.no_grad():
        # Ages of 1 and of 5 seconds; the first head gives the younger three times the weight, the second none.
        encoder.by_age[gap_buckets(np.array([1]))[0], 0] = math.log(3.0)
        encoder.by_age[gap_buckets(np.array([1]))[0], 1] = -1e4
    found = vectors(encoder, [[1, 2]], times=[[99, 95]], moment=100)[0]
    same(found, np.concatenate([0.75 * table[1] + 0.25 * table[2], table[2]]))
    # A day later both are as old as each other.
    later = vectors(encoder, [[1, 2]], times=[[99, 95]], moment=100 + 86_400)[0]
    same(later, np.tile(table[[1, 2]].mean(axis=0), 2))


def test_places_give_weights():
    encoder, table = plain_attention()
    with torch.no_grad():
        encoder.by_place[1] = math.log(4.0)
    same(vectors(encoder, [[1, 2]])[0], 0.2 * table[1] + 0.8 * table[2])


def test_what_an_event_is_gives_weights():
    encoder, table = plain_attention()
    with torch.no_grad():
        encoder.scores.weight[0, 0] = 1.0
    weights = np.exp(table[[1, 2], 0]) / np.exp(table[[1, 2], 0]).sum()
    same(vectors(encoder, [[1, 2]])[0], weights @ table[[1, 2]])


@pytest.mark.parametrize("kind", ["attention", "transformer"])
def test_outcome_and_time_since_the_event_before_count(kind):
    encoder = encoder_of(kind)
    before = vectors(encoder, [[1, 2, 3]], times=[[500, 400, 300]])
    assert not np.allclose(vectors(encoder, [[1, 2, 3]], times=[[500, 400, 300]], completed=[[1, 0, 1]]), before)
    assert not np.allclose(vectors(encoder, [[1, 2, 3]], times=[[500, 301, 300]]), before, atol=1e-4)


@settings(max_examples=200)
@given(st.integers(-5, 2**50))
def test_gap_buckets_count_doublings(seconds):
    expected = 1 if seconds <= 0 else min(1 + seconds.bit_length(), 31)
    assert gap_buckets(np.array([[seconds]])).tolist() == [[expected]]


# The order of events


def test_order_matters_to_the_transformer_even_among_older_events():
    encoder = encoder_of("transformer")
    assert not np.allclose(vectors(encoder, [[1, 2, 3, 4]]), vectors(encoder, [[1, 2, 4, 3]]), atol=1e-4)


def windows_over(history, pairs):
    window, hidden = (torch.tensor(column) for column in zip(*pairs, strict=True))
    return BatchWindows(history, window, hidden)


def read(encoder, history, pairs):
    with torch.no_grad():
        nobody = context_of([[]] * len(pairs), width=0)
        return encoder(nobody, windows_over(history, pairs)).numpy()


LONG = [[1, 2, 3, 4, 5, 6], [7, 0, 8, 0, 0, 9], [10, 11], [], [0, 12, 13, 0]]
TIMES = [
    [9000, 8000, 8000, 700, 650, 3],
    [9999, 9998, 5000, 4000, 200, 100],
    [800, 20],
    [],
    [5000, 4000, 300, 200],
]


@pytest.mark.parametrize("layers", [1, 3])
def test_a_window_read_once_gives_each_example_what_its_own_history_gives(layers):
    encoder = encoder_of("transformer", transformer_layers=layers)
    pairs = [(window, hidden) for window in range(5) for hidden in range(LENGTH + 1)]
    order = np.random.default_rng(0).permutation(len(pairs))
    pairs = [pairs[place] for place in order]
    own = vectors(
        encoder, [LONG[w][hidden:] for w, hidden in pairs], times=[TIMES[w][hidden:] for w, hidden in pairs], width=6
    )
    same(read(encoder, context_of(LONG, times=TIMES), pairs), own)
    assert own.any(axis=1).sum() == 6 + 6 + 2 + 0 + 3  # of whom something is known


def test_what_comes_after_the_visible_event_changes_nothing():
    encoder = encoder_of("transformer")
    for hidden in range(1, LENGTH):
        altered = [list(range(20, 20 + hidden)) + LONG[0][hidden:]]
        times = [[9_999_999] * hidden + TIMES[0][hidden:]]
        completed = [[False] * hidden + [True] * (LENGTH - hidden)]
        one = read(encoder, context_of(LONG[:1], times=TIMES[:1]), [(0, hidden)])
        other = read(encoder, context_of(altered, times=times, completed=completed), [(0, hidden)])
        same(one, other)
        older = [[*LONG[0][:hidden], 30, *LONG[0][hidden + 1 :]]]
        assert not np.allclose(read(encoder, context_of(older, times=TIMES[:1]), [(0, hidden)]), one, atol=1e-4)


def test_windows_take_the_place_of_the_examples_own_histories():
    encoder = encoder_of("transformer")
    context, history = context_of([[20, 21]] * 2), context_of([[1, 2, 3]])
    with torch.no_grad():
        found = encoder(context, windows_over(history, [(0, 0), (0, 1)])).numpy()
    same(found, vectors(encoder, [[1, 2, 3], [2, 3]], times=[[90_000, 89_900, 89_800], [89_900, 89_800]]))


def quiet_transformer(**changes):
    """One whose biases for distance and for time are all that may tell places apart."""
    encoder = encoder_of("transformer", transformer_layers=1, **changes)
    with torch.no_grad():
        encoder.events.gap.zero_()
        for bias in (encoder.layers[0].by_distance, encoder.layers[0].by_gap):
            bias.zero_()
    return encoder


def with_one_at(place, length=6, seconds=None):
    rows, times = [1] * length, list(range(90_000, 90_000 - length, -1))
    rows[place] = 2
    return {"rows": [rows], "times": [times if seconds is None else seconds]}


def test_distance_alone_tells_the_order():
    encoder = quiet_transformer()
    same(vectors(encoder, **with_one_at(3)), vectors(encoder, **with_one_at(4)))
    with torch.no_grad():
        encoder.layers[0].by_distance[4] = 2.0
    assert not np.allclose(vectors(encoder, **with_one_at(3)), vectors(encoder, **with_one_at(4)), atol=1e-4)


def test_the_time_between_two_events_alone_tells_them_apart():
    encoder = quiet_transformer()
    times = {gap: [1000] * 3 + [1000 - gap] * 3 for gap in (10, 20)}
    same(*(vectors(encoder, **with_one_at(4, seconds=seconds)) for seconds in times.values()))
    with torch.no_grad():
        encoder.layers[0].by_gap[gap_buckets(np.array([10]))[0]] = 2.0
    one, other = (vectors(encoder, **with_one_at(4, seconds=seconds)) for seconds in times.values())
    assert not np.allclose(one, other, atol=1e-4)


def test_far_events_of_a_long_history_are_told_apart_roughly():
    encoder = quiet_transformer(history_length=1000)
    with torch.no_grad():
        encoder.layers[0].by_distance.copy_(torch.linspace(3.0, -3.0, 64)[:, None].expand(64, 2))
    found = [vectors(encoder, **with_one_at(place, length=1000)) for place in (20, 31, 32, 60, 300, 301)]
    assert np.isfinite(found).all()
    assert not any(np.allclose(one, other, atol=1e-6, rtol=0) for one, other in pairwise(found[:5]))
    np.testing.assert_allclose(found[4], found[5], atol=1e-6)
