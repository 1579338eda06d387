"""Several Ray nodes on this machine, for the tests: small ones, which can be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

# Of the indexes: nodes have more CPUs than this machine, which may be busy.
OPTIONS: dict[str, Any] = {"options": {"num_cpus": 0.1}, "timeout": 300}
_NODE = {"num_cpus": 4, "object_store_memory": 100 << 20}


class Nodes:
    """A cluster of `count` nodes, to which this process is connected until `close`."""

    def __init__(self, count: int):
        import ray
        from ray.cluster_utils import Cluster

        self.ray = ray
        self.cluster = Cluster(initialize_head=True, head_node_args={**_NODE, "include_dashboard": False})
        self.others = [self.cluster.add_node(wait=False, **_NODE) for _ in range(count - 1)]
        self.cluster.wait_for_nodes()
        self.address = self.cluster.address
        ray.init(address=self.address, log_to_driver=False, logging_level="error")

    def add(self) -> Any:
        """One more node."""
        self.others.append(self.cluster.add_node(**_NODE))
        return self.others[-1]

    def kill_node_of(self, process: int) -> bool:
        """Kills the node that an actor's process belongs to, with all of its processes; False for the head."""
        parent = int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])
        for node in self.others:
            if any(own.process.pid == parent for own in node.all_processes["raylet"]):
                self.others.remove(node)
                self.cluster.remove_node(node, allow_graceful=False)
                return True
        return False

    def close(self) -> None:
        """Ends the nodes and their processes."""
        self.ray.shutdown()
        self.cluster.shutdown()


def kill(process: int) -> None:
    """Ends a process at once, as a crash or the system does when memory is short."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def wait_for(condition: Any, seconds: float = 300.0) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{condition} within {seconds} s")
        time.sleep(0.1)
