"""Runs, curves and states in MLflow. Besides the registry the only module that imports mlflow; no Ray.

Only a job's driver writes; it receives every epoch of every run. Calls are batched: one for each run and epoch. Nothing
global is set: every call goes through a client with an explicit URI.
"""

import logging
import math
import os
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import git
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

import mammoflow
from mammoflow.errors import TrackingError
from mammoflow.lake import Lake, exists, fingerprint, read_json, write_json

_REACH_S = 5.0
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_KINDS = ("http", "https", "sqlite", *_DATABASE_PORTS)


def uri(lake: Lake) -> str:
    """Return $MLFLOW_TRACKING_URI, else a SQLite database in a local lake.

    Raises:
        TrackingError: the lake is remote and no tracking server is named.
    """
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if named:
        return named
    if not lake.is_local:
        raise TrackingError(f"the lake {lake.root} is remote; set MLFLOW_TRACKING_URI to a tracking server beside it")
    return f"sqlite:///{lake.root}/mlflow/mlflow.db"


def public(tracking_uri: str) -> str:
    """Return an address without user and password, to be printed or stored."""
    scheme, separator, rest = tracking_uri.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def check_reachable(tracking_uri: str) -> None:
    """Check a tracking server's health, or that a database answers, within a few seconds.

    Raises:
        TrackingError: there is no answer, the database's driver is missing, or the address is of an unknown kind.
    """
    kind = tracking_uri.partition(":")[0].partition("+")[0]
    if kind not in _KINDS:
        raise TrackingError(
            f"the tracking server is {public(tracking_uri)!r}, but must be an address that starts with one of "
            f"{', '.join(_KINDS)}; correct or unset MLFLOW_TRACKING_URI"
        )
    if kind in _DATABASE_PORTS:
        _check_database(tracking_uri, kind)
    if kind not in ("http", "https"):
        return
    try:
        with urllib.request.urlopen(f"{tracking_uri.rstrip('/')}/health", timeout=_REACH_S):  # noqa: S310
            return
    except (urllib.error.URLError, OSError) as error:
        raise TrackingError(
            f"the tracking server {public(tracking_uri)} does not answer within {_REACH_S:.0f} s ({error}); "
            "start it, or correct or unset MLFLOW_TRACKING_URI"
        ) from error


def _check_database(tracking_uri: str, kind: str) -> None:
    """Try a database's port first: its driver would wait for minutes."""
    try:
        address = urllib.parse.urlsplit(tracking_uri)
        with socket.create_connection(
            (address.hostname or "localhost", address.port or _DATABASE_PORTS[kind]), _REACH_S
        ):
            pass
        MlflowClient(tracking_uri=tracking_uri).search_experiments(max_results=1)
    except Exception as error:  # drivers raise anything, a missing one ModuleNotFoundError
        raise TrackingError(
            f"the tracking database {public(tracking_uri)} can't be used ({type(error).__name__}: {error}); start it, "
            "install its driver (psycopg2-binary for postgresql+psycopg2://) on every node, or correct "
            "MLFLOW_TRACKING_URI"
        ) from error


@contextmanager
def _answering(tracking_uri: str) -> Iterator[None]:
    """Turn an error of the server into one that names it."""
    try:
        yield
    except MlflowException as error:
        raise TrackingError(
            f"the tracking server {public(tracking_uri)} refuses: {error}; see its own log, then run the command again"
        ) from error


def check_registry(tracking_uri: str) -> None:
    """Check that a registry exists: a job that only reads creates no database.

    Raises:
        TrackingError: there is no answer, or the lake holds no database.
    """
    check_reachable(tracking_uri)
    if tracking_uri.startswith("sqlite:///") and not Path(tracking_uri.removeprefix("sqlite:///")).is_file():
        raise TrackingError(
            f"no model is registered: {tracking_uri} is not there; run jobs/select_ensemble.py with this --lake first, "
            "or name the lake or the server (MLFLOW_TRACKING_URI) where one is"
        )


SEARCHES = "top-layers"
"""MLflow experiment of searches: a parent run each, and a child for each candidate."""

WEIGHTS_TAG = "weights"
"""Tag of a finished run: the file in the lake with its best weights."""

STATE_TAG = "state"
"""Tag of a candidate's run: finished; pruned, with the epoch; or failed, with the reason."""

FINISHED = "finished"
"""State of a candidate that went through both stages."""

