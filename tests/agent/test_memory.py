"""What the memory readers say agrees with what another library reads."""

import os

import psutil
import pytest

from edge_agent.memory import available_bytes, resident_bytes


@pytest.mark.parametrize("pid", [None, os.getpid()])
def test_a_process_holds_what_psutil_says(pid):
    assert resident_bytes(pid) == pytest.approx(psutil.Process().memory_info().rss, rel=0.05)


def test_what_is_available_is_what_psutil_says():
    assert available_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.2)
