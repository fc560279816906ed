"""What a process that answers needs, imported once for all of them: see `watchnext.serving.copies`."""

from watchnext.loading import load

load("watchnext.serving.workers")
