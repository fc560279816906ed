from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from watchnext.errors import ConfigurationError, DataError

GOOD = "1,10,100,5\n"
REJECTS = 'SELECT row, "column", reason FROM rejects ORDER BY row'
COLUMN_FILE = 'watches.files = "watches.csv"\n'
HEADER = "user_id,video_id,timestamp,watch_seconds\n"


def write_column(path: Path, name: str, values: pa.Array) -> None:
    """A Parquet file of watches in which one column holds `values`."""
    size = len(values)
    columns = {"user_id": pa.array(range(size)), "video_id": pa.array([1] * size), "timestamp": pa.array([100] * size)}
    pq.write_table(pa.table(columns | {"watch_seconds": pa.array([5.0] * size), name: values}), path)


# What a column may hold


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1577836800", 1_577_836_800),
        ("1577836800.9", 1_577_836_800),
        ("2020-01-01", 1_577_836_800),
        ("2020-01-01 00:00:00", 1_577_836_800),
        ("2020-01-01T00:00:00", 1_577_836_800),
        ("2020-01-01T00:00:00Z", 1_577_836_800),
        ("2020-01-01T02:00:00+02:00", 1_577_836_800),
        ("2020-01-01T00:00:00.750Z", 1_577_836_800),
        ("0", 0),
    ],
)
@pytest.mark.parametrize("beside", ["", "2,10,odd,5\n"])
def test_a_time_may_be_written_in_many_ways(
    read_watches: Any, rows: Any, written: str, seconds: int, beside: str
) -> None:
    log = read_watches(f"1,10,{written},5\n{beside}")
    assert rows(log, "SELECT timestamp FROM watches WHERE user_id = 1") == [(seconds,)]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1_577_836_800], pa.int32()),
        pa.array([1_577_836_800.5], pa.float64()),
        pa.array([1_577_836_800], pa.decimal128(12, 1)),
        pa.array([1_577_836_800], pa.timestamp("s")),
        pa.array([1_577_836_800_900], pa.timestamp("ms")),
        pa.array([1_577_836_800_000_000_000], pa.timestamp("ns")),
        pa.array([1_577_836_800], pa.timestamp("s", tz="Europe/Berlin")),
        pa.array([18_262], pa.date32()),
        pa.array(["2020-01-01T01:00:00+01:00"]),
        pa.array(["1577836800"]),
    ],
    ids=lambda values: str(values.type),
)
def test_a_time_may_have_many_types(tmp_path: Path, read: Any, rows: Any, values: pa.Array) -> None:
    write_column(tmp_path / "w.parquet", "timestamp", values)
    assert rows(read('watches.files = "w.parquet"'), "SELECT timestamp FROM watches") == [(1_577_836_800,)]


def test_jsonl_may_mix_numbers_and_text(read: Any, rows: Any) -> None:
    lines = (
        '{"user_id": 1, "video_id": "a", "timestamp": 100, "watch_seconds": 5}\n'
        '{"user_id": "x", "video_id": 2, "timestamp": "1970-01-02", "watch_seconds": "6.5"}\n'
    )
    log = read('watches.files = "w.jsonl"', {"w.jsonl": lines})
    assert rows(log, "SELECT user_id, video_id, timestamp, watch_seconds FROM watches") == [
        ("1", "a", 100, 5.0),
        ("x", "2", 86_400, 6.5),
    ]


def test_float_ids_are_integers_and_nan_is_missing(tmp_path: Path, read: Any, rows: Any) -> None:
    write_column(tmp_path / "w.parquet", "video_id", pa.array([7.0, float("nan"), 2**40]))
    log = read('watches.files = "w.parquet"')
    assert rows(log, "SELECT video_id FROM watches") == [(7,), (2**40,)]
    assert rows(log, REJECTS) == [(2, "video_id", "missing")]


def test_a_fraction_in_an_id_is_not_rounded(tmp_path: Path, read: Any, rows: Any) -> None:
    write_column(tmp_path / "w.parquet", "video_id", pa.array([1.5, 2.0]))
    assert rows(read('watches.files = "w.parquet"'), "SELECT video_id FROM watches") == [("1.5",), ("2",)]


