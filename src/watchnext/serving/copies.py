"""The process that those which answer are copies of.

A copy of the server itself would have its locks, not its threads. One of a process that has but loaded the program is
there at once, and what both never change is in memory once.
"""

import multiprocessing
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext


def context() -> ForkServerContext:
    """Gives what makes such copies."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["__main__", "watchnext.serving.preloaded"])
    return made


def begin() -> None:
    """Lets the process begin to load, and does not wait for it."""
    context()
    forkserver.ensure_running()
