"""The conformance client, imported once and forked for each scenario: importing it takes longer than running it.

python ready.py serve SOCKET             imports the client; prints "ready"; runs it for whoever asks
python -I -S ready.py run SOCKET URL...  asks for one run, with this process's environment and output
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
import traceback
from pathlib import Path

CLIENT = Path(__file__).resolve().parents[2] / "examples" / "conformance_client.py"


def serve(path: str) -> None:
    """Fork a client for each connection. Runs until it is killed."""
    client = runpy.run_path(str(CLIENT), run_name="client")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            asking, _ = listener.accept()
            with asking:
                if os.fork() == 0:
                    serve_one(client, asking)


def serve_one(client: dict[str, object], asking: socket.socket) -> None:
    """In the child: take over what the asking process has, run the client, and say how it ended."""
    code = 1
    try:
        said, descriptors, _, _ = socket.recv_fds(asking, 1 << 20, 2)
        arguments, environment = json.loads(said)
        for target, descriptor in enumerate(descriptors, start=1):
            os.dup2(descriptor, target)
        os.environ.update(environment)
        main = client["run"]
        assert callable(main)
        main(arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        asking.send(str(code).encode())
        os._exit(code)


def run(path: str, arguments: list[str]) -> int:
    """Have a client run, and return its exit code."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(path)
        known = {key: value for key, value in os.environ.items() if key.startswith("MCP_")}
        socket.send_fds(asking, [json.dumps([arguments, known]).encode()], [1, 2])
        return int(asking.recv(16) or b"1")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    sys.exit(run(sys.argv[2], sys.argv[3:]))
