"""Planning a million images before the first is decoded: listing, splits, shards, in the driver.

    python tests/bench/bench_plan.py                    # two minutes and a million empty files in a temporary folder
    python tests/bench/bench_plan.py --images 100000

Prints one JSON line a figure.
"""

import argparse
import json
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from mammoflow.config import Config, SplitConfig
from mammoflow.data import releases
from mammoflow.data.ingest import images

FOLDER = 1000
"""Files of a folder."""
VIEWS = (("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO"))


def make(root: Path, number: int) -> None:
    """Write a source of users' own images, empty ones: nothing of them is read before they are decoded."""
    lines = ["path,patient_id,label,laterality,view"]
    for index in range(number):
        path = root / f"{index // FOLDER:05}" / f"{index}.dcm"
        if index % FOLDER == 0:
            path.parent.mkdir()
        path.touch()
        patient, view = divmod(index, len(VIEWS))
        lines.append(f"{path.parent.name}/{path.name},P{patient},{int(patient % 8 == 0)},{','.join(VIEWS[view])}")
    (root / "images.csv").write_text("\n".join(lines) + "\n")


def figure(name: str, value: float, unit: str, goal: str, against: str, **more: object) -> None:
    print(
        json.dumps({"figure": name, "value": round(value, 3), "unit": unit, "goal": goal, "against": against, **more})
    )


def main() -> None:
    """Make the files, plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    number = parser.parse_args().images
    config = replace(Config(name="bench"), dataset="csv_folder", splits=SplitConfig(protocol="paper"))
    with tempfile.TemporaryDirectory(prefix="mf-") as folder:
        make(Path(folder), number)
        began = time.perf_counter()
        listing = releases.read("csv_folder", folder, lambda: "salt")
        exams = images._split(listing.exams, config)
        jobs = images._decode_jobs(exams, listing.files.sizes(), config)
        seconds = time.perf_counter() - began
    assert sum(job.units for job in jobs) == exams.num_rows == number
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    figure("plan_s", seconds, "s", "< 120 for a million", f"{number} images", shards=len(jobs))
    figure("plan_gib", peak, "GiB", "< 8, half a head's", f"{number} images, the driver's whole process")


if __name__ == "__main__":
    main()
