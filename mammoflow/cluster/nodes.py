"""The nodes that the cluster has and may start, and whether a job can ever fit on them. Imports Ray."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray

from mammoflow.config import ComputeConfig
from mammoflow.errors import PreflightError

TO_COME = "MAMMOFLOW_NODES"
"""Environment variable for the nodes that a cluster starts on demand, which Ray's autoscaler does not tell its drivers.
JSON such as {"gpu": {"nodes": 8, "CPU": 8, "GPU": 1}}: the maximum number of nodes, and the resources of each."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes of one kind."""

    count: int
    resources: Mapping[str, float]

    def __str__(self) -> str:
        """Return the resources of each."""
        return ", ".join(f"{self.resources.get(name, 0):g} {name}" for name in ("CPU", "GPU"))


def of_worker(compute: ComputeConfig) -> dict[str, float]:
    """Return the resources of one worker, by Ray's names."""
    return {"CPU": compute.cpus_per_worker, **({"GPU": 1} if compute.gpu else {})}


def check_room(asked: Mapping[str, float], workers: int = 1) -> None:
    """Check that workers fit on the cluster, now or once it has grown, rather than wait for ever.

    Args:
        asked: resources of each worker, by Ray's names.
        workers: number that run at the same time, on one node or on many.

    Raises:
        PreflightError: names the resources that are missing.
    """
    most = room(asked)
    if most >= workers:
        return
    each = ", ".join(f"{number:g} {name}" for name, number in asked.items())
    kinds = "; ".join(sorted({str(kind) for kind in (*_there(), *_to_come())}))
    raise PreflightError(
        f"{workers} worker(s) of {each} are asked for, this cluster has room for {most}: its nodes have {kinds}. "
        "Lower compute.workers, compute.cpus_per_worker or compute.gpu, or add nodes; "
        f"for a cluster that starts nodes on demand, list them in ${TO_COME} (docs/ray-cluster.md)"
    )


def room(asked: Mapping[str, float]) -> int:
    """Return how many workers with these resources fit on the cluster, now or once it has grown."""
    return max(_room(_there(), asked), _room(_to_come(), asked))


def several() -> bool:
    """Tell whether tasks run, now or once the cluster has grown, on more than one machine."""
    machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    return len(machines) > 1 or bool(_to_come())


def alive() -> list[Mapping[str, float]]:
    """Return the resources of each node that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _there() -> list[Nodes]:
    return [Nodes(1, resources) for resources in alive()]


def _to_come() -> list[Nodes]:
    """Return the kinds of nodes that the cluster starts on demand, by $MAMMOFLOW_NODES."""
    text = os.environ.get(TO_COME)
    if not text:
        return []
    try:
        kinds = [dict(kind) for kind in json.loads(text).values()]
        return [Nodes(int(kind.pop("nodes")), {name: float(kind[name]) for name in kind}) for kind in kinds]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        example = '{"gpu": {"nodes": 8, "CPU": 8, "GPU": 1}}'
        raise PreflightError(
            f"${TO_COME} is {text!r}, which can't be read ({error!r}); write it as {example}"
        ) from error


def _room(kinds: Sequence[Nodes], asked: Mapping[str, float]) -> int:
    """Return how many workers fit on these nodes."""
    return sum(
        kind.count * int(min(kind.resources.get(name, 0) // number for name, number in asked.items() if number))
        for kind in kinds
    )
