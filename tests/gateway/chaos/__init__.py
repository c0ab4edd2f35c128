"""A gateway between servers and clients while all of them are killed: `python -m tests.gateway.chaos`."""
