"""What every store must do, on SQLite and on a real Redis server."""

import random
import re

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from watchnext.errors import RequestError, StoreError
from watchnext.serving.events import KINDS, LiveEvent
from watchnext.serving.stores.protocol import EventStore


def watch(event_id, timestamp=100, user_id="ann", **columns):
    return LiveEvent(event_id, "watch", timestamp, user_id, **columns)


def ids(events):
    return [event.event_id for event in events]


class ListStore:
    """The slow and obvious store."""

    def __init__(self):
        self.kept, self.last, self.gone = [], 0, {}

    def append(self, events):
        before = self.last
        for event in events:
            if event.event_id not in {kept.event_id for _, kept in self.kept}:
                self.last += 1
                self.kept.append((self.last, event))
        return self.last - before

    def of_user(self, user_id, limit):
        own = sorted((kept.timestamp, sequence, kept) for sequence, kept in self.kept if kept.user_id == user_id)
        return [kept for _, _, kept in own][max(0, len(own) - limit) :]

    def since(self, sequence, limit):
        return [pair for pair in self.kept if pair[0] > sequence][:limit]

    def for_everybody(self, sequence, limit):
        return [pair for pair in self.kept if pair[0] > sequence and pair[1].user_id is None][:limit]

    def forget(self, user_id, moment):
        own = [pair for pair in self.kept if pair[1].user_id == user_id]
        self.kept = [pair for pair in self.kept if pair not in own]
        self.gone[user_id] = max(moment, self.gone.get(user_id, moment))
        return len(own)


HALF_A_PAIR = "\ud800"
texts = st.text(st.characters(exclude_categories=()), max_size=5)
users = st.sampled_from(["", "ann", "bob", "bob\0", HALF_A_PAIR])
moments = st.integers(-3, 3) | st.sampled_from([2**53 - 1, 1 - 2**53, 2**53 - 2])
json_values = st.none() | st.booleans() | st.integers() | texts
events = st.builds(
    LiveEvent,
    st.sampled_from("abcdefgh") | texts,
    st.sampled_from(KINDS),
    moments,
    user_id=st.none() | users,
    video_id=st.none() | texts,
    watch_seconds=st.none() | st.floats(allow_nan=False),
    completed=st.booleans(),
    position=st.integers(),
    query=st.none() | texts,
    upload=st.none() | st.dictionaries(texts, json_values | st.lists(json_values, max_size=2), max_size=2),
)
limits = st.integers(0, 5) | st.just(1000)


