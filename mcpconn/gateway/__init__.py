"""One MCP endpoint in front of many servers."""
