"""Shards to a fine-tuned SAM3 and its evaluation files. Only `launch.py` knows Ray."""
