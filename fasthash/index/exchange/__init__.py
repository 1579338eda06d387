"""Codes from and for other programs: what an index is built from, and what its codes are written as."""
