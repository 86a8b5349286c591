"""Joining a Ray cluster, and what a job checks in its first seconds. Imports Ray, nothing that trains or decodes.

A job joins the cluster that submitted it or that $RAY_ADDRESS names; elsewhere it starts a private one here.
"""

import logging
import os
import shutil
import sys

import ray
import ray.data

from mammoflow import cli, tracking
from mammoflow.config import ComputeConfig, Config
from mammoflow.errors import PreflightError
from mammoflow.lake import Lake

_LEAST_FREE_GIB = 2.0
_QUIET = {
    # Ray's own progress tables would drown the lines that a person reads.
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Tune's handler turns Ctrl-C into a normal return; the job must hear of it.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A training run is three processes that mostly wait for each other; Ray would warn of them.
    "RAY_worker_maximum_startup_concurrency": "16",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}


def start(num_cpus: int | None = None) -> None:
    """Join the cluster, or start one on this machine; does nothing where the process has joined already."""
    if ray.is_initialized():
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    joining = _joining()
    ray.init(
        address=None if joining else "local",
        num_cpus=None if joining else num_cpus,
        include_dashboard=None if joining else False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": _QUIET},
    )
    cli.on_sigterm()
    # Ray Data logs each step of each stage; the stages print lines of their own, the whole log is in Ray's folder.
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def preflight(config: Config, lake: Lake, *, models: bool) -> None:
    """Join the cluster and check, before any work, that the job can do there what the config asks.

    Args:
        config: of the run.
        lake: where it writes.
        models: whether models are to be trained or run; else nothing needs a GPU or a training worker's CPUs.

    Raises:
        LakeError: the lake can't be written.
        TrackingError: the tracking server does not answer.
        PreflightError: too little disk, or GPUs asked for where there are none.
    """
    tracking.check_reachable(tracking.uri(lake))
    lake.check_writable()
    if lake.is_local:
        free = shutil.disk_usage(lake.root).free / 2**30
        if free < _LEAST_FREE_GIB:
            raise PreflightError(
                f"{free:.1f} GiB free at {lake.root}, at least {_LEAST_FREE_GIB} are needed; free some, or give --lake"
            )
    start()
    if models:
        check_gpus(config.compute)
        _check_cpus(config.compute)
    _check_nodes(lake)


def check_gpus(compute: ComputeConfig) -> None:
    """Refuse to wait for GPUs that the cluster joined does not have.

    Raises:
        PreflightError: GPUs are asked for and there are none.
    """
    if compute.gpu and not ray.cluster_resources().get("GPU"):
        raise PreflightError(
            f"compute.gpu asks for {compute.workers} GPU(s), this cluster has none; "
            "add GPU nodes, or work on CPUs with --compute.gpu False"
        )


def _check_cpus(compute: ComputeConfig) -> None:
    """Refuse to wait for CPUs on a private cluster, which never grows."""
    asked, held = compute.workers * compute.cpus_per_worker, int(ray.cluster_resources().get("CPU", 0))
    if asked > held and not _joining():
        raise PreflightError(
            f"one training run asks for {asked} CPUs (compute.workers {compute.workers} x compute.cpus_per_worker "
            f"{compute.cpus_per_worker}), this machine has {held}; give less of either, or join a larger cluster"
        )


def _joining() -> bool:
    return os.environ.get("RAY_ADDRESS", "local") != "local"


def _check_nodes(lake: Lake) -> None:
    resources = ray.cluster_resources()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    for node in nodes if len(nodes) > 1 and lake.is_local else []:
        if node["NodeManagerAddress"] != nodes[0]["NodeManagerAddress"] and "MAMMOFLOW_SHARED_LAKE" not in os.environ:
            raise PreflightError(
                f"the lake {lake.root} is a folder of one machine, the cluster has {len(nodes)} nodes; give an object "
                "store (--lake s3://...), or set MAMMOFLOW_SHARED_LAKE=1 where every node mounts that folder"
            )
    print(
        f"python {sys.version.split()[0]}, ray {ray.__version__}: {len(nodes)} node(s), "
        f"{resources.get('CPU', 0):.0f} CPUs, {resources.get('GPU', 0):.0f} GPUs",
        flush=True,
    )
