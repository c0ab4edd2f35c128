"""The command line: `mcpconn check`, `call`, `tools`, `watch`, `diagram`, `demo`. Needs the extra `cli`."""

from mcpconn.cli.entry import main as main
