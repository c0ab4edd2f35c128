"""An HTTP/1.1 engine that can prove three things no HTTP library says.

1. **That an idle socket is clean.** A server that has a bug, or a proxy that loses count, sends more than one response
   for one request. The rest would be read as the answer to the next request: a 404 that was meant for nobody makes
   a tool that ran look refused, and it is called again. Nothing is buffered between h11 and the kernel here
   (`channel`), so a socket is used again only if h11 has no bytes left over and a read that does not wait finds
   nothing, neither in TLS nor below it.
2. **Whether a request was written.** The event is reported before the first byte leaves, and never taken back.
3. **Which socket an unsafe call gets.** One that was used within the last half second, or a fresh one: an older one
   may be closed by the server in the moment in which the request is written.

That is all it is kept for. URLs, headers, cookies, compression, TLS settings and redirects are httpx2's, the syntax of
HTTP is h11's, and what has a proxy goes through httpx2's own transport (`wire.library`).

What it promises to the layers above: `ConnectError`, `ConnectTimeout`, `UnsupportedProtocol` or `LocalProtocolError` if
nothing was written; any other error if something may have been. A request is never sent twice.
"""
