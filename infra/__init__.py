"""Everything that touches the outside: settings, storage, hashing, errors, DVC, local services."""
