"""Logs with the standard library alone."""

import logging


def configure() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    # mcpconn writes one line a transition. The library under it would add three.
    logging.getLogger("transitions").setLevel(logging.WARNING)