def test_one_id_that_is_no_integer_makes_all_of_them_text(read: Any, rows: Any) -> None:
    log = read(
        f'{COLUMN_FILE}users.files = "users.csv"', {"watches.csv": HEADER + GOOD, "users.csv": "user_id\n1\n007\n"}
    )
    assert rows(log, "SELECT user_id FROM watches UNION ALL SELECT user_id FROM users") == [("1",), ("1",), ("007",)]
    assert log.columns("searches")["user_id"] == "VARCHAR"


def write_ids(folder: Path, *columns: pa.Array) -> str:
    """Files of watches with these ids of users, and the TOML text that names them."""
    for place, column in enumerate(columns):
        write_column(folder / f"{place}.parquet", "user_id", column)
    return f"watches.files = {[f'{place}.parquet' for place in range(len(columns))]}"


@pytest.mark.parametrize(
    "columns",
    [
        [pa.array([7, 8], pa.int64())],
        [pa.array([7], pa.int8()), pa.array([8], pa.int32())],
        [pa.array([7], pa.uint8()), pa.array([8], pa.uint32())],
        [pa.array([7, 8], pa.uint64())],
        [pa.array([7], pa.int64()), pa.array(["8"])],
        [pa.array(["7"]), pa.array([8], pa.int64())],
        [pa.array(["7", " 8 "])],
        [pa.array(["7", "8"]).dictionary_encode()],
        [pa.array([7.0]), pa.array([8], pa.uint16())],
    ],
    ids=lambda columns: " and ".join(str(column.type) for column in columns),
)
def test_ids_that_are_all_plain_integers_are_integers_in_every_table(
    tmp_path: Path, read: Any, rows: Any, columns: list[pa.Array]
) -> None:
    log = read(write_ids(tmp_path, *columns))
    assert rows(log, "SELECT user_id FROM watches ORDER BY ALL") == [(7,), (8,)]
    assert {log.columns(table)["user_id"] for table in ("watches", "impressions", "searches", "users")} == {"BIGINT"}


@pytest.mark.parametrize("odd", ["x", "08", "+8", "8.0", "-0", "9223372036854775808"])
@pytest.mark.parametrize("text_first", [True, False])
def test_one_file_with_text_makes_the_ids_of_every_file_text(
    tmp_path: Path, read: Any, rows: Any, odd: str, text_first: bool
) -> None:
    columns = [pa.array(["7", odd]), pa.array([-5, 2**40], pa.int64())]
    log = read(write_ids(tmp_path, *(columns if text_first else columns[::-1])))
    assert set(rows(log, "SELECT user_id FROM watches")) == {("7",), (odd,), ("-5",), ("1099511627776",)}
    assert {log.columns(table)["user_id"] for table in ("watches", "impressions", "searches", "users")} == {"VARCHAR"}
    assert log.columns("watches")["video_id"] == "BIGINT"


def test_text_in_a_later_table_makes_the_ids_of_earlier_ones_text(read: Any, rows: Any) -> None:
    files = {"watches.csv": HEADER + "1,10,100,5\n", "videos.csv": "video_id\nten\n"}
    log = read(f'{COLUMN_FILE}videos.files = "videos.csv"', files)
    assert rows(log, "SELECT user_id, video_id FROM watches") == [(1, "10")]


def test_unsigned_ids_that_no_integer_column_holds_are_kept_as_text(tmp_path: Path, read: Any, rows: Any) -> None:
    log = read(write_ids(tmp_path, pa.array([2**64 - 1, 2**63, 7], pa.uint64())))
    assert rows(log, "SELECT user_id FROM watches") == [("18446744073709551615",), ("9223372036854775808",), ("7",)]
    assert log.rows("rejects") == 0


@pytest.mark.parametrize(("third", "kind"), [("12", "BIGINT"), ("12b", "VARCHAR")])
def test_text_ids_of_videos_meet_the_integers_of_impressions(
    tmp_path: Path, read: Any, rows: Any, third: str, kind: str
) -> None:
    write_column(tmp_path / "impressions.parquet", "video_id", pa.array([11, 10, 11], pa.int32()))
    pq.write_table(pa.table({"video_id": ["10", "11", third], "title": ["A", "B", "C"]}), tmp_path / "videos.parquet")
    log = read('impressions.files = "impressions.parquet"\nvideos.files = "videos.parquet"')
    joined = "SELECT user_id, title FROM impressions JOIN videos USING (video_id) ORDER BY user_id"
    assert rows(log, joined) == [(0, "B"), (1, "A"), (2, "B")]
    assert {log.columns(table)["video_id"] for table in ("impressions", "videos", "watches")} == {kind}


