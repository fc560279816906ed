import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from watchnext.errors import DataError
from watchnext.events.rows import read_rows

ALL = ("user_id", "video_id", "timestamp")


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_columns_come_in_the_order_of_the_file(write):
    rows = read_rows(write("rows.csv", "user_id,video_id,timestamp\n3,b,30\n1,a,10\n"), ALL, ("surface",), {})
    assert rows.columns == {"user_id": [3, 1], "video_id": ["b", "a"], "timestamp": [30, 10]}
    assert rows.timestamps().tolist() == [30, 10]
    assert rows.table.column_names == ["user_id", "video_id", "timestamp"]


def test_a_code_stays_a_code_and_a_number_a_number(write):
    path = write("rows.csv", "user_id,video_id\n007,1\n7,2\n")
    rows = read_rows(path, ("user_id", "video_id"), (), {})
    assert rows.columns["user_id"] == ["007", "7"]
    assert rows.table["user_id"].to_pylist() == ["007", "7"]
    assert rows.table["video_id"].to_pylist() == [1, 2]


def test_whole_ids_stored_as_floats_are_integers(tmp_path):
    pq.write_table(pa.table({"user_id": [12.0, 13.0]}), tmp_path / "users.parquet")
    assert read_rows(tmp_path / "users.parquet", ("user_id",), (), {}).columns["user_id"] == ["12", "13"]


def test_json_lines_may_mix_strings_and_integers(write):
    path = write("users.jsonl", '{"user_id": "ann"}\n{"user_id": 7}\n')
    assert read_rows(path, ("user_id",), (), {}).columns["user_id"] == ["ann", "7"]


def test_the_layout_of_the_log_gives_the_columns(write):
    layout = {"user_id": "uid", "timestamp": "ms / 1000", "video_id": "item", "surface": "upper(page)"}
    path = write("rows.csv", "uid,item,ms,page\n007,a,5000,home\n")
    rows = read_rows(path, ALL, ("surface",), layout)
    assert rows.columns == {"user_id": ["007"], "video_id": ["a"], "timestamp": [5], "surface": ["HOME"]}


def test_a_column_of_the_schemas_name_wins(write):
    path = write("rows.csv", "user_id,uid\n1,2\n")
    assert read_rows(path, ("user_id",), (), {"user_id": "uid"}).columns["user_id"] == [1]


def test_an_optional_column_may_be_absent(write):
    rows = read_rows(write("users.csv", "user_id\n1\n"), ("user_id",), ("surface",), {"surface": "page"})
    assert set(rows.columns) == {"user_id"}


def test_a_missing_optional_value_is_none(tmp_path):
    pq.write_table(pa.table({"user_id": [1, 2], "surface": ["home", None]}), tmp_path / "rows.parquet")
    assert read_rows(tmp_path / "rows.parquet", ("user_id",), ("surface",), {}).columns["surface"] == ["home", None]


@pytest.mark.parametrize(
    "moment",
    [
        pa.array([datetime.datetime(2026, 10, 3, 8, 15)]),
        pa.array([datetime.datetime(2026, 10, 3, 8, 15, tzinfo=datetime.UTC)]),
        pa.array(["2026-10-03T08:15:00Z"]),
        pa.array(["2026-10-03 10:15:00+02:00"]),
        pa.array([1_791_015_300]),
        pa.array([1_791_015_300.9]),
        pa.array(["1791015300"]),
    ],
)
def test_times_are_read_as_those_of_a_log(tmp_path, moment):
    pq.write_table(pa.table({"timestamp": moment}), tmp_path / "rows.parquet")
    assert read_rows(tmp_path / "rows.parquet", ("timestamp",), (), {}).timestamps().tolist() == [1_791_015_300]


def test_a_file_without_rows_has_empty_columns(write):
    rows = read_rows(write("users.csv", "user_id\n"), ("user_id",), (), {})
    assert rows.columns == {"user_id": []} and rows.table.num_rows == 0


def test_no_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        read_rows(tmp_path / "users.csv", ("user_id",), (), {})


def test_an_unknown_ending_is_refused(write):
    with pytest.raises(DataError, match=r"a file ending in \.parquet, \.csv"):
        read_rows(write("users.xlsx", "user_id\n1\n"), ("user_id",), (), {})


def test_a_file_that_is_not_what_it_says_is_refused(write):
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read_rows(write("users.parquet", "user_id\n1\n"), ("user_id",), (), {})


def test_an_absent_column_is_refused_with_those_present(write):
    with pytest.raises(DataError, match="has no column user_id; it has: uid, name"):
        read_rows(write("users.csv", "uid,name\n1,x\n"), ("user_id",), (), {})


def test_an_expression_over_absent_columns_gives_no_column(write):
    with pytest.raises(DataError, match="has no column timestamp"):
        read_rows(write("rows.csv", "user_id\n1\n"), ("timestamp",), (), {"timestamp": "ms / 1000"})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "row 2: timestamp: missing"),
        ("yesterday", "row 2: timestamp: not a time: yesterday"),
        ("1791015300000", "row 2: timestamp: after the year 2100, perhaps milliseconds"),
        ("-5", "row 2: timestamp: before 1970"),
    ],
)
def test_a_bad_time_is_refused_with_its_row(write, value, reason):
    with pytest.raises(DataError, match=reason):
        read_rows(write("rows.csv", f"user_id,timestamp\n1,10\n2,{value}\n3,20\n"), ("timestamp",), (), {})


def test_a_missing_id_is_refused_with_its_row(write):
    with pytest.raises(DataError, match=r"users\.csv row 2: user_id: missing"):
        read_rows(write("users.csv", "user_id,name\n1,x\n,y\n"), ("user_id",), (), {})


def test_a_broken_csv_line_is_refused(write):
    lines = "".join(f"{row},{row}\n" for row in range(50))
    with pytest.raises(DataError, match=r"rows\.csv row 51"):
        read_rows(write("rows.csv", f"user_id,timestamp\n{lines}1,2,3,4\n5,6\n"), ("user_id", "timestamp"), (), {})


def test_a_broken_json_line_is_refused(write):
    with pytest.raises(DataError, match=r"row 2: user_id: missing"):
        read_rows(write("users.jsonl", '{"user_id": 1}\n{"user_id": \n{"user_id": 2}\n'), ("user_id",), (), {})


def test_an_expression_that_meets_an_odd_value_is_refused(write):
    with pytest.raises(DataError, match="cannot be read as csv: Conversion Error"):
        read_rows(write("rows.csv", "t\n1\nx\n"), ("timestamp",), (), {"timestamp": "CAST(t AS BIGINT)"})


def test_a_layout_that_makes_several_events_of_a_row_is_refused(tmp_path):
    pq.write_table(pa.table({"user_id": [1, 2], "videos": [[1, 2], [3, 4]]}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="several events of one row"):
        read_rows(tmp_path / "rows.parquet", ("user_id", "video_id"), (), {"video_id": "unnest(videos)"})
