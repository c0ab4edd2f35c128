"""Users' own credentials for upstream servers: each user logs in there, or the user's token is exchanged."""
