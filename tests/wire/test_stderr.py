"""Which line of a child's stderr says why it died."""

from __future__ import annotations

import pytest

from mcpconn.wire.stderr import LINES, Stderr
from mcpconn.wire.stderr_reasons import SHOWN
from tests.stderr_samples import SAMPLES


def written(text: str) -> Stderr:
    kept = Stderr()
    for line in text.encode().split(b"\n"):
        kept.add(line)
    return kept


@pytest.mark.parametrize("name", SAMPLES)
def test_a_reason_is_found_in_output(name: str) -> None:
    text, reason = SAMPLES[name]
    assert written(text).reason == reason


def test_a_reason_before_many_frames_is_kept() -> None:
    goroutines = "".join(f"\ngoroutine {n} [select]:\nmain.work(0x1, ...)\n\t/srv/main.go:8 +0x1d" for n in range(1000))
    assert written("panic: no key" + goroutines).reason == "panic: no key"
    frames = "\n    at f (file:///x.js:1:1)" * 1000
    assert written("Error: no key" + frames + "\n\nNode.js v22.1.0").reason == "Error: no key"


def test_what_is_kept_is_bounded() -> None:
    kept = written("\n".join(f"line {number} " + "x" * 10_000 for number in range(1000)))
    assert len(kept.lines) == LINES
    assert len(kept.reason) <= SHOWN + 3


def test_a_line_is_redacted_before_it_is_cut() -> None:
    secret = "s3cret-" * 10
    kept = Stderr(lambda text: text.replace(secret, "***"))
    kept.add(("x" * 490 + secret).encode())
    assert "s3cret" not in kept.lines[0]


def test_no_line_is_slow_to_read() -> None:
    """A server writes what it likes; patterns that backtrack would stop the loop."""
    for text in (
        "(" * 50_000,
        "npm error " * 5000,
        "Error: " + "." * 50_000,
        "  | " * 12_000,
        "a.b" * 20_000,
        "{" * 50_000,
    ):
        assert len(written(text).reason) <= SHOWN + 3
