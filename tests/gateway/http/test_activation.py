"""A listening socket that a supervisor passes, and what the supervisor is told."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mcpconn.errors import ConfigError
from mcpconn.gateway.http import activation
from mcpconn.gateway.http.activation import notify, passed_socket
from mcpconn.gateway.serve import Listen

PASS = 'exec 3<&{fd}; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'


def environment(count: object, pid: int | None = None) -> dict[str, str]:
    return {"LISTEN_PID": str(pid or os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": "x"}


def place(monkeypatch: pytest.MonkeyPatch, passed: socket.socket) -> None:
    """Have a copy of this socket passed, as descriptor 3 belongs to somebody else in a test run."""
    monkeypatch.setattr(activation, "FIRST_PASSED", os.dup(passed.fileno()))


def test_a_passed_socket_is_taken_once_and_not_inherited(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        place(monkeypatch, listening)
        variables = environment(1)
        passed = passed_socket(variables)
        assert passed is not None
        with passed:
            assert passed.getsockname() == listening.getsockname()
            assert not passed.get_inheritable()
            assert Listen.of(passed) == Listen("127.0.0.1", listening.getsockname()[1])
        assert variables == {}
        assert passed_socket(variables) is None


@pytest.mark.parametrize("variables", [{}, environment(0), environment("x"), environment(1, pid=1)])
def test_another_processs_socket_is_not_used(variables):
    assert passed_socket(variables) is None


def test_several_sockets_are_refused():
    with pytest.raises(ConfigError, match="2 sockets were passed"):
        passed_socket(environment(2))


@pytest.mark.parametrize("kind", ["connected", "datagram", "unix", "closed"])
def test_a_socket_not_listening_is_refused(monkeypatch, tmp_path, kind):
    if kind == "connected":
        made = socket.socket()
    elif kind == "datagram":
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    else:
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(tmp_path / "socket"))
        made.listen()
    with made:
        place(monkeypatch, made)
        if kind == "closed":
            os.close(activation.FIRST_PASSED)
        with pytest.raises(ConfigError, match=r"not a listening TCP socket|no socket was passed"):
            passed_socket(environment(1))


def test_the_supervisor_is_told(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(5)
        notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert told.recv(64) == b"READY=1"
    notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    notify("READY=1", {})


def test_a_passed_socket_that_all_can_reach_needs_keys(tmp_path: Path):
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"a": {"url": "http://127.0.0.1:1/mcp"}}}))
    with socket.create_server(("0.0.0.0", 0)) as listening:
        serve = [sys.executable, "-m", "mcpconn", "serve", str(tmp_path / "mcp.json"), "--state", str(tmp_path / "s")]
        ended = subprocess.run(
            ["bash", "-c", PASS.format(fd=listening.fileno()), "bash", *serve],
            pass_fds=[listening.fileno()],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 2
    assert "anyone who can reach it could use your servers" in ended.stderr
