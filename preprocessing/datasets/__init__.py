"""One file per dataset, each with the same two names: `CARD` and `cases(root)`."""
