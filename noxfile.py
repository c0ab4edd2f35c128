"""The tests on every supported Python, on every event loop. Run it with `make test-all`."""

from __future__ import annotations

import os
import sys

import nox

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
# Not on 3.11: its tracer loses lines that follow the run of an event loop, which the others count.
MEASURED = os.environ.get("MCPCONN_COVER_PYTHON", "3.13")

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
# An interpreter that is not installed is skipped, and nox says so; it is not a failure.
nox.options.error_on_missing_interpreters = False


def install(session: nox.Session) -> None:
    """The package and its test tools, at the versions of constraints.txt."""
    session.install("--constraint", "constraints.txt", "--editable", ".[test]")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests; async ones on asyncio and trio, and then on uvloop."""
    install(session)
    session.run("pytest", "-n", "2", *session.posargs)
    if sys.platform != "win32":
        session.run("pytest", "-n", "2", "-k", "uvloop", *session.posargs, env={"MCPCONN_UVLOOP": "1"})


@nox.session(python=MEASURED, default=False)
def cover(session: nox.Session) -> None:
    """The tests, with the lines they reach: 95 % of the package at least, and all of the core."""
    install(session)
    report = ("--cov-report=term-missing:skip-covered", "--cov-report=html")
    session.run("pytest", "-n", "2", "--cov", *report, *session.posargs)
    session.run("coverage", "report", "--include=mcpconn/core/*", "--fail-under=100")


@nox.session(python=PYTHONS)
def types(session: nox.Session) -> None:
    """The types, as each Python and the releases installed beside it see them."""
    install(session)
    session.run("mypy", "mcpconn")