BEST_METRIC = "best_val_auc"
"""Metric of a candidate's finished run: its best validation AUC."""

_LONGEST_TAG = 5000

_MOST = 1000  # runs that a query returns

_RUN = "runs:/"


def weights_of(lake: Lake, weights: str | None) -> str | None:
    """Return the file of weights of an MLflow run `runs:/<id>`. Any other name is returned unchanged.

    Raises:
        TrackingError: there is no answer, no such run, or the run has no weights.
    """
    if weights is None or not weights.startswith(_RUN):
        return weights
    tracking_uri = uri(lake)
    check_registry(tracking_uri)
    client = MlflowClient(tracking_uri=tracking_uri)
    try:
        tags = client.get_run(weights.removeprefix(_RUN)).data.tags
    except MlflowException as error:
        raise TrackingError(
            f"{public(tracking_uri)} knows no run {weights!r} ({error}); see its list of runs"
        ) from error
    if WEIGHTS_TAG not in tags:
        raise TrackingError(
            f"{weights} has no weights; give the run of a patch classifier or of a whole-image candidate"
        )
    return str(tags[WEIGHTS_TAG])


def _equal(params: Mapping[str, str]) -> list[str]:
    return [f"params.{name} = '{value}'" for name, value in params.items()]


PLACE_TAG = "place"
"""Tag of a run: the URL of the artefact that it writes."""


@cache
def code_tags() -> dict[str, str]:
    """Identify the running code: mammoflow's version, a hash of its source, and the commit if it is a checkout."""
    package = Path(mammoflow.__file__).parent
    sources = [(str(path.relative_to(package)), path.read_text()) for path in sorted(package.rglob("*.py"))]
    tags = {"mammoflow": mammoflow.__version__, "source": fingerprint(sources)}
    with suppress(
        git.InvalidGitRepositoryError, git.NoSuchPathError, ValueError
    ):  # not a checkout; ValueError: no commit yet
        tags["mlflow.source.git.commit"] = git.Repo(package.parent).head.commit.hexsha
    return tags


