"""Keeps secrets out of all output: logs, errors, reprs, status.

`places` finds the secrets in a configuration, `forms` computes their quoted, encoded and escaped forms, and `redactor`
replaces all of them in texts.
"""
