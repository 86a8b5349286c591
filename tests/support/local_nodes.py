"""A node provider for Ray's real autoscaler that starts nodes on this machine: for tests of growing and shrinking."""

from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class LocalNodes(FakeMultiNodeProvider):
    """Each node is a raylet of its own."""

    def set_node_tags(self, node_id: str, tags: dict[str, Any]) -> None:
        with self.lock:
            self._nodes[node_id]["tags"].update(tags)
