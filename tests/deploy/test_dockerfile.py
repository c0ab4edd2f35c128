"""The Dockerfile: what it promises by its instructions, and its steps run without Docker."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

from mcpconn.gateway.serve import GRACE
from tests.deploy.reading import DEPLOY, ROOT, Instruction, instructions

FILE = DEPLOY / "Dockerfile"
IGNORED = DEPLOY / "Dockerfile.dockerignore"
KNOWN = {"FROM", "WORKDIR", "ENV", "COPY", "RUN", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT"}


def stages() -> list[list[Instruction]]:
    found: list[list[Instruction]] = []
    for each in instructions(FILE):
        if each.name == "FROM":
            found.append([])
        found[-1].append(each)
    return found


def last(name: str, stage: int = -1) -> Instruction:
    return [each for each in stages()[stage] if each.name == name][-1]


def in_context(path: str) -> bool:
    """Whether the build sees a path: of the patterns that fit, the last one decides."""
    seen = True
    for line in IGNORED.read_text().splitlines():
        pattern = line.lstrip("!")
        if line and not line.startswith("#") and fnmatch(path.split("/")[0], pattern):
            seen = line.startswith("!")
    return seen


def test_every_instruction_is_known_and_the_last_stage_installs_nothing():
    assert {each.name for each in instructions(FILE)} <= KNOWN
    build, final = stages()
    assert build[0].words[-2:] == ["AS", "build"]
    assert not any("pip" in each.rest for each in final)
    # One interpreter: an environment of another minor version would not start.
    assert build[0].words[0] == final[0].words[0]


def test_the_container_runs_as_any_user():
    user = last("USER").rest
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    names = [each.name for each in stages()[-1]]
    assert names.index("USER") > max(index for index, name in enumerate(names) if name in ("RUN", "COPY"))
    (made,) = [each.words for each in stages()[-1] if each.name == "RUN"]
    assert f"{made[made.index('-o') + 1]}:{made[made.index('-g') + 1]}" == user
    assert made[-1] == last("VOLUME").rest


def test_what_is_copied_is_in_the_context_and_nothing_else():
    copied = [word for each in stages()[0] if each.name == "COPY" for word in each.words[:-1]]
    for path in copied:
        assert (ROOT / path).exists()
        assert in_context(path)
    for path in (".git", ".venv", "tests", ".env"):
        assert not in_context(path)


def test_every_package_is_pinned_and_no_registry_is_named():
    constraint = re.search(r"PIP_CONSTRAINT=(\S+)", last("ENV", 0).rest)
    assert constraint is not None
    installs = [each.rest for each in stages()[0] if each.name == "RUN" and " install " in each.rest]
    pinned = (ROOT / "constraints.txt").read_text()
    assert any("[cli,gateway,metrics]" in each for each in installs)
    assert all(re.search(rf"^{name}==", pinned, re.M) for name in ("hatchling", "uvicorn", "mcp", "prometheus-client"))
    assert "://" not in re.sub(r"http://127\.0\.0\.1:9000", "", FILE.read_text())


def test_health_is_asked_where_the_gateway_listens():
    command, check = last("ENTRYPOINT").words, last("HEALTHCHECK").rest
    listen = command[command.index("--listen") + 1]
    assert listen == f"0.0.0.0:{last('EXPOSE').rest}"
    assert f"http://127.0.0.1:{last('EXPOSE').rest}/healthz" in check
    assert last("STOPSIGNAL").rest == "SIGTERM"
    stop = re.search(r"docker stop --time (\d+)", FILE.read_text())
    assert stop is not None
    assert int(stop[1]) > GRACE


class Here:
    """The steps, in folders of this machine in place of the image's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.environment.pop("PYTHONPATH", None)
        # pip gets the system's certificates back; see conftest.py.
        self.environment.pop("SSL_CERT_FILE")
        if system := self.environment["MCPCONN_TESTS_SYSTEM_CERT_FILE"]:
            self.environment["SSL_CERT_FILE"] = system

    def place(self, text: str) -> str:
        """A text with the image's paths replaced."""
        return re.sub(r"(?<![\w.])/(src|opt|wheels|etc|var)(?=/|\b)", rf"{self.root}/\1", text)

    def do(self, step: Instruction) -> None:
        work = self.root / "src"
        if step.name == "WORKDIR":
            Path(self.place(step.rest)).mkdir(parents=True)
        elif step.name == "ENV":
            self.environment |= dict(word.split("=", 1) for word in shlex.split(self.place(step.rest)))
        elif step.name == "COPY":
            *sources, target = step.words
            for source in sources:
                whole = ROOT / source
                if whole.is_dir():
                    shutil.copytree(whole, work / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(whole, work / target)
        elif step.name == "RUN":
            done = subprocess.run(
                ["sh", "-ec", self.place(step.rest)], cwd=work, env=self.environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr


def test_its_steps_make_a_gateway_that_is_healthy_and_stops(tmp_path):
    here = Here(tmp_path)
    for step in stages()[0][1:]:
        here.do(step)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    (tmp_path / "etc" / "mcpconn").mkdir(parents=True)
    (tmp_path / "etc" / "mcpconn" / "mcp.json").write_text('{"mcpServers": {"a": {"url": "http://127.0.0.1:1/mcp"}}}')
    command = [here.place(word).replace("0.0.0.0:9000", f"127.0.0.1:{port}") for word in last("ENTRYPOINT").words]
    check = last("HEALTHCHECK").rest.partition("CMD ")[2].replace("9000", port)
    program = str(tmp_path / "opt" / "mcpconn" / "bin")
    process = subprocess.Popen([f"{program}/{command[0]}", *command[1:]], cwd=tmp_path, env=here.environment)
    try:
        deadline = time.monotonic() + 30
        healthy = [f"{program}/python", *Instruction("CMD", check).words[1:]]
        while subprocess.run(healthy, capture_output=True).returncode != 0:
            assert process.poll() is None
            assert time.monotonic() < deadline
        process.send_signal(getattr(signal, last("STOPSIGNAL").rest))
        assert process.wait(GRACE) == 0
    finally:
        process.kill()
        process.wait()
