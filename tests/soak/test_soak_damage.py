"""The whole storm of damaged files: `make soak`."""

from pathlib import Path

import damage
import pytest

pytestmark = pytest.mark.soak


def test_twenty_thousand_damaged_files(tmp_path: Path) -> None:
    found = damage.storm(1_000, 21_000, tmp_path)
    assert found.wrong == []
    assert found.verdicts.total() == 20_000
    assert found.peak < 2**30
    assert found.slowest < damage.TIME_LIMIT
