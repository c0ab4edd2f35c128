"""Gateways that people use today, and this one, before the same server and behind the same bare client."""