@pytest.mark.parametrize(("written", "flag"), [("true", True), ("0", False), ("f", False), ("", None)])
def test_a_flag_may_be_written_in_many_ways(read: Any, rows: Any, written: str, flag: bool | None) -> None:
    lines = f"user_id,video_id,timestamp,watch_seconds,clicked\n1,10,100,5,{written}\n"
    log = read('impressions.files = "i.csv"', {"i.csv": lines})
    assert rows(log, "SELECT clicked FROM impressions") == [(flag,)]


def test_spaces_around_ids_are_cut(tmp_path: Path, read: Any, rows: Any) -> None:
    write_column(tmp_path / "w.parquet", "user_id", pa.array([" ann ", "bob"]))
    assert rows(read('watches.files = "w.parquet"'), "SELECT user_id FROM watches") == [("ann",), ("bob",)]


# Rows that are not accepted


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        (",10,100,5", "user_id", "missing"),
        ("1,,100,5", "video_id", "missing"),
        ("1,10,,5", "timestamp", "missing"),
        ("1,10,100,", "watch_seconds", "missing"),
        ("1,10,soon,5", "timestamp", "not a time: soon"),
        ("1,10,nan,5", "timestamp", "not a time: nan"),
        ("1,10,-1,5", "timestamp", "before 1970: -1"),
        (
            "1,10,1577836800000,5",
            "timestamp",
            "after the year 2100, perhaps milliseconds (then map timestamp / 1000): 1577836800000",
        ),
        ("1,10,100,long", "watch_seconds", "not a number: long"),
        ("1,10,100,-0.5", "watch_seconds", "negative: -0.5"),
        ("1,10,100,nan", "watch_seconds", "not finite"),
        ("1,10,100,inf", "watch_seconds", "not finite"),
        ("1,10,100,-inf", "watch_seconds", "not finite"),
        ("1,10,100,86400.5", "watch_seconds", "longer than a day, perhaps milliseconds: 86400.5"),
        ("1,10", "timestamp", "missing columns: Expected Number of Columns: 4 Found: 2"),
        ("1,10,100,5,6", "(line)", "too many columns: Expected Number of Columns: 4 Found: 5"),
    ],
)
def test_a_bad_row_is_kept_with_its_reason_and_the_others_stay(
    read_watches: Any, rows: Any, line: str, column: str, reason: str
) -> None:
    log = read_watches(f"{GOOD}{line}\n{GOOD}{GOOD}")
    assert rows(log, "SELECT * FROM rejects") == [("watches", str(log.mapping.sources[0].files[0]), 2, column, reason)]
    assert log.rows("watches") == 3


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
@pytest.mark.parametrize("table", ["watches", "impressions"])
def test_parquet_seconds_that_are_not_finite_are_rejected(
    tmp_path: Path, read: Any, rows: Any, kind: pa.DataType, odd: float, table: str
) -> None:
    """Parquet's statistics leave NaN out: a check that trusts them finds none."""
    write_column(tmp_path / "w.parquet", "watch_seconds", pa.array([1.0, odd, 3.0], kind))
    log = read(f'{table}.files = "w.parquet"')
    assert rows(log, REJECTS) == [(2, "watch_seconds", "not finite")]
    assert rows(log, f"SELECT watch_seconds FROM {table}") == [(1.0,), (3.0,)]


def test_a_watch_of_exactly_a_day_and_of_nothing_are_accepted(read_watches: Any) -> None:
    assert read_watches("1,10,100,86400\n1,10,200,0\n").rows("rejects") == 0


def test_rows_keep_their_numbers_behind_broken_lines(read_watches: Any, rows: Any) -> None:
    # Rows 1, 3 and 4 cannot be split into columns; rows 2, 5 and 7 can, but are negative.
    log = read_watches("1\n1,1,1,-2\n3,3\n4\n5,5,5,-5\n6,6,6,6\n7,7,7,-7\n8,8,8,8\n")
    assert [row for row, *_ in rows(log, REJECTS)] == [1, 2, 3, 4, 5, 7]
    assert rows(log, "SELECT user_id FROM watches") == [(6,), (8,)]


