"""Search tokens: unigrams and bigrams, by one piece of SQL for logs and for live requests."""

from functools import cache

import duckdb

_WORDS = "list_filter(regexp_split_to_array(lower(query), '[^\\p{L}\\p{N}]+'), lambda word: word <> '')"
_PAIRS = f"list_transform(range(1, greatest(len({_WORDS}), 1)), lambda i: {_WORDS}[i] || ' ' || {_WORDS}[i + 1])"
TOKENS = f"list_concat({_WORDS}, {_PAIRS})"
"""SQL: the unigrams and bigrams of a query (§3.2)."""
TITLE_WORDS = _WORDS.replace("query", "title")
"""SQL: the words of a title."""


def query_tokens(queries: list[str]) -> list[list[str]]:
    """Gives the unigrams and bigrams of each search query, by the SQL that compiles a log.

    >>> query_tokens(["Jazz  piano-trio", "!"])
    [['jazz', 'piano', 'trio', 'jazz piano', 'piano trio'], []]
    """
    return _split(TOKENS, "query", queries)


def title_words(titles: list[str]) -> list[list[str]]:
    """Gives the words of each title, by the SQL that compiles a log.

    >>> title_words(["Jazz  piano-trio", "!"])
    [['jazz', 'piano', 'trio'], []]
    """
    return _split(TITLE_WORDS, "title", titles)


def _split(how: str, column: str, texts: list[str]) -> list[list[str]]:
    if not texts:
        return []
    with _database().cursor() as connection:
        rows = connection.execute(f"SELECT {how} FROM (SELECT unnest(?) AS {column})", [texts]).fetchall()
    return [words for (words,) in rows]


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """One empty database for all requests: opening one takes longer than the rest of a request."""
    return duckdb.connect()
