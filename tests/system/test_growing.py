"""Ray's real autoscaler: a submitted search raises CPU nodes to decode, a GPU node to train, and all of them go."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.mark.system
@pytest.mark.parametrize("gpu", [True, False])
def test_nodes_come_with_the_work_and_go(gpu: bool) -> None:
    network = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "_"]
    if subprocess.run([*network, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a network namespace can't be had here: it takes root")
    folder = tempfile.mkdtemp(prefix="mf-")  # a socket's path must be short
    words = ["jobs/tune_top_layers.py", "smoke", "--compute.gpu" if gpu else "--compute.no-gpu"]
    done = subprocess.run(
        [*network, sys.executable, str(SUPPORT / "growing_cluster.py"), folder, *words],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["rc"] == 0, found["said"][-3000:]
    assert "Whole-image candidates" in found["said"]
    noted = found["noted"]
    assert (noted[0]["cpu"], noted[0]["gpu"]) == (0, 0), "it begins with a head alone"
    first = {kind: [each["s"] for each in noted if each[kind]] for kind in ("cpu", "gpu")}
    if gpu:
        assert first["cpu"][0] < first["gpu"][0], "what is decoded comes before what is trained"
    else:
        assert not first["gpu"], "nobody asks for a GPU"
    assert (noted[-1]["cpu"], noted[-1]["gpu"]) == (0, 0), "and ends with a head alone"
    ended = next(each["s"] for each in noted if each["over"])
    came = ", ".join(f"{kind} node after {seconds[0]} s" for kind, seconds in first.items() if seconds)
    print(f"{came}, job {ended} s, zero {noted[-1]['s']} s")