def test_a_number_that_comes_too_late_for_the_sniffer_is_rejected(read_watches: Any, rows: Any) -> None:
    log = read_watches("1,10,100,5\n" * 30_000 + "1,10,100,long\n" + GOOD)
    [(row, column, reason)] = rows(log, REJECTS)
    assert (row, column) == (30_001, "watch_seconds")
    assert "long" in reason
    assert log.rows("watches") == 30_001


def test_a_csv_file_without_a_header_counts_from_its_first_line(read: Any, rows: Any) -> None:
    columns = "".join(
        f'{name} = "column{place}"\n'
        for place, name in enumerate(("user_id", "video_id", "timestamp", "watch_seconds"))
    )
    toml = f'[watches]\nfiles = "w.csv"\n[watches.columns]\n{columns}'
    log = read(toml, {"w.csv": "1,2,100,5\n1,2\n3,4,200,6\n3,4,200,-6\n"})
    assert [row for row, *_ in rows(log, REJECTS)] == [2, 4]


def test_a_line_that_is_no_json_is_rejected(read: Any, rows: Any) -> None:
    good = '{"user_id": 1, "video_id": 2, "timestamp": 100, "watch_seconds": 5}\n'
    log = read('watches.files = "w.jsonl"', {"w.jsonl": f"{good}no json\n{good}"})
    assert (rows(log, REJECTS), log.rows("watches")) == ([(2, "user_id", "missing")], 2)


def test_the_second_row_of_a_user_or_video_is_rejected(read: Any, rows: Any) -> None:
    files = {
        "watches.csv": HEADER + GOOD,
        "users.csv": "user_id,age\n1,30\n1,31\n2,32\n",
        "videos.csv": "video_id,title\n10,first\n11,other\n10,second\n",
    }
    log = read(f'{COLUMN_FILE}users.files = "users.csv"\nvideos.files = "videos.csv"', files)
    assert rows(log, "SELECT age FROM users ORDER BY user_id") == [(30,), (32,)]
    assert rows(log, "SELECT title FROM videos ORDER BY video_id") == [("first",), ("other",)]
    assert rows(log, 'SELECT "table", row, "column", reason FROM rejects') == [
        ("users", 2, "user_id", "this id came before"),
        ("videos", 3, "video_id", "this id came before"),
    ]


def test_optional_columns_are_checked_too(read: Any, rows: Any) -> None:
    files = {"watches.csv": HEADER + GOOD, "users.csv": "user_id,age\n1,30\n2,old\n3,\n"}
    log = read(f'{COLUMN_FILE}users.files = "users.csv"', files)
    assert rows(log, REJECTS) == [(2, "age", "not a number: old")]
    assert log.rows("users") == 2


def test_unknown_watch_times_are_accepted_where_the_file_says_null(read: Any, rows: Any) -> None:
    toml = '[watches]\nfiles = "w.csv"\n[watches.columns]\nwatch_seconds = "NULL"\ncompleted = "true"\n'
    log = read(toml, {"w.csv": "user_id,video_id,timestamp\n1,2,100\n"})
    assert rows(log, "SELECT watch_seconds, completed FROM watches") == [(None, True)]
    assert log.rows("rejects") == 0


def test_rejects_are_written_with_file_row_column_and_reason(read_watches: Any, tmp_path: Path) -> None:
    read_watches("1,10,100,-5\n").write_rejects(tmp_path / "new" / "rejects.parquet")
    [reject] = pq.read_table(tmp_path / "new" / "rejects.parquet").to_pylist()
    assert (Path(reject["file"]).name, reject["row"]) == ("watches.csv", 1)
    assert (reject["table"], reject["column"], reject["reason"]) == ("watches", "watch_seconds", "negative: -5.0")


# Too many of them


def test_timestamps_in_milliseconds_are_refused_with_a_hint(read_watches: Any) -> None:
    log = read_watches("".join(f"1,10,{1_577_836_800_000 + row},5\n" for row in range(12)))
    with pytest.raises(DataError) as refused:
        log.refuse_too_many_rejects()
    first, *lines = str(refused.value).splitlines()
    assert first.startswith("12 of 12 rows were rejected, more than the 1.0% that [log] max_reject_share allows")
    assert [line.split(":")[0] for line in lines] == [f"  watches.csv row {row}" for row in range(1, 11)]
    assert all("perhaps milliseconds (then map timestamp / 1000)" in line for line in lines)


