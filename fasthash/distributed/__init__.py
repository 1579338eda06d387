"""Several processes: collectives, and losses over the global batch. The only importer of torch.distributed."""

from fasthash._moved import moved_names
from fasthash.distributed.batch_norm import synced_batch_norms
from fasthash.distributed.collectives import average_gradients, broadcast, data_parallel, gather_batch, gather_rows
from fasthash.distributed.processes import join, leave, local_rank, rank, world_size

__all__ = [
    "average_gradients",
    "broadcast",
    "data_parallel",
    "gather_batch",
    "gather_rows",
    "join",
    "leave",
    "local_rank",
    "rank",
    "synced_batch_norms",
    "world_size",
]

__getattr__ = moved_names(__name__)
