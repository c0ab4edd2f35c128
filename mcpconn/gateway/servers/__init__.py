"""The servers behind the gateway: which connection serves a request (`upstreams`), and who gets what they send."""
