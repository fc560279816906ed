"""Search tokens: unigrams and bigrams, by one piece of SQL for logs and for live requests."""

import duckdb

_WORDS = "list_filter(regexp_split_to_array(lower(query), '[^\\p{L}\\p{N}]+'), lambda word: word <> '')"
_PAIRS = f"list_transform(range(1, greatest(len({_WORDS}), 1)), lambda i: {_WORDS}[i] || ' ' || {_WORDS}[i + 1])"
TOKENS = f"list_concat({_WORDS}, {_PAIRS})"
"""SQL: the unigrams and bigrams of a query (§3.2)."""


def query_tokens(query: str) -> list[str]:
    """Gives the unigrams and bigrams of one search query, by the SQL that compiles a log.

    >>> query_tokens("Jazz  piano-trio")
    ['jazz', 'piano', 'trio', 'jazz piano', 'piano trio']
    """
    with duckdb.connect() as connection:
        return list(connection.execute(f"SELECT {TOKENS} FROM (SELECT ? AS query)", [query]).fetchall()[0][0])
