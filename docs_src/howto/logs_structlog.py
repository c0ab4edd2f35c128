"""Logs through a host's own structlog processors."""

import logging

import structlog


def take_fields(
    _: object, __: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Put the fields of mcpconn's lines where structlog's processors look for them."""
    record: logging.LogRecord | None = event.get("_record")
    return {**event, **getattr(record, "mcpconn", {})} if record is not None else event


def configure() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, take_fields],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("transitions").setLevel(logging.WARNING)
