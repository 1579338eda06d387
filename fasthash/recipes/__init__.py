"""The settings of the paper as commands: data as users download it, zero-shot hashing, one table.

Source: Arponen & Bishop, "Learning to hash with semantic similarity metrics and empirical KL divergence" (arXiv
2005.04917, 2020). No number of the paper is claimed (see docs/recipes.md).
"""

from fasthash.recipes.run import RECIPES, run_recipe
from fasthash.recipes.table import markdown_table, text_table

__all__ = ["RECIPES", "markdown_table", "run_recipe", "text_table"]
