"""The wire: the only place that knows mcp's client and httpx2. It dials, and turns what happens into evidence."""
