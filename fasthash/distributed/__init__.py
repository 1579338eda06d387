"""Several processes: collectives, losses and searches over all of them. The only importer of torch.distributed."""

from fasthash._moved import moved_names
from fasthash.distributed.batch_norm import synced_batch_norms
from fasthash.distributed.collectives import average_gradients, broadcast, data_parallel, gather_batch, gather_rows
from fasthash.distributed.faults import RankLostError, rank_faults, waiting
from fasthash.distributed.processes import check_member, global_rank, join, leave, local_rank, rank, world_size
from fasthash.distributed.search import topk

__all__ = [
    "RankLostError",
    "average_gradients",
    "broadcast",
    "check_member",
    "data_parallel",
    "gather_batch",
    "gather_rows",
    "global_rank",
    "join",
    "leave",
    "local_rank",
    "rank",
    "rank_faults",
    "synced_batch_norms",
    "topk",
    "waiting",
    "world_size",
]

__getattr__ = moved_names(__name__)
