"""Mutants: the product with one guard taken out, and what notices it."""
