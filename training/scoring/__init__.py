"""Figures of an evaluation: pure functions over masks and rows. `docs/evaluation.md` defines each of them."""
