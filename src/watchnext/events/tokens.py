"""Search tokens: unigrams and bigrams, by SQL for logs; live requests ask that SQL about each character once."""

import string
from functools import cache
from itertools import pairwise

import duckdb

_A_WORD_HAS = "[\\p{L}\\p{N}]"
_WORDS = f"list_filter(regexp_split_to_array(lower(query), '[^{_A_WORD_HAS[1:-1]}]+'), lambda word: word <> '')"
_PAIRS = f"list_transform(range(1, greatest(len({_WORDS}), 1)), lambda i: {_WORDS}[i] || ' ' || {_WORDS}[i + 1])"
TOKENS = f"list_concat({_WORDS}, {_PAIRS})"
"""SQL: the unigrams and bigrams of a query (§3.2)."""
TITLE_WORDS = _WORDS.replace("query", "title")
"""SQL: the words of a title."""


_MOST_KNOWN = 1 << 16
_in_a_word: dict[str, str] = {}


def query_tokens(queries: list[str]) -> list[list[str]]:
    """Gives the unigrams and bigrams of each search query, as the SQL that compiles a log does.

    >>> query_tokens(["Jazz  piano-trio", "!"])
    [['jazz', 'piano', 'trio', 'jazz piano', 'piano trio'], []]
    """
    split = title_words(queries)
    return [[*words, *(f"{one} {next_one}" for one, next_one in pairwise(words))] for words in split]


def title_words(titles: list[str]) -> list[list[str]]:
    """Gives the words of each title, as the SQL that compiles a log does.

    >>> title_words(["Jazz  piano-trio", "!"])
    [['jazz', 'piano', 'trio'], []]
    """
    in_a_word = _looked_up(set().union(*titles))
    return ["".join(map(in_a_word.__getitem__, title)).split() for title in titles]


def _looked_up(characters: set[str]) -> dict[str, str]:
    """What each character is in a word: its lower case, or a space where a word ends.

    The database is asked of each character once: its tables of Unicode are not Python's, and a query takes longer
    than the rest of a request (docs/results.md).
    """
    unknown = characters.difference(_in_a_word)
    if not unknown:
        return _in_a_word
    how = f"if(regexp_matches(lower(one), '{_A_WORD_HAS}'), lower(one), ' ')"
    with _database().cursor() as connection:
        asked = [*unknown.union(string.printable)]
        rows = connection.execute(f"SELECT one, {how} FROM (SELECT unnest(?) AS one)", [asked]).fetchall()
    together = _in_a_word | dict(rows)
    if len(together) <= _MOST_KNOWN:
        _in_a_word.update(rows)
    return together


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """One empty database for all requests."""
    return duckdb.connect()
