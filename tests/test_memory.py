import platform

import pytest

from watchnext.memory import keep_freed_memory


@pytest.mark.parametrize(("libc", "listens"), [("glibc", True), ("musl", False)])
def test_only_glibc_is_told(monkeypatch, libc, listens):
    if platform.libc_ver()[0] != "glibc" and listens:
        pytest.skip("no glibc on this machine")
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, "2.36"))
    assert keep_freed_memory() is listens
