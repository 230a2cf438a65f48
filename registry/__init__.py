"""Checkpoint and evaluation files to a gated, aliased MLflow version with its lineage."""
