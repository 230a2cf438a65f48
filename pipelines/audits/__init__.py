"""What the audits read and answer: manifests through time, cases by any of their names, changes, rebuilds, purges."""
