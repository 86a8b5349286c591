"""A cluster as cluster.yaml describes it, of nodes on this machine, and a job on it; run in a network of its own.

    unshare --net python tests/support/growing_cluster.py FOLDER WORDS...

Starts a head without CPUs beside Ray's own autoscaler, submits `python WORDS...` with `ray job submit`, notes each
second how many nodes of which kind there are until all workers are gone again, and prints all of it as JSON.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[1]
BIN = Path(sys.executable).parent
GCS, DASHBOARD, TRACKING = 6379, 8265, 5000
TYPES = {
    "cpu": {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    "gpu": {"resources": {"CPU": 2, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 1},
}


def config() -> dict[str, Any]:
    """Return what the autoscaler reads, with the groups of cluster.yaml."""
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    provider = {
        "type": "external",
        "module": "local_nodes.LocalNodes",
        "gcs_address": f"127.0.0.1:{GCS}",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "foreground_node_launch": True,
    }
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "growing",
        "max_workers": 3,
        "upscaling_speed": 4,
        "idle_timeout_minutes": 0.2,
        "provider": provider,
        "auth": {},
        "docker": {},
        "available_node_types": {"ray.head.default": head, **TYPES},
        "head_node_type": "ray.head.default",
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": [] for name in commands},
    }


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of the head, as cluster.yaml gives it one, and of all that it starts."""
    nodes = {name: {"nodes": kind["max_workers"], **kind["resources"]} for name, kind in TYPES.items()}
    return os.environ | {
        "PYTHONPATH": f"{SUPPORT}:{ROOT}",
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(folder),
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "MAMMOFLOW_LAKE": str(folder / "lake"),
        "MAMMOFLOW_SHARED_LAKE": "1",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{TRACKING}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MAMMOFLOW_GPU_STAND_IN": "cpu",
        "MAMMOFLOW_NODES": json.dumps(nodes),
        "OMP_NUM_THREADS": "1",
    }


def kinds() -> dict[str, int]:
    """Count the workers that are alive by kind."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpu = sum("GPU" in resources for resources in alive)
    return {"gpu": gpu, "cpu": sum("CPU" in resources for resources in alive) - gpu}


def watch(job: "subprocess.Popen[str]", until: float) -> list[dict[str, Any]]:
    """Note how many workers there are, until the job is over and they are gone."""
    began, noted = time.monotonic(), []
    while time.monotonic() - began < until:
        counts, over = kinds(), job.poll() is not None
        noted.append({"s": round(time.monotonic() - began, 1), "over": over, **counts})
        if over and not any(counts.values()):
            break
        time.sleep(1)
    return noted


def main() -> None:
    """Run it."""
    folder, words = Path(sys.argv[1]), sys.argv[2:]
    (folder / "autoscaler.yaml").write_text(json.dumps(config()))
    env = environment(folder)
    os.environ.update(env)
    import ray  # it reads the environment when it is imported

    subprocess.run([BIN / "ray", "get-auth-token", "--generate"], env=env, check=True, capture_output=True)
    start = [BIN / "ray", "start", "--head", "--block", "--num-cpus=0", f"--port={GCS}", "--node-ip-address=127.0.0.1"]
    start += ["--dashboard-host=127.0.0.1", f"--dashboard-port={DASHBOARD}", "--min-worker-port=20000"]
    start += ["--max-worker-port=20999", f"--autoscaling-config={folder / 'autoscaler.yaml'}"]
    with (folder / "head.log").open("w") as log, (folder / "job.log").open("w") as said:
        database = f"sqlite:///{folder}/runs.db"
        serve = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database, "--workers", "1"]
        serve += ["--port", str(TRACKING), "--artifacts-destination", str(folder / "artifacts")]
        tracking = subprocess.Popen(serve, env=env, stdout=log, stderr=log, start_new_session=True)
        head = subprocess.Popen(start, env=env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            address = f"http://127.0.0.1:{DASHBOARD}"
            for _ in range(60):
                time.sleep(1)
                tried = [BIN / "ray", "job", "list", "--address", address]
                if subprocess.run(tried, env=env, capture_output=True, check=False).returncode == 0:
                    break
                if head.poll() is not None:
                    sys.exit((folder / "head.log").read_text())
            ray.init(f"127.0.0.1:{GCS}", log_to_driver=False)
            submit = [BIN / "ray", "job", "submit", "--address", address, "--", "python", *words]
            job = subprocess.Popen(submit, env=env, cwd=folder, stdout=said, stderr=said, text=True)
            noted = watch(job, 500)
            ray.shutdown()
        finally:
            os.killpg(tracking.pid, signal.SIGTERM)
            os.killpg(head.pid, signal.SIGTERM)
            head.wait(60)
    text = re.sub(r"\x1b\[[0-9;]*m", "", (folder / "job.log").read_text())
    print(json.dumps({"rc": job.returncode, "noted": noted, "said": text}))


if __name__ == "__main__":
    main()
