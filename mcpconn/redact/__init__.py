"""Keeping secrets out of everything that is shown: logs, errors, reprs, status.

`places` says what in a configuration is secret, `forms` what a secret looks like once it has been quoted, encoded or
escaped, and `redactor` replaces both in texts.
"""
