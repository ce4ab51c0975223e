"""A host that is reached over SSH: logging in, its files, and what reads them fast."""
