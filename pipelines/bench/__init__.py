"""`make bench`: what ingest costs, beside public tools on the same files and cores; writes `docs/benchmarks.md`."""
