import tomllib

import pytest

from watchnext.cli.tables import print_recommendations, settings_lines
from watchnext.config import Config, from_mapping
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
