"""A user's own credentials upstream: a login of the user's own, or an exchange of the user's token."""
