"""What of a configuration is secret, by its place or by its form, and what has to stay readable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcpconn.redact.places import (
    redact_url,
    secrets_of_args,
    secrets_of_cookies,
    secrets_of_env,
    secrets_of_headers,
    secrets_of_inherited,
    secrets_of_url,
)
from mcpconn.redact.tokens import looks_like_token

TOKEN = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    "args",
    [
        ["-m", "mcp_server_with_a_long_name"],
        ["-y", "@modelcontextprotocol/server-everything@2025.1.14"],
        ["run", "ghcr.io/github/github-mcp-server:v0.20.1"],
        ["--model", "claude-3-5-sonnet-20241022"],
        ["--since", "2026-11-28T01:00:00Z"],
        ["server_v2_handlers.py", "--max-old-space-size=4096"],
        ["--max-tokens", "4096000", "--max-tokens=4096000"],
        ["--author", "Somebody Important", "--keyboard", "qwertyuiop"],
        ["--token", "--verbose", "--use-auth=false"],
        ["https://example.com/mcp", "--port", "8080808"],
        ["--key-file", str(Path(__file__))],
        [str(Path(__file__).resolve().parent)],
    ],
)
def test_plain_arguments_stay_readable(args: list[str]) -> None:
    assert secrets_of_args(args) == set()


@pytest.mark.parametrize(
    ("args", "secret"),
    [
        (["--token=abcdef=="], "abcdef=="),
        (["--token", "abcdef"], "abcdef"),
        (["--api-key=hunter22"], "hunter22"),
        (["-e", "SETTING=Production-EU"], "Production-EU"),
        (["--env=API_KEY=hunter22"], "hunter22"),
        (["API_KEY=hunter22"], "hunter22"),
        (["--header", "Authorization: Bearer hunter22"], "Bearer hunter22"),
        (["--header=X-Custom:Hunter22"], "Hunter22"),
        (["-H", "X-Key:hunter22"], "hunter22"),
        (["postgres://user:hunter22@host/db"], "hunter22"),
        (["--url=https://host/mcp?api_key=hunter22"], "hunter22"),
        (["--db", "dsn postgres://user:hunt%65r22@host/db ok"], "hunter22"),
        (["--config", '{"apiKey": "hunter22"}'], "hunter22"),
        (['--config={"apiKey": "hunter22"}'], "hunter22"),
        ([TOKEN], TOKEN),
        (["-c", f"connect('{TOKEN}')"], TOKEN),
        (["--id", "550e8400-e29b-41d4-a716-446655440000"], "550e8400-e29b-41d4-a716-446655440000"),
    ],
)
def test_arguments_that_are_secret_are_found(args: list[str], secret: str) -> None:
    assert secret in secrets_of_args(args)


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("LOG_LEVEL", "debug", False),
        ("PORT", "8080808", False),
        ("RATIO", "-0.5000001", False),
        ("DEBUG", "False", False),
        ("HOME_DIR", str(Path(__file__).resolve().parent), False),
        ("API_URL", "https://api.example.com/v1", False),
        ("REGION", "Production-EU", True),
        ("SLACK_TOKEN", "word", True),
        ("PASSWORD", "12345678", True),
        ("AUTH_MODE", "basic", True),
        ("API_URL", "https://user:hunter22@api.example.com/v1", True),
        ("CREDENTIALS", str(Path(__file__)), True),
    ],
)
def test_variables_are_secret_unless_plain(name: str, value: str, secret: bool) -> None:
    assert (value in secrets_of_env({name: value})) is secret


def test_the_secret_parts_of_json_and_pem_are_known_by_themselves() -> None:
    account = {
        "type": "service_account",
        "private_key": PEM,
        "project": "my-project",
        "ids": [TOKEN],
        "a": {"auth": "hunter22"},
    }
    found = secrets_of_env({"ACCOUNT": json.dumps(account), "CERT": PEM.replace("\n", "\\n")})
    assert {"MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", "BKcwggSjAgEAAoIBAQC7", TOKEN, "hunter22", PEM} <= found
    assert not {"service_account", "my-project", "-----BEGIN PRIVATE KEY-----"} & found


def test_inherited_variables_are_secret_by_name_or_form() -> None:
    env = {
        "LANG": "en_US.UTF-8",
        "EDITOR": "Some Editor",
        "API_TOKEN": "hunter22",
        "ID": TOKEN,
        "DB": "redis://u:hunter23@h",
    }
    assert secrets_of_inherited(env) == {"hunter22", TOKEN, "u:hunter23", "hunter23"}


@pytest.mark.parametrize(
    ("headers", "secrets"),
    [
        (
            {"Accept": "application/json", "User-Agent": "my-host/1.0", "X-Tenant": "acme", "X-Retries": "3333333"},
            set(),
        ),
        ({"Authorization": "Bearer hunter22"}, {"Bearer hunter22"}),
        ({"X-Anything": "Hunter 22"}, {"Hunter 22"}),
        (
            {"Cookie": 'sid=hunter22; theme=dark; b="hunter23"'},
            {"hunter22", "hunter23", 'sid=hunter22; theme=dark; b="hunter23"'},
        ),
    ],
)
def test_headers_are_secret_unless_plain(headers: dict[str, str], secrets: set[str]) -> None:
    assert secrets_of_headers(headers) == secrets
    assert secrets_of_cookies("a=; b=hunter22") == {"hunter22"}


def test_the_secrets_of_a_url_are_known_as_written_and_decoded() -> None:
    found = secrets_of_url(
        "https://Me%40x:p%40ss-word@host/s/c2VjcmV0LXBhdGgtdG9rZW4tMTIz?key=a%2Fb&mode=fast&n=1234567"
    )
    assert {"p%40ss-word", "p@ss-word", "Me@x", "a%2Fb", "a/b", "c2VjcmV0LXBhdGgtdG9rZW4tMTIz"} <= found
    assert not {"fast", "1234567", "host"} & found
    assert secrets_of_url("https://user@host/mcp") == {"user"}
    assert secrets_of_url("https://host/mcp?mode=fast") == set()
    assert secrets_of_url("http://[::1/broken") == set()


def test_addresses_are_shown_without_secrets() -> None:
    url = f"https://u:p@host:8/s/{TOKEN}/mcp?key=v#f"
    assert redact_url(url) == "https://host:8/s/***/mcp?***"


@pytest.mark.parametrize(
    "text",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "sk-live-51H8x2KJh7aBcDeFgHiJ",
        "xoxb-1234567890-abcdefghij",
        "d41d8cd98f00b204e9800998ecf8427e",
    ],
)
def test_tokens_are_known_by_their_form(text: str) -> None:
    assert looks_like_token(text)
