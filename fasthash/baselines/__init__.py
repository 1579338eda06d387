"""Codes that need no training loop.

Signs of a linear map, one bit for each direction (`LinearCodes`): random hyperplanes, principal components, ITQ. And
quantisers of 1 to 4 bits a dimension (`GridCodes`): RaBitQ, optimised scalar quantisation, TurboQuant. Both have
`encode`, `save`, `load`, `scales` (a float16 number for each code) and `queries`, so that a float query estimates the
inner product with a row from its code: score = scale * sum_d query_d (2 b_d - 1).

Each function looks at X. A value of X that lies absurdly far out counts as the mean of its column, since it would
decide mean and components alone; a warning (UserWarning) names its row and column.
"""

from fasthash.baselines.grid_codes import GridCodes
from fasthash.baselines.linear_codes import LinearCodes
from fasthash.baselines.quantisers import osq, rabitq, turboquant
from fasthash.baselines.signs import itq, lsh, pca_sign

__all__ = ["GridCodes", "LinearCodes", "itq", "lsh", "osq", "pca_sign", "rabitq", "turboquant"]