@dataclass(frozen=True, slots=True)
class Tracker:
    """Writes the runs of one experiment."""

    tracking_uri: str
    experiment_id: str
    client: MlflowClient = field(repr=False)

    @classmethod
    def open(cls, lake: Lake, experiment: str) -> "Tracker":
        """Connect to the lake's tracking server, or to the one that $MLFLOW_TRACKING_URI names; see `connect`."""
        return cls.connect(uri(lake), experiment)

    @classmethod
    def connect(cls, tracking_uri: str, experiment: str) -> "Tracker":
        """Connect, and create the experiment if it is new. A local database has its artifacts beside it.

        Raises:
            TrackingError: the server can't be reached or returns an error.
        """
        check_reachable(tracking_uri)
        location = None
        if tracking_uri.startswith("sqlite:///"):
            folder = Path(tracking_uri.removeprefix("sqlite:///")).parent
            folder.mkdir(parents=True, exist_ok=True)
            location = str(folder / "artifacts")
        for name in ("mlflow.store.db.utils", "alembic"):  # they log every table that they create
            logging.getLogger(name).setLevel(logging.WARNING)
        with _answering(tracking_uri):
            client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
            existing = client.get_experiment_by_name(experiment)
            experiment_id = (
                existing.experiment_id if existing else client.create_experiment(experiment, artifact_location=location)
            )
        return cls(tracking_uri, experiment_id, client)

    def start(self, name: str, *, parent: str | None = None, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Start a run, as a child of `parent` if given, and return its id."""
        nested = {"mlflow.parentRunId": parent} if parent else {}
        nested |= code_tags()
        with _answering(self.tracking_uri):
            run = self.client.create_run(self.experiment_id, run_name=name, tags={**nested, **tags})
            run_id = str(run.info.run_id)
            self.client.log_batch(run_id, params=[Param(key, str(value)[:6000]) for key, value in params.items()])
        return run_id

    def close_others(self, place: str, ours: Collection[str]) -> None:
        """End as KILLED the runs that earlier attempts at the same artefact left open.

        Args:
            place: their PLACE_TAG. The caller holds the lock of that artefact, so nobody else writes to these runs.
            ours: ids of runs that continue.
        """
        with _answering(self.tracking_uri):
            query = f"attributes.status = 'RUNNING' and tags.{PLACE_TAG} = '{place}'"
            for run in self.client.search_runs([self.experiment_id], query):
                if run.info.run_id not in ours:
                    self.end(str(run.info.run_id), "KILLED")

    def reopen(
        self, record: str, name: str, *, parent: str | None = None, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> str:
        """Resume the run whose id the file `record` holds, or start one and write its id there."""
        if exists(record):
            run_id = str(read_json(record)["run_id"])
            try:
                self.client.update_run(run_id, status="RUNNING")
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):  # a server other than last time's
                    raise TrackingError(f"the tracking server {public(self.tracking_uri)} refuses: {error}") from error
            else:
                return run_id
        run_id = self.start(name, parent=parent, params=params, tags=tags)
        write_json(record, {"run_id": run_id})
        return run_id

    def log(self, run_id: str, metrics: Mapping[str, float], *, step: int) -> None:
        """Log the finite metrics of one epoch in one call."""
        now = int(time.time() * 1000)
        rows = [Metric(key, float(value), now, step) for key, value in metrics.items() if math.isfinite(value)]
        with _answering(self.tracking_uri):
            self.client.log_batch(run_id, metrics=rows)

    def steps(self, run_id: str, metric: str) -> set[int]:
        """Return the steps at which a metric was logged."""
        with _answering(self.tracking_uri):
            return {int(point.step) for point in self.client.get_metric_history(run_id, metric)}

    def finished(self, params: Mapping[str, str], *, apart_from: str, most: int) -> list[dict[str, str]]:
        """Return params, tags and `run_id` of candidates that completed both stages, best validation AUC first.

        Args:
            params: values that their runs have.
            apart_from: URL of the artefact whose own candidates are excluded (PLACE_TAG).
            most: maximum number of candidates.
        """
        tags = [f"tags.{STATE_TAG} = '{FINISHED}'", f"tags.{PLACE_TAG} != '{apart_from}'"]
        return self._search([*_equal(params), *tags], f"metrics.{BEST_METRIC} DESC", most)

    def search(self, params: Mapping[str, str], *, status: str) -> list[dict[str, str]]:
        """Return params, tags and `run_id` of runs with these params and this status, newest first."""
        return self._search([*_equal(params), f"attributes.status = '{status}'"], "attributes.start_time DESC", _MOST)

    def _search(self, conditions: list[str], order: str, most: int) -> list[dict[str, str]]:
        with _answering(self.tracking_uri):
            runs = self.client.search_runs(
                [self.experiment_id], " and ".join(conditions), order_by=[order], max_results=most
            )
        return [{**run.data.params, **run.data.tags, "run_id": str(run.info.run_id)} for run in runs]

    def attach(self, run_id: str, name: str, data: bytes) -> None:
        """Attach a file to a run, open or closed."""
        with _answering(self.tracking_uri), tempfile.TemporaryDirectory() as folder:
            file = Path(folder, name)
            file.write_bytes(data)
            self.client.log_artifact(run_id, str(file))

    def mark(self, run_id: str, state: str, status: str = "FINISHED") -> None:
        """Close a run, and record how it ended."""
        with _answering(self.tracking_uri):
            self.client.set_tag(run_id, STATE_TAG, state[:_LONGEST_TAG])
            self.client.set_terminated(run_id, status=status)

    def end(self, run_id: str, status: str = "FINISHED") -> None:
        """Close a run as FINISHED, FAILED or KILLED."""
        with _answering(self.tracking_uri):
            self.client.set_terminated(run_id, status=status)

    @contextmanager
    def closing(self, run_ids: Collection[str]) -> Iterator[None]:
        """Close the runs that the collection then holds, at the end of the block.

        They are FINISHED, FAILED on an error, or KILLED on a signal.
        """
        try:
            yield
        except Exception:
            self._end_broken(run_ids, "FAILED")
            raise
        except BaseException:  # KeyboardInterrupt, Terminated, SystemExit: the user's decision
            self._end_broken(run_ids, "KILLED")
            raise
        self._end_open(run_ids, "FINISHED")

    def _end_open(self, run_ids: Collection[str], status: str) -> None:
        with _answering(self.tracking_uri):
            for run_id in run_ids:
                if self.client.get_run(run_id).info.status == "RUNNING":
                    self.end(run_id, status)

    def _end_broken(self, run_ids: Collection[str], status: str) -> None:
        """Close the runs after an error, which a server that does not answer must not hide."""
        try:
            self._end_open(run_ids, status)
        except TrackingError as error:
            print(f"its MLflow runs stay open: {error}", file=sys.stderr, flush=True)
