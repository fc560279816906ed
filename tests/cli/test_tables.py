import tomllib

import pytest
from rich.console import Console

from watchnext.cli.tables import print_recommendations, print_trial, settings_lines
from watchnext.config import Config, from_mapping
from watchnext.evaluation.bootstrap import Estimate
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
    print_recommendations(f"for user {title}", [Recommendation(1, 61.0, 61.0, ("network",), title, "channel")])
    told = capsys.readouterr().out
    assert told.count(title) == 2 and "1:01" in told


def test_columns_that_nothing_fills_are_left_out(capsys):
    print_recommendations("for user 1", [Recommendation("x", 0.5, None, ("network",))])
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
