"""What nodes the cluster joined has and may start, and whether there is ever room for what a job asks. Imports Ray."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray

from mammoflow.config import ComputeConfig
from mammoflow.errors import PreflightError

TO_COME = "MAMMOFLOW_NODES"
"""Variable that says which nodes a cluster starts where they are wanted, for Ray's autoscaler tells no driver. JSON
such as {"gpu": {"nodes": 8, "CPU": 8, "GPU": 1}}: at most so many, with these resources each."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes of one kind."""

    count: int
    resources: Mapping[str, float]

    def __str__(self) -> str:
        """Say what each of them has."""
        return ", ".join(f"{self.resources.get(name, 0):g} {name}" for name in ("CPU", "GPU"))


def of_worker(compute: ComputeConfig) -> dict[str, float]:
    """Return what one worker takes of the cluster, as Ray counts it."""
    return {"CPU": compute.cpus_per_worker, **({"GPU": 1} if compute.gpu else {})}


def check_room(asked: Mapping[str, float], workers: int = 1) -> None:
    """Refuse to wait for what the cluster joined has not, and never will.

    Args:
        asked: of each worker, as Ray counts it.
        workers: that run at the same time, on one node or on many.

    Raises:
        PreflightError: names what is missing.
    """
    most = room(asked)
    if most >= workers:
        return
    wanted = ", ".join(f"{number:g} {name}" for name, number in asked.items())
    found = "; ".join(sorted({str(kind) for kind in (*_there(), *_to_come())}))
    raise PreflightError(
        f"{workers} worker(s) of {wanted} are asked for, this cluster has room for {most}: its nodes have {found}. "
        "Give less of compute.workers, compute.cpus_per_worker or compute.gpu, or add nodes; "
        f"where it starts nodes by itself, say which in ${TO_COME} (docs/ray-cluster.md)"
    )


def room(asked: Mapping[str, float]) -> int:
    """Return how many workers with these needs fit on the cluster joined, as it is or once it has grown."""
    return max(_room(_there(), asked), _room(_to_come(), asked))


def several() -> bool:
    """Tell whether tasks run, or may come to run, on other machines than this one."""
    machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    return len(machines) > 1 or bool(_to_come())


def alive() -> list[Mapping[str, float]]:
    """Return the resources of each node that is there."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _there() -> list[Nodes]:
    return [Nodes(1, resources) for resources in alive()]


def _to_come() -> list[Nodes]:
    """Return the kinds of nodes that the cluster starts where they are wanted; none where nobody says so."""
    said = os.environ.get(TO_COME)
    if not said:
        return []
    try:
        kinds = [dict(kind) for kind in json.loads(said).values()]
        return [Nodes(int(kind.pop("nodes")), {name: float(kind[name]) for name in kind}) for kind in kinds]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        example = '{"gpu": {"nodes": 8, "CPU": 8, "GPU": 1}}'
        raise PreflightError(
            f"${TO_COME} is {said!r}, which can't be read ({error!r}); write it as {example}"
        ) from error


def _room(kinds: Sequence[Nodes], asked: Mapping[str, float]) -> int:
    """Return how many workers fit on these nodes."""
    return sum(
        kind.count * int(min(kind.resources.get(name, 0) // number for name, number in asked.items() if number))
        for kind in kinds
    )
