"""The catalogue: what a server offers, kept across its sessions."""
