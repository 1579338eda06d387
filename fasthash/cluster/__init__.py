"""Beyond one machine: one index over shards, on Ray. `merge_topk` serves other engines, and needs no ray."""

from fasthash.cluster.encode import encode
from fasthash.cluster.errors import ShardError, ShardTimeout
from fasthash.cluster.merge import merge_topk
from fasthash.cluster.sharded_index import ShardedIndex, ShardStats

__all__ = ["ShardError", "ShardStats", "ShardTimeout", "ShardedIndex", "encode", "merge_topk"]
