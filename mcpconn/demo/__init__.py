"""`python -m mcpconn.demo`: two real servers, eight faults, and a count of what ran on the server."""

from mcpconn.demo.command import main as main