def test_any_history_ends_as_in_a_list(new_place):
    class Comparison(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.place, self.oracle = new_place(), ListStore()
            self.store = self.place.open()

        @rule(batch=st.lists(events, max_size=6))
        def append(self, batch):
            assert self.store.append(batch) == self.oracle.append(batch)

        @rule(user=users, limit=limits)
        def of_user(self, user, limit):
            assert self.store.of_user(user, limit) == self.oracle.of_user(user, limit)

        @rule(sequence=st.integers(0, 20), limit=limits)
        def since(self, sequence, limit):
            assert self.store.since(sequence, limit) == self.oracle.since(sequence, limit)

        @rule(sequence=st.integers(0, 20), limit=limits)
        def for_everybody(self, sequence, limit):
            assert self.store.for_everybody(sequence, limit) == self.oracle.for_everybody(sequence, limit)

        @rule(user=users, moment=moments)
        def forget(self, user, moment):
            assert self.store.forget(user, moment) == self.oracle.forget(user, moment)

        @rule()
        def open_again(self):
            self.store.close()
            self.store = self.place.open()

        @invariant()
        def agree(self):
            assert self.store.last_sequence() == self.oracle.last
            assert self.store.forgotten() == self.oracle.gone

        def teardown(self):
            for user in ("", "ann", "bob", "bob\0", HALF_A_PAIR):
                assert self.store.forgotten_at(user) == self.oracle.gone.get(user)
                assert self.store.of_user(user, 1000) == self.oracle.of_user(user, 1000)
            assert self.store.since(0, 1000) == self.oracle.kept
            self.place.close()

    run_state_machine_as_test(Comparison, settings=settings(max_examples=25, stateful_step_count=15, database=None))


def test_it_is_an_event_store(store):
    assert isinstance(store, EventStore)


def test_every_field_comes_back(store):
    told = LiveEvent(
        "e1",
        "upload",
        1_700_000_000,
        user_id="ann",
        video_id="v1",
        watch_seconds=0.0,
        completed=True,
        clicked=True,
        liked=True,
        position=3,
        surface="home",
        page_id="p1",
        query="jazz",
        upload={"title": "Ünïcode", "tags": ["a", "b"], "duration_seconds": 12.5},
    )
    store.append([told])
    assert store.of_user("ann", 1) == [told] == [event for _, event in store.since(0, 1)]


def test_a_new_store_is_empty(store):
    assert store.last_sequence() == 0 and store.since(0, 10) == [] and store.of_user("ann", 10) == []
    assert store.forgotten() == {} and store.forgotten_at("ann") is None


def test_the_first_of_a_batch_with_one_id_is_kept(store):
    assert store.append([watch("a", 1), watch("a", 2), watch("b", 3)]) == 2
    assert [event.timestamp for event in store.of_user("ann", 10)] == [1, 3]


def test_an_event_sent_again_is_not_written_again(store):
    store.append([watch("a", 1)])
    assert store.append([watch("a", 2), watch("b", 3)]) == 1
    assert [(place, event.timestamp) for place, event in store.since(0, 10)] == [(1, 1), (2, 3)]


def test_an_id_belongs_to_one_event_whoever_sends_it(store):
    assert store.append([watch("a"), watch("a", user_id="bob")]) == 1


def test_a_user_reads_by_timestamp_then_by_arrival(store):
    store.append([watch("late", 9), watch("first", 5), watch("second", 5)])
    store.append([watch("third", 5), watch("early", 1)])
    assert ids(store.of_user("ann", 10)) == ["early", "first", "second", "third", "late"]
    assert ids(store.of_user("ann", 3)) == ["second", "third", "late"]


def test_ten_thousand_events_of_a_second_keep_their_order(store):
    batch = [watch(str(number)) for number in range(10_001)]
    assert store.append(batch) == 10_001
    assert store.of_user("ann", 20_000) == batch
    assert store.forget("ann", 5) == 10_001


@pytest.mark.parametrize("limit", [0, -1, -5])
def test_a_limit_below_one_gives_nothing(store, limit):
    store.append([watch(str(number)) for number in range(9)])
    assert store.of_user("ann", limit) == [] == store.since(0, limit)


def test_what_concerns_everybody_is_of_no_user(store):
    store.append([LiveEvent("a", "block", 1, video_id="v")])
    assert store.of_user("", 10) == [] and len(store.since(0, 10)) == 1


def test_a_timestamp_that_redis_would_round_is_refused_with_its_batch(store):
    with pytest.raises(RequestError, match=r"2\*\*53"):
        store.append([watch("a"), watch("b", 2**53)])
    with pytest.raises(RequestError, match=r"2\*\*53"):
        store.forget("ann", -(2**53))
    assert store.last_sequence() == 0 and store.forgotten() == {}


def test_sequence_numbers_are_not_used_twice(store):
    store.append([watch("a"), watch("b")])
    store.forget("ann", 5)
    assert store.last_sequence() == 2
    store.append([watch("a")])
    assert [place for place, _ in store.since(0, 10)] == [3]


def test_since_steps_over_the_forgotten(store):
    store.append([watch(str(number), user_id="ann" if number % 3 else "bob") for number in range(9)])
    store.forget("ann", 5)
    assert [place for place, _ in store.since(0, 2)] == [1, 4]
    assert [place for place, _ in store.since(4, 2)] == [7]


def test_who_was_forgotten_begins_anew(store):
    store.append([watch("a")])
    assert store.forget("ann", 50) == 1 and store.forget("ann", 40) == 0
    assert store.forgotten_at("ann") == 50
    store.append([watch("b", 60)])
    assert ids(store.of_user("ann", 10)) == ["b"] and store.forgotten() == {"ann": 50}


def test_everything_is_there_when_opened_again(place):
    first = place.open()
    first.append([watch("a"), watch("b", user_id="bob")])
    first.forget("ann", 7)
    first.close()
    second = place.open()
    assert ids(second.of_user("bob", 10)) == ["b"] and second.last_sequence() == 2
    assert second.forgotten_at("ann") == 7 and second.append([watch("b")]) == 0


def test_a_closed_store_says_so(store):
    store.append([watch("a")])
    assert store.last_sequence() == 1
    store.close()
    store.close()
    asked = [
        lambda: store.append([watch("b")]),
        lambda: store.of_user("ann", 1),
        lambda: store.since(0, 1),
        store.last_sequence,
        lambda: store.forget("ann", 1),
        lambda: store.forgotten_at("ann"),
        store.forgotten,
    ]
    for ask in asked:
        with pytest.raises(StoreError, match="is closed; open it again"):
            ask()


def test_two_stores_of_one_place_see_each_other(place):
    one, other = place.open(), place.open()
    one.append([watch("a")])
    assert ids(other.of_user("ann", 10)) == ["a"] and other.append([watch("a"), watch("b")]) == 1
    assert one.last_sequence() == 2
    other.forget("ann", 5)
    assert one.of_user("ann", 10) == [] and one.forgotten_at("ann") == 5


def test_forgotten_bytes_are_in_no_file(place):
    """Lengths vary and users mix, so that pages split and merge, which leaves copies."""
    store, names, chance = place.open(), [f"user{number:02d}" for number in range(30)], random.Random(0)
    for second in range(100):
        batch = []
        for name in chance.choices(names, k=25):
            event_id, query = f"{chance.getrandbits(128):x}-id-of-{name}", f"query-of-{name} " * chance.randrange(60)
            batch.append(LiveEvent(event_id, "search", second, name, query=query))
        store.append(batch)
    while names:
        store.forget(names.pop(), 1)
        stored = b"".join(file.read_bytes() for file in place.files())
        for trace in (b"query-of-user", b"-id-of-user"):
            assert set(re.findall(trace + rb"(\d\d)", stored)) == {name[-2:].encode() for name in names}
