"""Joining a Ray cluster, and the checks of a job's first seconds. Imports Ray, nothing that trains or decodes.

A job joins the cluster that submitted it or that $RAY_ADDRESS names. Without one it starts a private cluster here.
"""

import logging
import os
import shutil
import sys
from importlib import metadata

import ray
import ray.data
from packaging.requirements import Requirement
from ray._private import ray_constants

from mammoflow import tracking
from mammoflow.cluster import interrupts, nodes
from mammoflow.config import ComputeConfig
from mammoflow.errors import PreflightError
from mammoflow.lake import Lake, stores

_LEAST_FREE_GIB = 2.0
_QUIET = {
    # Ray's own progress tables would drown the lines meant for people.
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Tune's handler turns Ctrl-C into a normal return, and the job would go on.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # With several workers a training run is many processes that mostly wait for each other; Ray would warn about them.
    "RAY_worker_maximum_startup_concurrency": "16",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}


def start(num_cpus: int | None = None) -> None:
    """Join the cluster, or start one on this machine. Does nothing if the process has joined already."""
    if ray.is_initialized():
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    joining = os.environ.get("RAY_ADDRESS", "local") != "local"
    if not joining:  # Ray's servers then listen on the loopback interface only, as they do on macOS and Windows
        ray_constants.ENABLE_RAY_CLUSTER = False  # Ray read its environment variable on import
        os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray.init(
        address=None if joining else "local",
        num_cpus=None if joining else num_cpus,
        include_dashboard=None if joining else False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": _QUIET},
    )
    interrupts.on_sigterm()
    ray.data.DataContext.get_current().enable_progress_bars = False  # its variable was read on import
    # Ray Data logs each step of each stage. The stages print their own lines, and Ray's folder has the whole log.
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def preflight(compute: ComputeConfig, lake: Lake, source: str | None, *, models: bool) -> None:
    """Join the cluster and check, before any work, that the job can run there as configured.

    Args:
        compute: the resources that the job asks for.
        lake: where it writes.
        source: folder or URL of the release, if any.
        models: the job trains or runs models; otherwise it needs neither a GPU nor a training worker's CPUs.

    Raises:
        LakeError: the lake can't be written.
        TrackingError: the tracking server does not answer.
        PreflightError: a package's version is wrong, the disk is nearly full, the cluster lacks the CPUs or GPUs, or
            other nodes can't see a folder.
    """
    check_versions()
    tracking.check_reachable(tracking.uri(lake))
    lake.check_writable()
    if lake.is_local:
        free = shutil.disk_usage(lake.root).free / 2**30
        if free < _LEAST_FREE_GIB:
            raise PreflightError(
                f"{free:.1f} GiB free at {lake.root}, at least {_LEAST_FREE_GIB} are needed; free some, or give --lake"
            )
    join(compute, lake, source, models=models)


def join(compute: ComputeConfig, lake: Lake, source: str | None, *, models: bool = True) -> None:
    """Join the cluster and check that it has the resources that `compute` asks for. Writes nothing.

    Raises:
        PreflightError: as in `preflight`, but for packages and disk.
    """
    start()
    if models:
        nodes.check_room(nodes.of_worker(compute), compute.least_workers or compute.workers)
    else:
        nodes.check_room({"CPU": 1})
    check_nodes(tracking.uri(lake), lake.root, source)


def check_versions() -> None:
    """Check the installed packages against mammoflow's own requirements.

    Raises:
        PreflightError: names the package, its version and the required one.
    """
    try:
        needed = [Requirement(text) for text in metadata.requires("mammoflow") or []]
    except metadata.PackageNotFoundError:  # it came with the job, as a folder
        return
    for package in needed:
        if package.marker and not package.marker.evaluate({"extra": ""}):
            continue
        installed = metadata.version(package.name)
        if not package.specifier.contains(installed, prereleases=True):
            raise PreflightError(
                f"{package.name} is {installed}, but must be {package.specifier}; "
                "reinstall mammoflow with its constraints.txt on every node"
            )


def check_nodes(tracking_uri: str, *paths: str | None) -> None:
    """Print the cluster's size, and check that all its machines see these paths and the tracking server.

    Args:
        tracking_uri: where runs and models are stored.
        paths: folders and URLs that tasks read or write; None is ignored.

    Raises:
        PreflightError: a local path or database, on a cluster of several machines.
    """
    local = [path for path in paths if path and not stores.is_url(path)]
    several = nodes.several()
    if local and several and "MAMMOFLOW_SHARED_LAKE" not in os.environ:
        raise PreflightError(
            f"{local[0]} is a folder of one machine, and the cluster has several; give an object store (s3://...), "
            "or set MAMMOFLOW_SHARED_LAKE=1 where every node mounts that folder"
        )
    if several and tracking_uri.startswith("sqlite:"):
        raise PreflightError(
            f"{tracking_uri} is a database of one machine, and the cluster has several; start a tracking server "
            "(docs/tracking.md) and set MLFLOW_TRACKING_URI to it on every node"
        )
    resources, alive = ray.cluster_resources(), sum(node["Alive"] for node in ray.nodes())
    print(
        f"python {sys.version.split()[0]}, ray {ray.__version__}: {alive} node(s), "
        f"{resources.get('CPU', 0):.0f} CPUs, {resources.get('GPU', 0):.0f} GPUs",
        flush=True,
    )