def test_repeated_users_are_named_by_their_table(read: Any) -> None:
    files = {"watches.csv": HEADER + GOOD, "users.csv": "user_id\n1\n1\n"}
    with pytest.raises(DataError, match="\n  users row 2: user_id: this id came before"):
        read(f'{COLUMN_FILE}users.files = "users.csv"', files).refuse_too_many_rejects()


@pytest.mark.parametrize(("num_good", "refused"), [(98, True), (99, False)])
def test_one_percent_is_just_allowed(read_watches: Any, num_good: int, refused: bool) -> None:
    log = read_watches(GOOD * num_good + "1,10,100,-1\n")
    if refused:
        with pytest.raises(DataError, match="1 of 99 rows were rejected"):
            log.refuse_too_many_rejects()
    else:
        log.refuse_too_many_rejects()


def test_an_empty_log_is_refused(read_watches: Any) -> None:
    with pytest.raises(DataError, match="no watches and no impressions: there is nothing to learn from"):
        read_watches("").refuse_too_many_rejects()


# Columns and expressions


def test_columns_may_be_expressions(read: Any, rows: Any) -> None:
    toml = """
    [watches]
    files = "w.csv"
    where = "kind = 'play' OR kind = 'replay'"
    [watches.columns]
    user_id = "account"
    video_id = "CAST(split_part(path, '/', 2) AS INTEGER)"
    timestamp = "time_ms / 1000"
    watch_seconds = "to_second - from_second"
    surface = "upper(kind)"
    """
    lines = "account,path,time_ms,from_second,to_second,kind\n007,v/5,2000,1,4,play\n8,v/6,3000,0,1,pause\n"
    log = read(toml, {"w.csv": lines})
    assert rows(log, "SELECT * FROM watches") == [("007", 5, 2, 3.0, None, "PLAY")]


def test_rows_that_where_leaves_out_still_count(read: Any, rows: Any) -> None:
    toml = f"{COLUMN_FILE}watches.where = 'user_id <> 1'"
    log = read(toml, {"watches.csv": HEADER + "1,1,1,1\n2,2,2,-2\n"})
    assert [row for row, *_ in rows(log, REJECTS)] == [2]


@pytest.mark.parametrize(
    "mapping",
    ['where = "NOT isnan(watch_seconds)"', "columns.watch_seconds = 'if(isnan(watch_seconds), 2, watch_seconds)'"],
)
def test_an_expression_may_tell_nan_in_parquet(tmp_path: Path, read: Any, mapping: str) -> None:
    write_column(tmp_path / "w.parquet", "watch_seconds", pa.array([1.0, float("nan"), 3.0]))
    assert read(f'[watches]\nfiles = "w.parquet"\n{mapping}').rows("rejects") == 0


def test_a_list_becomes_a_row_for_each_entry(read: Any, rows: Any) -> None:
    toml = """
    [watches]
    files = "w.jsonl"
    [watches.columns]
    video_id = "unnest(videos)"
    timestamp = "last - 60 * (len(videos) - 1 - unnest(range(len(videos))))"
    watch_seconds = "NULL"
    """
    log = read(toml, {"w.jsonl": '{"user_id": 1, "videos": [7, 8, 9], "last": 1000}\n'})
    assert rows(log, "SELECT video_id, timestamp FROM watches") == [(7, 880), (8, 940), (9, 1000)]


def test_several_sources_fill_one_table(read: Any, rows: Any) -> None:
    toml = """
    [[watches]]
    files = "a.csv"
    [[watches]]
    files = "b.jsonl"
    [watches.columns]
    user_id = "u"
    """
    files = {
        "a.csv": HEADER + GOOD,
        "b.jsonl": '{"u": 2, "video_id": 11, "timestamp": 200, "watch_seconds": 6, "surface": "tv"}\n',
    }
    assert rows(read(toml, files), "SELECT user_id, video_id, surface FROM watches") == [(1, 10, None), (2, 11, "tv")]


def test_further_columns_of_users_are_text_or_numbers(read: Any, rows: Any) -> None:
    toml = COLUMN_FILE + 'users = {files = "users.csv", columns = {plan = "plan", score = "score", zip = "zip::TEXT"}}'
    log = read(toml, {"watches.csv": HEADER + GOOD, "users.csv": "user_id,plan,score,zip\n1,free,3,8001\n"})
    assert rows(log, "SELECT plan, score, zip FROM users") == [("free", 3.0, "8001")]


