"""Every command line under `deploy/` is one that `mcpconn serve` understands."""

from __future__ import annotations

import typer.main

from mcpconn.cli.app import app
from tests.deploy.reading import DEPLOY, documents, unit
from tests.deploy.test_dockerfile import last


def options() -> set[str]:
    group = typer.main.get_command(app)
    serve = group.commands["serve"]  # type: ignore[attr-defined]
    return {name for each in serve.params for name in each.opts}


def used(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if word.startswith("--")}


def test_options_are_those_of_the_command():
    (deployment,) = [each for each in documents(DEPLOY / "kubernetes" / "mcpconn.yaml") if each["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    service = unit(DEPLOY / "systemd" / "mcpconn@.service")["Service"]["ExecStart"][0].split()
    entry = last("ENTRYPOINT").words
    assert used(entry) | used(container["args"]) | used(service) <= options()
    assert entry[:2] == ["mcpconn", "serve"]
    assert service[1] == "serve"
