"""Whether a cluster has room for what a job asks, now or once it has grown."""

import pytest
import ray

from mammoflow.cluster import nodes
from mammoflow.config import ComputeConfig
from mammoflow.errors import PreflightError

TO_COME = '{"cpu": {"nodes": 3, "CPU": 16}, "gpu": {"nodes": 2, "CPU": 8, "GPU": 1}}'


@pytest.fixture
def one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that takes no work, and a machine with four CPUs."""
    there = [
        {"Alive": True, "Resources": {"node:__internal_head__": 1.0}},
        {"Alive": True, "Resources": {"CPU": 4.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: there)
    monkeypatch.delenv(nodes.TO_COME, raising=False)


@pytest.mark.usefixtures("one_node")
@pytest.mark.parametrize(
    ("asked", "room", "grown"),
    [({"CPU": 1}, 4, 64), ({"CPU": 3}, 1, 19), ({"CPU": 8, "GPU": 1}, 0, 2), ({"CPU": 9, "GPU": 1}, 0, 0)],
)
def test_room_is_what_is_there_or_what_may_come(
    asked: dict[str, float], room: int, grown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nodes.room(asked) == room
    monkeypatch.setenv(nodes.TO_COME, TO_COME)
    assert nodes.room(asked) == grown


@pytest.mark.usefixtures("one_node")
def test_what_never_fits_is_refused_with_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = nodes.of_worker(ComputeConfig(gpu=True, cpus_per_worker=8))
    with pytest.raises(PreflightError, match=r"1 worker\(s\) of 8 CPU, 1 GPU .* room for 0: its nodes have 0 CPU"):
        nodes.check_room(gpu)
    monkeypatch.setenv(nodes.TO_COME, TO_COME)
    nodes.check_room(gpu, 2)
    with pytest.raises(PreflightError, match=r"3 worker.* room for 2: .*8 CPU, 1 GPU"):
        nodes.check_room(gpu, 3)


@pytest.mark.usefixtures("one_node")
@pytest.mark.parametrize(
    "said", ["8 GPUs", "[]", '{"gpu": {"CPU": 8}}', '{"gpu": 8}', '{"gpu": {"nodes": 1, "CPU": "x"}}']
)
def test_a_variable_that_cannot_be_read_says_how_to_write_it(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(nodes.TO_COME, said)
    with pytest.raises(PreflightError, match=r"MAMMOFLOW_NODES is .* write it as"):
        nodes.check_room({"CPU": 99})