def test_columns_that_are_not_mapped_stay_outside(read: Any) -> None:
    log = read(
        f'{COLUMN_FILE}users.files = "users.csv"', {"watches.csv": HEADER + GOOD, "users.csv": "user_id,secret\n1,x\n"}
    )
    assert "secret" not in log.columns("users")


def test_a_further_column_that_is_a_number_here_and_text_there_is_refused(read: Any) -> None:
    toml = COLUMN_FILE + 'users = {files = ["1.csv", "2.csv"], columns = {zip = "zip"}}'
    files = {"watches.csv": HEADER + GOOD, "1.csv": "user_id,zip\n1,8001\n", "2.csv": "user_id,zip\n2,A1\n"}
    with pytest.raises(DataError, match=r"\[users\] .*2\.csv: .* cannot convert: .*'A1' to DOUBLE"):
        read(toml, files)


@pytest.mark.parametrize("name", ["user", "current_user", "user id", "select"])
def test_a_column_may_be_called_like_a_word_of_sql(read: Any, rows: Any, name: str) -> None:
    toml = f'{COLUMN_FILE}[watches.columns]\nuser_id = "{name}"'.replace("watches.files", "[watches]\nfiles")
    log = read(toml, {"watches.csv": HEADER.replace("user_id", name) + GOOD})
    assert rows(log, "SELECT user_id FROM watches") == [(1,)]


def test_a_missing_column_names_the_nearest_and_lists_all(read: Any) -> None:
    lines = "users_id,video_id,timestamp,watch_seconds\n1,2,3,4\n"
    with pytest.raises(DataError) as refused:
        read(COLUMN_FILE, {"watches.csv": lines})
    assert str(refused.value) == (
        "[watches] needs user_id, but watches.csv has no column of that name; it has: users_id, video_id, timestamp, "
        "watch_seconds. The nearest is 'users_id'. Map it under [watches.columns]."
    )


@pytest.mark.parametrize("word", ["usr_id", "user"])
def test_a_column_that_is_mapped_but_not_there_names_the_nearest(read: Any, word: str) -> None:
    with pytest.raises(DataError, match=rf"\[watches\] needs {word}, .* it has: user_id, .* The nearest is 'user_id'"):
        read(f'[watches]\nfiles = "watches.csv"\ncolumns.user_id = "{word}"', {"watches.csv": HEADER + GOOD})


def test_an_unknown_column_in_an_expression_names_the_nearest(read: Any) -> None:
    with pytest.raises(
        DataError, match=r"cannot be read from watches\.csv.* It has: user_id.* Did you mean 'timestamp'"
    ):
        read('[watches]\nfiles = "watches.csv"\ncolumns.timestamp = "time_stamp / 2"', {"watches.csv": HEADER + GOOD})


def test_an_unknown_column_in_where_names_the_nearest(read: Any) -> None:
    with pytest.raises(DataError, match="Did you mean 'watch_seconds'"):
        read(f'{COLUMN_FILE}watches.where = "watch_second > 3"', {"watches.csv": HEADER + GOOD})


@pytest.mark.parametrize("expression", ["timestamp +", "no_such_function(timestamp)"])
def test_an_expression_that_is_not_sql_is_refused(read: Any, expression: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\[watches\] has an expression that is not SQL: "):
        read(f'[watches]\nfiles = "watches.csv"\ncolumns.timestamp = "{expression}"', {"watches.csv": HEADER + GOOD})


@pytest.mark.parametrize("expression", ["CAST(video_id AS INTEGER)", "timestamp * 9223372036854775807"])
def test_an_expression_that_cannot_convert_a_value_is_refused(read: Any, expression: str) -> None:
    with pytest.raises(DataError, match=r"an expression met a value that it cannot convert: .* Use TRY_CAST"):
        read(
            f'[watches]\nfiles = "watches.csv"\ncolumns.timestamp = "{expression}"',
            {"watches.csv": HEADER + "1,ten,100,5\n"},
        )


@pytest.mark.parametrize("name", ["watches.csv", "watches.jsonl"])
def test_an_empty_file_lacks_its_columns(read: Any, name: str) -> None:
    with pytest.raises(DataError, match="needs user_id"):
        read(f'watches.files = "{name}"', {name: ""})
