"""The numbers beside codes, `code_scale`: read back from an index."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fasthash._arrays import like
from fasthash.index import keyed
from fasthash.index.joins import Side


class Scales:
    """Reads the code_scale of an index: methods of `HammingIndex`."""

    def _side(self) -> Side:
        raise NotImplementedError

    @property
    def scaled(self) -> bool:
        """Whether its codes have a code_scale each. Either all have one or none."""
        return self._side().contents.scaled

    def code_scale_of(self, ids: Any = None, *, keys: Any = None) -> Any:
        """The code_scale of these ids, or of these keys, float16 [M], in their order, as `get` gives their codes.

        ids: M integers; a tensor gives a tensor on its device, anything else a numpy array. keys: M texts. Raises
        KeyError, naming the first, where some are unknown, and ValueError for an index whose codes have none.

        >>> import numpy as np
        >>> from fasthash import HammingIndex
        >>> index = HammingIndex(bits=8)
        >>> index.add(np.array([[1], [2]], dtype=np.uint8), code_scale=np.array([0.5, 2], dtype=np.float16))
        array([0, 1])
        >>> index.scaled, index.code_scale_of([1, 0]).tolist()
        (True, [2.0, 0.5])
        """
        function, side = "HammingIndex.code_scale_of", self._side()
        if not side.contents.scaled:
            raise ValueError(f"{function}: the codes of this index have no code_scale each")
        wanted, named = keyed.asked_ids(side.contents, ids, keys, side.device, function)
        scales, found = side.contents.scales_of(wanted)
        keyed.refuse_unknown(wanted, named, found, function)
        return like(scales.to(ids.device) if isinstance(ids, Tensor) else scales, ids)
