import tomllib

import pytest
from rich.console import Console

from watchnext.cli.tables import print_recommendations, print_report, print_trial
from watchnext.config import Config, from_mapping, settings_lines
from watchnext.evaluation.bootstrap import Estimate
from watchnext.evaluation.reliability import GroupReliability
from watchnext.evaluation.report import Report
from watchnext.pipeline.trial import ArmResult
from watchnext.serving.recommendation import Recommendation


def test_settings_are_the_defaults_as_toml(watchnext, capsys):
    assert watchnext("settings") == 0
    assert from_mapping(Config, tomllib.loads(capsys.readouterr().out), "") == Config()


def test_every_setting_is_explained():
    lines = list(settings_lines())
    for place, line in enumerate(lines):
        if ("=" in line and not line.startswith("# ")) or line.endswith(" ="):
            assert lines[place - 1].startswith("# ")


@pytest.mark.parametrize("title", ["[/b]", "[red]", "a [live] set", "\\["])
def test_a_title_is_printed_as_it_is(title, capsys):
    one = Recommendation(1, title, "channel", None, None, None, 61.0, 61.0, ("network",))
    print_recommendations(f"for user {title}", [one])
    told = capsys.readouterr().out
    assert told.count(title) == 2 and "1:01" in told


def test_columns_that_nothing_fills_are_left_out(capsys):
    print_recommendations("for user 1", [Recommendation("x", None, None, None, None, None, 0.5, None, ("network",))])
    told = capsys.readouterr().out
    assert "title" not in told and "channel" not in told and "network" in told


def test_a_trial_is_a_row_for_each_arm(capsys, monkeypatch):
    monkeypatch.setattr("watchnext.cli.tables._OUT", Console(markup=False, width=200))
    numbers = (Estimate(place + 0.25, place - 0.25, place + 2.0) for place in range(100, 1100, 100))
    print_trial({name: ArmResult(*(next(numbers) for _ in range(5))) for name in ("watchnext", "[red]")})
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    # Shares are percentages; the system under test is not ahead of itself.
    assert [row for row in rows if row] == [
        ["watchnext", "100 [100, 102]", "", "300", "40025% [39975%, 40200%]", "500.25"],
        ["[red]", "600 [600, 602]", "700 [700, 702]", "800", "90025% [89975%, 90200%]", "1000.25"],
    ]


def test_a_trial_names_its_columns_and_explains_them(capsys, monkeypatch):
    monkeypatch.setattr("watchnext.cli.tables._OUT", Console(markup=False, width=200))
    print_trial({})
    told = capsys.readouterr().out
    for words in ("watched", "watchnext is ahead by", "expected", "share of the ideal", "clicks", "with the same luck"):
        assert words in told


def cells(told: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in told.splitlines()]
    return [row for row in rows if row]


def test_a_report_has_a_row_for_each_group(capsys, monkeypatch):
    monkeypatch.setattr("watchnext.cli.tables._OUT", Console(markup=False, width=200))
    nobody = Estimate(float("nan"), float("nan"), float("nan"))
    groups = {
        "video_age": [GroupReliability("under 1 day", 1_234, 31.26, 26.04, Estimate(1.2, 1.1, 1.3))],
        "surface": [GroupReliability("[red]", 1, 4.0, 0.0, nobody)],
    }
    print_report(Report({}, {}, {}, [], groups, {}, {}, ["a note"], []))
    told = capsys.readouterr().out
    assert "expected / watched" in told and "a note" in told
    assert cells(told) == [
        ["video age", "", "", "", ""],
        ["under 1 day", "1,234", "31.3", "26.0", "1.200 [1.100, 1.300]"],
        ["surface", "", "", "", ""],
        ["[red]", "1", "4.0", "0.0", "–"],
    ]


def test_a_report_without_groups_has_no_table_of_them(capsys):
    print_report(Report({}, {}, {}, [], {}, {}, {}, ["a note"], []))
    assert capsys.readouterr().out == "a note\n"
