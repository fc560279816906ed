"""The SQL that compiles a log is the oracle of what live requests say."""

import duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from watchnext.events import tokens
from watchnext.events.tokens import TITLE_WORDS, TOKENS, query_tokens, title_words

DATABASE = duckdb.connect()


def by_sql(how, column, texts):
    rows = DATABASE.execute(f"SELECT {how} FROM (SELECT unnest(?) AS {column})", [texts]).fetchall()
    return [words for (words,) in rows]


@settings(max_examples=50)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1, max_size=9))
def test_texts_are_split_as_a_log_is(texts):
    assert title_words(texts) == by_sql(TITLE_WORDS, "title", texts)
    assert query_tokens(texts) == by_sql(TOKENS, "query", texts)


def test_every_character_of_the_first_two_planes_is_what_it_is_in_a_log():
    places = [*range(1, 0xD800), *range(0xE000, 0x20000)]
    texts = [f"a{''.join(map(chr, places[start : start + 16]))}B" for start in range(0, len(places), 16)]
    assert title_words(texts) == by_sql(TITLE_WORDS, "title", texts)


def test_no_more_characters_are_kept_than_many_alphabets_have(monkeypatch):
    monkeypatch.setattr(tokens, "_in_a_word", {})
    monkeypatch.setattr(tokens, "_MOST_KNOWN", 200)
    assert title_words(["Été"]) == [["été"]] and 100 < len(tokens._in_a_word) <= 200
    many = "".join(map(chr, range(0x4E00, 0x4F00)))
    assert title_words([f"été-{many}"]) == [["été", many]] and len(tokens._in_a_word) <= 200


def test_nothing_is_split_into_nothing():
    assert title_words([]) == query_tokens([]) == []
