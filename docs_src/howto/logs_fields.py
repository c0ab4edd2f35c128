"""The fields of a log line, for a formatter that writes JSON."""

import json
import logging


class JsonLines(logging.Formatter):
    """One JSON object a line. The fields are in the record, beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "mcpconn", None) or {"event": record.getMessage()}
        return json.dumps(
            {"level": record.levelname.lower(), "logger": record.name, **fields},
            default=str,
        )
