import re

import numpy as np
import pyarrow as pa
import pytest

from watchnext.simulation.words import CATEGORIES, LANGUAGES, Words

SYLLABLE = "(?:br|kl|st|tr|sh|[bdfghklmnprstvz])[aeiou]"
ENDINGS = ("explained", "for beginners", "in ten minutes", "live", "the best of", "gone wrong", "at home", "part two")


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def words_of(topic: int, num_topics: int = 12) -> list[str]:
    return Words.of(num_topics).words.to_pylist()[8 * topic : 8 * topic + 8]


def test_a_word_is_spelt_by_the_digits_of_its_number() -> None:
    # Word 0 is number 0: three times syllable 0, "ba". Word 1 is number 388,211, in pairs of digits from the right:
    # 11 = 2 * 5 + 1 is onset 2 with vowel 1, "fe"; 82 = 16 * 5 + 2 is "kli"; 38 = 7 * 5 + 3 is "mo".
    assert Words.of(1).words.to_pylist()[:2] == ["bababa", "feklimo"]


def test_the_words_of_the_most_topics_are_all_different() -> None:
    words = Words.of(20_000).words
    assert len(words) == words.value_counts().__len__() == 160_000


def test_a_word_has_three_syllables() -> None:
    assert all(re.fullmatch(f"({SYLLABLE}){{3}}", word) for word in Words.of(100).words.to_pylist())


def test_further_topics_leave_the_words_of_the_others() -> None:
    assert Words.of(3).words.equals(Words.of(9).words[:24])


def test_a_tag_is_the_first_word_of_its_topic() -> None:
    tags = Words.of(12).tags(np.array([[0, 11], [3, 3]], dtype=np.int16))
    first = [words_of(topic)[0] for topic in range(12)]
    assert tags.to_pylist() == [[first[0], first[11]], [first[3], first[3]]]


def test_tags_of_a_late_topic_do_not_overflow_its_small_integer() -> None:
    # Topic 19,999 begins at word 159,992, more than an int16 holds.
    tags = Words.of(20_000).tags(np.array([[19_999]], dtype=np.int16))
    assert tags.to_pylist() == [[Words.of(20_000).words[159_992].as_py()]]


def test_no_rows_have_no_tags() -> None:
    assert Words.of(2).tags(np.zeros((0, 2), dtype=np.int16)).to_pylist() == []


def test_a_query_is_two_different_words_of_its_topic() -> None:
    queries = Words.of(12).queries(np.repeat([4, 7], 3_000), generator()).to_pylist()
    for topic, texts in ((4, queries[:3_000]), (7, queries[3_000:])):
        pairs = [tuple(text.split(" ")) for text in texts]
        assert {word for pair in pairs for word in pair} == set(words_of(topic))
        # 8 * 7 ordered pairs; each comes 54 times (standard deviation 7).
        counts = [pairs.count(pair) for pair in set(pairs)]
        assert len(counts) == 56 and all(len(set(pair)) == 2 for pair in pairs)
        assert 20 < min(counts) and max(counts) < 95


def test_no_queries_are_no_queries() -> None:
    queries = Words.of(2).queries(np.zeros(0, dtype=np.int64), generator())
    assert queries.to_pylist() == [] and queries.type == pa.string()


def test_an_episode_is_numbered() -> None:
    topic, episode = np.full(200, 5, dtype=np.int16), np.arange(1, 201)
    for number, title in enumerate(Words.of(12).titles(topic, episode, generator()).to_pylist(), start=1):
        first, second, *ending = title.split(" ")
        assert ending == ["episode", str(number)]
        assert first != second and {first, second} <= set(words_of(5))


def test_what_is_no_episode_has_one_of_eight_endings() -> None:
    titles = Words.of(12).titles(np.full(400, 5), np.zeros(400, dtype=np.int64), generator()).to_pylist()
    endings = [title.split(" ", maxsplit=2)[2] for title in titles]
    assert set(endings) == set(ENDINGS)
    assert all(25 < endings.count(ending) < 85 for ending in ENDINGS)  # 50 expected, standard deviation 7


@pytest.mark.parametrize("other", [1, 2])
def test_the_same_seed_gives_the_same_words(other: int) -> None:
    topic = np.arange(12)
    titles = [Words.of(12).titles(topic, topic * 0, generator(seed)).to_pylist() for seed in (1, other)]
    queries = [Words.of(12).queries(topic, generator(seed)).to_pylist() for seed in (1, other)]
    assert (titles[0] == titles[1]) == (queries[0] == queries[1]) == (other == 1)


def test_names_come_once() -> None:
    assert len(set(CATEGORIES)) == len(CATEGORIES) == 16
    assert LANGUAGES == ("en", "es", "hi", "pt")
