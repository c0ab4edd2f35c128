"""An HTTP/1.1 engine that can prove three things that no HTTP library can.

1. **That an idle socket is clean.** A buggy server or proxy may send more than one response for one request. The extra
   response would be read as the answer to the next request: a stray 404 would make a tool that ran look refused, and
   the tool would be called again. Nothing is buffered between h11 and the kernel (`channel`), so a socket is reused
   only if h11 has no bytes left over and a non-blocking read finds nothing, neither in TLS nor below it.
2. **Whether a request was written.** The event is reported before the first byte is sent, and never revoked.
3. **Which socket an unsafe call gets.** It gets one that was used within the last half second, or a fresh one, because
   the server may close an older one at the moment at which the request is written.

These are the only reasons for it. httpx2 handles URLs, headers, cookies, compression, TLS settings and redirects, h11
the syntax of HTTP, and requests through a proxy use httpx2's own transport (`wire.library`).

Its guarantees to the layers above: `ConnectError`, `ConnectTimeout`, `UnsupportedProtocol` or `LocalProtocolError` if
nothing was written; any other error if something may have been. A request is never sent twice.
"""
