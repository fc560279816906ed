"""What is imported when: in processes of their own, as nothing is imported twice."""

import gc
import subprocess
import sys

import pytest

import watchnext
from watchnext.loading import load


def said_by(program):
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stderr == ""  # DuckDB says here what it misses when the interpreter ends
    return ended.stdout.split()


def test_help_does_not_wait_for_pytorch():
    program = """
import sys
from watchnext.cli import app
try:
    app(["train-ranking", "--help"])
finally:
    print([name for name in ("torch", "numpy", "fastapi", "duckdb", "watchnext.pipeline") if name in sys.modules])
"""
    assert said_by(program)[-1] == "[]"


def test_a_promised_name_is_imported_when_it_is_asked_for():
    program = """
import sys, watchnext
print("torch" in sys.modules, "Run" in dir(watchnext))
print(watchnext.Run.__name__, watchnext.Run is watchnext.pipeline.Run, "torch" in sys.modules)
"""
    assert said_by(program) == ["False", "True", "Run", "True", "True"]


def test_a_name_that_nobody_promised_is_refused():
    with pytest.raises(AttributeError, match="module 'watchnext' has no attribute 'recommender'"):
        watchnext.recommender  # noqa: B018


def test_what_is_loaded_is_left_out_of_the_collector_and_nothing_is_left_at_the_end():
    program = """
import gc
from watchnext.loading import load
load("watchnext.events.readers")
print(gc.get_freeze_count() > 10 * len(gc.get_objects()), gc.isenabled())
frozen = gc.get_freeze_count()
kept = [[number] for number in range(1000)]
load("watchnext.events.readers")
print(gc.get_freeze_count() == frozen)
"""
    assert said_by(program) == ["True", "True", "True"]


def test_a_module_that_cannot_be_imported_leaves_the_collector_on():
    with pytest.raises(ModuleNotFoundError):
        load("watchnext.nothing")
    assert gc.isenabled()
    gc.unfreeze()
