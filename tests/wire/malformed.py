"""Responses that no server should send, and what a caller has to be notified of each.

Every response answers a call that is not safe to repeat. `ran` says whether the tool has run. `A` is the true answer,
a JSON-RPC message as JSON, and `E` the same as an event of an event stream.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["answered", "error", "unknown", "not_run"]
Make = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Case:
    """One response."""

    name: str
    make: Make
    outcome: Outcome
    ran: bool = True
    close: bool = False
    """The server closes the connection behind it."""


CASES: list[Case] = []
"""All of them."""


def case(name: str, outcome: Outcome, make: Make | bytes, *, ran: bool = True, close: bool = False) -> None:
    """Add one; bytes stand for themselves."""
    CASES.append(Case(name, make if callable(make) else lambda _: make, outcome, ran, close))


JSON = b"content-type: application/json\r\n"


def whole(body: bytes, head: bytes = JSON, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """A response with a true Content-Length."""
    return status + b"\r\n" + head + b"content-length: %d\r\n\r\n" % len(body) + body


def chunked(*chunks: bytes, head: bytes = JSON, end: bytes = b"0\r\n\r\n") -> bytes:
    """A response in chunks."""
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\n" + head + b"transfer-encoding: chunked\r\n\r\n" + framed + end


def events(data: bytes, head: bytes = b"content-type: text/event-stream\r\n") -> bytes:
    """An event stream that ends."""
    return chunked(data, head=head) if data else chunked(head=head)


def event(answer: bytes) -> bytes:
    return b"event: message\ndata: " + answer + b"\n\n"


# -- the status line

case("a good answer", "answered", whole)
case("HTTP/1.0", "answered", lambda a: whole(a, status=b"HTTP/1.0 200 OK"))
case("no reason", "answered", lambda a: whole(a, status=b"HTTP/1.1 200 "))
case("no reason and no space", "answered", lambda a: whole(a, status=b"HTTP/1.1 200"))
case("a reason that is no ASCII", "answered", lambda a: whole(a, status=b"HTTP/1.1 200 \xfcbel"))
case("a reason with a NUL", "unknown", lambda a: whole(a, status=b"HTTP/1.1 200 O\0K"))
case("a reason of 50 KB", "answered", lambda a: whole(a, status=b"HTTP/1.1 200 " + b"x" * 50_000))
case("a reason of 200 KB", "unknown", lambda a: whole(a, status=b"HTTP/1.1 200 " + b"x" * 200_000))
case("HTTP/1.2", "answered", lambda a: whole(a, status=b"HTTP/1.2 200 OK"))
case("HTTP/2.0", "answered", lambda a: whole(a, status=b"HTTP/2.0 200 OK"))
case("HTTP/0.9", "answered", lambda a: whole(a, status=b"HTTP/0.9 200 OK"))
case("HTTP/11", "unknown", lambda a: whole(a, status=b"HTTP/11 200 OK"))
case("http in small letters", "unknown", lambda a: whole(a, status=b"http/1.1 200 OK"))
case("another protocol's name", "unknown", lambda a: whole(a, status=b"ICY 200 OK"))
case("two spaces before the status", "unknown", lambda a: whole(a, status=b"HTTP/1.1  200 OK"))
case("a tab before the status", "unknown", lambda a: whole(a, status=b"HTTP/1.1\t200 OK"))
case("a space in front", "unknown", lambda a: b" " + whole(a))
case("a status of two digits", "unknown", lambda a: whole(a, status=b"HTTP/1.1 20 OK"))
case("a status of four digits", "unknown", lambda a: whole(a, status=b"HTTP/1.1 2000 OK"))
case("a status below zero", "unknown", lambda a: whole(a, status=b"HTTP/1.1 -20 OK"))
case("a status in letters", "unknown", lambda a: whole(a, status=b"HTTP/1.1 abc OK"))
case("a status of other digits", "unknown", lambda a: whole(a, status="HTTP/1.1 ٢٠٠ OK".encode()))
case("no status", "unknown", lambda a: whole(a, status=b"HTTP/1.1 OK"))
case("no status line", "unknown", lambda a: JSON + b"\r\n" + a, close=True)
case("an empty line in front", "unknown", lambda a: b"\r\n" + whole(a))
case("lines that end in LF", "answered", lambda a: b"HTTP/1.1 200 OK\n" + JSON + b"content-length: %d\n\n" % len(a) + a)
case("lines that end in CR", "unknown", lambda a: whole(a).replace(b"\r\n", b"\r"), close=True)
case("JSON without HTTP", "unknown", lambda a: a, close=True)
case("a page without HTTP", "unknown", b"<html><body>It works!</body></html>\r\n", close=True)
case("a greeting of SMTP", "unknown", b"220 mail.example.com ESMTP\r\n", close=True)
case("a greeting of SSH", "unknown", b"SSH-2.0-OpenSSH_9.6\r\n", close=True)
case("an alert of TLS", "unknown", b"\x15\x03\x01\x00\x02\x02\x46", close=True)
case("frames of HTTP/2", "unknown", b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0d\0\0\x08\x07" + b"\0" * 13, close=True)
case("binary noise", "unknown", bytes(range(256)) * 20, close=True)
case("a megabyte without a line end", "unknown", b"x" * 1_000_000)

# -- headers

case("no headers", "unknown", lambda a: b"HTTP/1.1 200 OK\r\n\r\n" + a, close=True)
case("a header without a colon", "unknown", lambda a: whole(a, JSON + b"nonsense\r\n"))
case("a header without a name", "unknown", lambda a: whole(a, JSON + b": value\r\n"))
case("a header without a value", "answered", lambda a: whole(a, JSON + b"x-empty:\r\n"))
case("a space before the colon", "unknown", lambda a: whole(a, JSON + b"x-space : 1\r\n"))
case("a space in a header's name", "unknown", lambda a: whole(a, JSON + b"x space: 1\r\n"))
case("a header in two lines", "answered", lambda a: whole(a, JSON + b"x-folded: a\r\n  b\r\n"))
case("a first header that is folded", "unknown", lambda a: whole(a, b" x: 1\r\n" + JSON))
case("a NUL in a value", "unknown", lambda a: whole(a, JSON + b"x: a\0b\r\n"))
case("a CR in a value", "unknown", lambda a: whole(a, JSON + b"x: a\rb\r\n"))
case("a value that is no ASCII", "answered", lambda a: whole(a, JSON + b"x: \xff\xfe\r\n"))
case("control characters in a value", "answered", lambda a: whole(a, JSON + b"x: \x01\x7f\r\n"))
case("a name that is no ASCII", "unknown", lambda a: whole(a, JSON + b"x-\xff: 1\r\n"))
case("a thousand headers", "answered", lambda a: whole(a, JSON + b"x-n: 1\r\n" * 1000))
case("50 KB of headers", "answered", lambda a: whole(a, JSON + b"x-n: " + b"y" * 50_000 + b"\r\n"))
case("a megabyte of headers", "unknown", lambda a: whole(a, JSON + (b"x-n: " + b"y" * 1000 + b"\r\n") * 1000))
case("headers that never end", "unknown", lambda a: b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100, close=True)
case("half a header", "unknown", b"HTTP/1.1 200 OK\r\ncontent-ty", close=True)
case("a cookie that is no cookie", "answered", lambda a: whole(a, JSON + b"set-cookie: =;;;\xff=\r\n"))
case("keep-alive in words", "answered", lambda a: whole(a, JSON + b"keep-alive: timeout=forever\r\n"))
case("a keep-alive of no time", "answered", lambda a: whole(a, JSON + b"keep-alive: timeout=0\r\n"))
case("close, and open for all that", "answered", lambda a: whole(a, JSON + b"connection: close\r\n"))
case("an offer to upgrade", "answered", lambda a: whole(a, JSON + b"upgrade: h2c\r\nconnection: upgrade\r\n"))

# -- what kind of body it is

case("JSON in capitals", "answered", lambda a: whole(a, b"Content-Type: APPLICATION/JSON\r\n"))
case("JSON with a charset", "answered", lambda a: whole(a, b"content-type: application/json;charset=utf-8\r\n"))
case("JSON with nonsense behind", "answered", lambda a: whole(a, b"content-type: application/json; =;;\r\n"))
case("no content type", "unknown", lambda a: whole(a, b""))
case("an empty content type", "unknown", lambda a: whole(a, b"content-type:\r\n"))
case("text", "unknown", lambda a: whole(a, b"content-type: text/plain\r\n"))
case("a page", "unknown", lambda a: whole(a, b"content-type: text/html\r\n"))
case("a problem", "unknown", lambda a: whole(a, b"content-type: application/problem+json\r\n"))

# -- Content-Length

LENGTH = b"content-length: %d\r\n"


def sized(value: bytes, answer: bytes) -> bytes:
    """A response with that Content-Length."""
    return b"HTTP/1.1 200 OK\r\n" + JSON + b"content-length: " + value + b"\r\n\r\n" + answer


case("the length twice", "answered", lambda a: whole(a, JSON + LENGTH % len(a)))
case("the length twice in one", "answered", lambda a: sized(b"%d, %d" % (len(a), len(a)), a))
case("two lengths", "unknown", lambda a: whole(a, JSON + LENGTH % (len(a) + 1)))
case("two lengths in one", "unknown", lambda a: sized(b"%d, %d" % (len(a), len(a) - 1), a))
case("a length with a plus", "unknown", lambda a: sized(b"+%d" % len(a), a))
case("a length below zero", "unknown", lambda a: sized(b"-1", a))
case("a length in hexadecimal", "unknown", lambda a: sized(b"0x%x" % len(a), a))
case("a length in words", "unknown", lambda a: sized(b"all of it", a))
case("a length with a fraction", "unknown", lambda a: sized(b"%d.0" % len(a), a))
case("a length with an underscore", "unknown", lambda a: sized(b"1_0", a))
case("a length of other digits", "unknown", lambda a: sized("٣".encode(), a))
case("a length with zeros in front", "answered", lambda a: sized(b"000%d" % len(a), a))
case("an empty length", "unknown", lambda a: sized(b"", a))
case("a length of thirty digits", "unknown", lambda a: sized(b"9" * 30, a), close=True)
case("a length that is too small", "unknown", lambda a: sized(b"%d" % (len(a) - 3), a))
case("a length of nothing", "unknown", lambda a: sized(b"0", a))
case("a length that is too large", "unknown", lambda a: sized(b"%d" % (len(a) + 1), a), close=True)
case("no length, and the end", "answered", lambda a: b"HTTP/1.1 200 OK\r\n" + JSON + b"\r\n" + a, close=True)
case("no length, and half of it", "unknown", lambda a: b"HTTP/1.1 200 OK\r\n" + JSON + b"\r\n" + a[:-9], close=True)

# -- chunks


def coded(value: bytes, body: bytes, head: bytes = JSON) -> bytes:
    """A response with that Transfer-Encoding, and that body, framed already."""
    return b"HTTP/1.1 200 OK\r\n" + head + b"transfer-encoding: " + value + b"\r\n\r\n" + body


def one(answer: bytes) -> bytes:
    """The answer as one chunk, and the end."""
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(answer), answer)


case("chunks", "answered", lambda a: chunked(a[:5], a[5:9], a[9:]))
case("chunks of a byte", "answered", lambda a: chunked(*[bytes([each]) for each in a]))
case("chunked in capitals", "answered", lambda a: coded(b"CHUNKED", one(a)))
case("chunked twice", "unknown", lambda a: coded(b"chunked, chunked", one(a)))
case("chunked twice in two", "unknown", lambda a: coded(b"chunked\r\ntransfer-encoding: chunked", one(a)))
case("gzip, and chunked", "unknown", lambda a: coded(b"gzip, chunked", one(gzip.compress(a))))
case("identity", "unknown", lambda a: coded(b"identity", a), close=True)
case("an encoding like chunked", "unknown", lambda a: coded(b"xchunked", one(a)))
case("chunks and a length", "answered", lambda a: coded(b"chunked", one(a), JSON + LENGTH % len(a)))
case("chunks and a wrong length", "answered", lambda a: coded(b"chunked", one(a), JSON + LENGTH % 3))
case("chunks in HTTP/1.0", "answered", lambda a: chunked(a).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
case("a chunk with an extension", "answered", lambda a: coded(b"chunked", one(a).replace(b"\r\n", b";x=y\r\n", 1)))
case("a chunk with a long extension", "unknown", lambda a: coded(b"chunked", b"5;" + b"x" * 200_000 + b"\r\n"))
case("a size in capitals", "answered", lambda a: coded(b"chunked", b"%X\r\n%s\r\n0\r\n\r\n" % (len(a), a)))
case("a size with zeros in front", "answered", lambda a: coded(b"chunked", b"000" + one(a)))
case("a size with a space behind", "answered", lambda a: coded(b"chunked", one(a).replace(b"\r\n", b" \r\n", 1)))
case("a size with 0x", "unknown", lambda a: coded(b"chunked", b"0x" + one(a)))
case("a size below zero", "unknown", lambda a: coded(b"chunked", b"-" + one(a)))
case("a size of 21 digits", "unknown", lambda a: coded(b"chunked", b"f" * 21 + b"\r\n" + a))
case("a size of 20 digits", "unknown", lambda a: coded(b"chunked", b"f" * 20 + b"\r\n" + a), close=True)
case("a size in words", "unknown", lambda a: coded(b"chunked", b"xyz\r\n" + a))
case("no size", "unknown", lambda a: coded(b"chunked", b"\r\n" + one(a)))
case("a size that is too small", "unknown", lambda a: coded(b"chunked", b"5\r\n" + a + b"\r\n0\r\n\r\n"))
case("a size that is too large", "unknown", lambda a: coded(b"chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(a) + 1, a)))
case("no line end behind a chunk", "unknown", lambda a: coded(b"chunked", b"%x\r\n%s0\r\n\r\n" % (len(a), a)))
case("no last chunk", "unknown", lambda a: chunked(a, end=b""), close=True)
case("no end of the last chunk", "unknown", lambda a: chunked(a, end=b"0\r\n"), close=True)
case("half a chunk", "unknown", lambda a: coded(b"chunked", b"%x\r\n%s" % (len(a), a[:9])), close=True)
case("a last chunk of many zeros", "answered", lambda a: chunked(a, end=b"0000\r\n\r\n"))
case("trailers", "answered", lambda a: chunked(a, end=b"0\r\nx-sum: 1\r\n\r\n"))
case("trailers that claim a length", "answered", lambda a: chunked(a, end=b"0\r\ncontent-length: 1\r\n\r\n"))
case("trailers that are none", "unknown", lambda a: chunked(a, end=b"0\r\nnonsense\r\n\r\n"))
case("a megabyte of trailers", "unknown", lambda a: chunked(a, end=b"0\r\n" + b"x: y\r\n" * 200_000 + b"\r\n"))
case("no chunks at all", "unknown", chunked())

# -- compression

GZIP = JSON + b"content-encoding: gzip\r\n"

case("gzip", "answered", lambda a: whole(gzip.compress(a), GZIP))
case("gzip in capitals", "answered", lambda a: whole(gzip.compress(a), JSON + b"content-encoding: GZIP\r\n"))
case("gzip twice", "answered", lambda a: whole(gzip.compress(gzip.compress(a)), GZIP.replace(b"gzip", b"gzip, gzip")))
case("deflate", "answered", lambda a: whole(zlib.compress(a), JSON + b"content-encoding: deflate\r\n"))
case("gzip that is none", "unknown", lambda a: whole(a, GZIP))
case("gzip cut short", "unknown", lambda a: whole(gzip.compress(a)[:-12], GZIP))
case("gzip of nothing", "unknown", whole(b"", GZIP))
case("gzip with a wrong sum", "unknown", lambda a: whole(gzip.compress(a)[:-8] + b"\0" * 8, GZIP))
case("an encoding that nobody knows", "answered", lambda a: whole(a, JSON + b"content-encoding: x-nobody\r\n"))
case("an empty encoding", "answered", lambda a: whole(a, JSON + b"content-encoding:\r\n"))
case("a bomb", "unknown", whole(gzip.compress(b"[" + b" " * 30_000_000), GZIP))

# -- JSON, and what is in it

case("nothing", "unknown", whole(b""))
case("spaces", "unknown", whole(b" \r\n\t "))
case("spaces around it", "answered", lambda a: whole(b"\n " + a + b"\t\n"))
case("a byte order mark", "unknown", lambda a: whole(b"\xef\xbb\xbf" + a))
case("UTF-16", "unknown", lambda a: whole(a.decode().encode("utf-16")))
case("bytes that are no UTF-8", "unknown", lambda a: whole(a.replace(b"charged", b"ch\xff\xferged")))
case("half of it", "unknown", lambda a: whole(a[: len(a) // 2]))
case("nonsense behind it", "unknown", lambda a: whole(a + b"}"))
case("it twice", "unknown", lambda a: whole(a + a))
case("it in a batch", "answered", lambda a: whole(b"[" + a + b"]"))
case("it twice in a batch", "unknown", lambda a: whole(b"[" + a + b"," + a + b"]"))
case("a text", "unknown", whole(b'"charged 5"'))
case("null", "unknown", whole(b"null"))
case("an empty object", "unknown", whole(b"{}"))
case("ten thousand brackets", "unknown", whole(b"[" * 10_000 + b"]" * 10_000))
case("a number that is none", "answered", lambda a: whole(a.replace(b'"content"', b'"_meta":{"x":NaN},"content"')))
case("a comment", "unknown", lambda a: whole(a + b"// done"))
case("the id twice", "answered", lambda a: whole(a.replace(b'{"jsonrpc"', b'{"id":"other","jsonrpc"', 1)))


def named(member: bytes, value: bytes) -> Make:
    """The answer with one of its members replaced."""

    def make(answer: bytes) -> bytes:
        head, _, rest = answer.partition(b'"' + member + b'":')
        end = min(at for at in (rest.find(b","), rest.find(b"}")) if at >= 0)
        return whole(head + b'"' + member + b'":' + value + rest[end:])

    return make


case("another id", "unknown", named(b"id", b"987654"))
case("the id as a float", "answered", lambda a: whole(re.sub(rb'"id":(\d+)', rb'"id":\1.0', a, count=1)))
case("an id with a fraction", "unknown", named(b"id", b"5.5"))
case("an id of null", "unknown", named(b"id", b"null"))
case("an id that is an object", "unknown", named(b"id", b"{}"))
case("no id", "unknown", lambda a: whole(a.replace(b'"id":', b'"di":', 1)))
case("JSON-RPC 1.0", "unknown", named(b"jsonrpc", b'"1.0"'))
case("no version", "unknown", lambda a: whole(a.replace(b'"jsonrpc":"2.0",', b"", 1)))
case("no result", "unknown", lambda a: whole(a.replace(b'"result":', b'"tluser":', 1)))
case("a result of another shape", "unknown", lambda a: whole(a.partition(b'"result":')[0] + b'"result":[1]}'))
case("a result and an error", "unknown", lambda a: whole(a[:-1] + b',"error":{"code":1,"message":"x"}}'))


def failing(error: bytes) -> Make:
    """An answer that is this error."""
    return lambda answer: whole(answer.partition(b'"result":')[0] + b'"error":' + error + b"}")


case("an error", "error", failing(b'{"code":-32603,"message":"no money"}'))
case("an error with a body beside it", "error", failing(b'{"code":5,"message":"no money","data":{"x":[1]},"y":1}'))
case("an error without a message", "unknown", failing(b'{"code":-32603}'))
case("an error without a code", "unknown", failing(b'{"message":"no money"}'))
case("an error that is a text", "unknown", failing(b'"no money"'))
case("an error of half a surrogate", "unknown", failing(b'{"code":-32603,"message":"\\ud800"}'))
case("an error of 5,000 digits", "unknown", failing(b'{"code":-32603,"message":"x","data":' + b"9" * 5000 + b"}"))

# -- statuses


def status(code: int, body: bytes = b"", head: bytes = b"") -> bytes:
    """A response of that status."""
    return whole(body, head, b"HTTP/1.1 %d X" % code)


case("100 and no more", "unknown", b"HTTP/1.1 100 Continue\r\n\r\n", close=True)
case("102 and the answer", "answered", lambda a: b"HTTP/1.1 102 Processing\r\n\r\n" + whole(a))
case("103 fifty times and the answer", "answered", lambda a: b"HTTP/1.1 103 Hints\r\n\r\n" * 50 + whole(a))
case("101", "unknown", b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
case("201 and the answer", "answered", lambda a: status(201, a, JSON))
case("202 and the answer", "unknown", lambda a: status(202, a, JSON))
case("203 and the answer", "answered", lambda a: status(203, a, JSON))
case("204", "unknown", b"HTTP/1.1 204 No Content\r\n\r\n")
case("204 and the answer", "unknown", lambda a: b"HTTP/1.1 204 No Content\r\n" + JSON + b"\r\n" + a)
case("205", "unknown", status(205))
case("206 and half of it", "unknown", lambda a: status(206, a[:9], JSON))
case("300", "unknown", status(300, b"", b"location: /other\r\n"))
case("302", "unknown", status(302, b"", b"location: /login\r\n"))
case("303", "unknown", status(303, b"", b"location: /receipt\r\n"))
case("304", "unknown", b"HTTP/1.1 304 Not Modified\r\n\r\n")
case("307 without a place", "not_run", status(307), ran=False)
case("308 to nowhere", "not_run", status(308, b"", b"location: http://[\r\n"), ran=False)
case("301", "not_run", status(301, b"", b"location: /other\r\n"), ran=False)
case("307 to another host", "not_run", status(307, b"", b"location: http://other.example/mcp\r\n"), ran=False)
case("400", "not_run", status(400), ran=False)
case("403", "not_run", status(403), ran=False)
case("405", "not_run", status(405, b"", b"allow: GET\r\n"), ran=False)
case("406 as a page", "not_run", status(406, b"<html>", b"content-type: text/html\r\n"), ran=False)
case("411", "not_run", status(411), ran=False)
case("413 and the end", "not_run", status(413, b"", b"connection: close\r\n"), ran=False, close=True)
case("415 with a wrong length", "not_run", b"HTTP/1.1 415 X\r\ncontent-length: 0\r\n\r\nno", ran=False)
case("431", "not_run", status(431), ran=False)
case("408", "unknown", status(408), ran=False)
case("499 after it ran", "unknown", lambda a: status(499))
case("499 as a page", "unknown", status(499, b"<html>", b"content-type: text/html\r\n"))
case("500", "unknown", status(500))
case("500 and the answer", "unknown", lambda a: status(500, a, JSON))
case("502 as a page", "unknown", status(502, b"<html>Bad Gateway", b"content-type: text/html\r\n"))
case("503 without an end", "unknown", b"HTTP/1.1 503 X\r\ncontent-length: 900\r\n\r\nbusy", close=True)
case("504", "unknown", status(504))
case("599", "unknown", status(599))
case("600", "unknown", status(600))
case("999", "unknown", status(999))

# -- event streams


def stream(data: Make) -> Make:
    """An event stream that holds this."""
    return lambda answer: events(data(answer))


case("an event", "answered", stream(event))
case("an event with CRLF", "answered", stream(lambda a: event(a).replace(b"\n", b"\r\n")))
case("an event with CR", "answered", stream(lambda a: event(a).replace(b"\n", b"\r") + b"\r"))
case("an event with a byte order mark", "answered", stream(lambda a: b"\xef\xbb\xbf" + event(a)))
case("an event without a name", "answered", stream(lambda a: b"data: " + a + b"\n\n"))
case("an event without a space", "answered", stream(lambda a: b"data:" + a + b"\n\n"))
case("an event in two lines of data", "answered", stream(lambda a: b"data: {\ndata: " + a[1:] + b"\n\n"))
case("comments before it", "answered", stream(lambda a: b": ping\n\n:\n\n" + event(a)))
case("fields that nobody knows", "answered", stream(lambda a: b"foo: bar\nfoo\n" + event(a)))
case("an event of another name", "unknown", stream(lambda a: event(a).replace(b"message", b"other", 1)))
case("an event that never ends", "unknown", stream(lambda a: event(a)[:-1]))
case("an event of nonsense", "unknown", stream(lambda a: b"data: nonsense\n\n"))
case("an event that is no UTF-8", "unknown", stream(lambda a: event(a).replace(b"charged", b"\xff\xfe")))
case("an event for another request", "unknown", stream(lambda a: event(a.replace(b'"id":', b'"id":99', 1))))
case(
    "one for another, then its own", "answered", stream(lambda a: event(a.replace(b'"id":', b'"id":99', 1)) + event(a))
)
case("its own twice", "answered", stream(lambda a: event(a) + event(a)))
case("its own, then nonsense", "answered", stream(lambda a: event(a) + b"data: nonsense\n\n"))
case("a retry of a million years", "answered", stream(lambda a: b"retry: 99999999999999999\n" + event(a)))
case("an empty stream", "unknown", events(b""))
case("comments alone", "unknown", events(b": ping\n\n" * 100))
case("a stream that is cut", "unknown", lambda a: events(event(a)[:-9])[:-7], close=True)
case("its own, and cut", "answered", lambda a: events(event(a))[:-5], close=True)
case(
    "a stream with a charset", "answered", lambda a: events(event(a), b"content-type: Text/Event-Stream; charset=x\r\n")
)
case("a stream with a length", "answered", lambda a: whole(event(a), b"content-type: text/event-stream\r\n"))
case(
    "a stream in gzip",
    "answered",
    lambda a: whole(gzip.compress(event(a)), GZIP.replace(b"application/json", b"text/event-stream")),
)
case("an event of 20 MB", "unknown", events(b"data: " + b"x" * 20_000_000))

# -- the end of the connection

case("no byte", "unknown", b"", close=True)
case("half a status line", "unknown", b"HTTP/1.1 2", close=True)
case("a head and no body", "unknown", lambda a: whole(a)[: -len(a)], close=True)
case("half a body", "unknown", lambda a: whole(a)[:-9], close=True)
case("a head twice", "unknown", lambda a: whole(a)[: -len(a)] + whole(a), close=True)
case("it, and another answer", "answered", lambda a: whole(a) + whole(a))
case("it, and a refusal", "answered", lambda a: whole(a) + status(404))
case("it, and bytes", "answered", lambda a: whole(a) + b"\0\r\n")
