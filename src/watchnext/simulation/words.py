"""What topics are called, and the titles, tags and queries made of their words."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from watchnext.shapes import Array, Int

WORDS_OF_A_TOPIC = 8
CATEGORIES = (
    "music", "games", "cooking", "science", "sport", "travel", "news", "comedy",
    "film", "cars", "animals", "fashion", "history", "health", "building", "art",
)  # fmt: skip
LANGUAGES = ("en", "es", "hi", "pt")

_ONSETS = ("b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "kl", "st", "tr", "sh")
_VOWELS = ("a", "e", "i", "o", "u")
_SYLLABLES = tuple(onset + vowel for onset in _ONSETS for vowel in _VOWELS)
_STRIDE = 388_211  # a prime that shares no factor with the number of words: no word comes twice
_ENDINGS = ("explained", "for beginners", "in ten minutes", "live", "the best of", "gone wrong", "at home", "part two")


@dataclass(frozen=True)
class Words:
    """The words of all topics, eight of each in turn; the first names the topic and is its tag."""

    words: pa.Array

    @classmethod
    def of(cls, num_topics: int) -> "Words":
        """Makes distinct words of three syllables.

        >>> Words.of(2).words.to_pylist()[8]
        'stosefa'
        """
        number = len(_SYLLABLES) ** 3
        places = np.arange(num_topics * WORDS_OF_A_TOPIC, dtype=np.int64) * _STRIDE % number
        syllables = pa.array(_SYLLABLES)
        parts = []
        for _ in range(3):
            places, digit = np.divmod(places, len(_SYLLABLES))
            parts.append(syllables.take(pa.array(digit)))
        return cls(pc.binary_join_element_wise(*parts, ""))

    def tags(self, topics: Int[Array, "rows _"]) -> pa.Array:
        """Gives for each row the list of its topics' names."""
        names = self.words.take(pa.array(topics.ravel().astype(np.int64) * WORDS_OF_A_TOPIC))
        offsets = np.arange(len(topics) + 1, dtype=np.int32) * topics.shape[1]
        return pa.ListArray.from_arrays(pa.array(offsets), names)

    def titles(self, topic: Int[Array, "rows"], episode: Int[Array, "rows"], random: np.random.Generator) -> pa.Array:
        """Gives titles such as 'bradego motilu for beginners'; episodes from 1 are numbered, 0 is not an episode."""
        first, second = self._two_words(topic, random)
        ending = pa.array(_ENDINGS).take(pa.array(random.integers(0, len(_ENDINGS), len(topic))))
        numbered = pc.binary_join_element_wise("episode", pa.array(episode).cast(pa.string()), " ")
        ending = pc.if_else(pa.array(episode > 0), numbered, ending)
        return pc.binary_join_element_wise(first, second, ending, " ")

    def queries(self, topic: Int[Array, "rows"], random: np.random.Generator) -> pa.Array:
        """Gives queries of two of the topic's words."""
        return pc.binary_join_element_wise(*self._two_words(topic, random), " ")

    def _two_words(self, topic: Int[Array, "rows"], random: np.random.Generator) -> tuple[pa.Array, pa.Array]:
        """Two different words of each topic."""
        first = random.integers(0, WORDS_OF_A_TOPIC, len(topic))
        second = (first + random.integers(1, WORDS_OF_A_TOPIC, len(topic))) % WORDS_OF_A_TOPIC
        start = topic.astype(np.int64) * WORDS_OF_A_TOPIC
        return self.words.take(pa.array(start + first)), self.words.take(pa.array(start + second))
