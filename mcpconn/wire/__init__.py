"""The wire layer: the only package that uses mcp's client and httpx2. It dials, and records what happens as
evidence."""
