"""Raw files to harmonized samples to shards and manifest."""
