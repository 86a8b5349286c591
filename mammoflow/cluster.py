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
from mammoflow.config import Config
from mammoflow.errors import ConfigError, PreflightError
from mammoflow.lake import Lake, resolve_root

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
    joining = os.environ.get("RAY_ADDRESS", "local") != "local"
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


def preflight(config: Config) -> Lake:
    """Check, before any work, that the job can do what the config asks, and return the lake.

    Raises:
        ConfigError: the recipe draws no phantoms and no source is given.
        LakeError: the lake can't be written.
        TrackingError: the tracking server does not answer.
        PreflightError: too little disk, or GPUs asked for where there are none.
    """
    lake = Lake(resolve_root(config.lake))
    print(f"mammoflow {config.name}: lake {lake.root}", flush=True)
    if config.source is None and config.phantoms.patients == 0:
        raise ConfigError(f"recipe {config.name!r} draws no phantoms; give the release's folder with --source")
    tracking.check_reachable(tracking.uri(lake))
    lake.check_writable()
    if lake.is_local:
        free = shutil.disk_usage(lake.root).free / 2**30
        if free < _LEAST_FREE_GIB:
            raise PreflightError(
                f"{free:.1f} GiB free at {lake.root}, at least {_LEAST_FREE_GIB} are needed; free some, or give --lake"
            )
    start()
    _check_cluster(config, lake)
    return lake


def _check_cluster(config: Config, lake: Lake) -> None:
    resources = ray.cluster_resources()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if config.compute.gpu and not resources.get("GPU"):
        raise PreflightError(
            f"compute.gpu asks for {config.compute.workers} GPU(s), this cluster has none; "
            "add GPU nodes, or train on CPUs with --compute.gpu False"
        )
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
