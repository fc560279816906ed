import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.progress import Progress

from watchnext import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """What a person at a terminal of 200 columns sees."""
    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=screen))
    monkeypatch.setattr(progress, "console", Console(file=screen, force_terminal=True, width=200))
    return screen


def without_colours(text):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_a_message_goes_to_standard_error_alone(capsys):
    progress.say("halfway")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "halfway\n")


@pytest.mark.parametrize(
    "message", ["see [split] in log.toml", "[/nothing]", ":smile: /tmp/a:b:c", "word " * 60 + "end"]
)
def test_a_message_is_one_line_as_it_stands(capsys, message):
    progress.say(message)
    assert capsys.readouterr().err == message + "\n"


def test_a_message_may_be_bold(terminal):
    progress.say("prepare", "bold")
    assert terminal.getvalue() == "\x1b[1mprepare\x1b[0m\n"


def test_a_bar_is_silent_where_there_is_no_terminal(capsys):
    with progress.bar("learning", 3) as steps:
        steps.advance()
        steps.say("loss 1")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_bar_shows_description_count_and_note(terminal):
    with progress.bar("learning", 8) as steps:
        steps.advance()
        steps.advance(4)
        steps.say("loss 0.5")
    shown = without_colours(terminal.getvalue())
    assert "learning" in shown and "5/8" in shown and "loss 0.5" in shown


def test_the_rate_is_shown_in_steps_a_second():
    clock = [0.0]
    shown = Progress(get_time=lambda: clock[0], disable=True)
    shown.add_task("learning", total=9999)
    [task] = shown.tasks
    assert progress.RateColumn().render(task).plain == ""
    for _ in range(3):
        clock[0] += 2.0
        shown.advance(task.id, 2469)
    assert progress.RateColumn().render(task).plain == "1,234.5/s"
