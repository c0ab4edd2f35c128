"""Support for children with an encoding other than UTF-8, as with the SDK's `StdioServerParameters.encoding`.

Internally messages are always UTF-8: a child's output is transcoded before it is split into lines, and its input after
a message was encoded.
"""

from __future__ import annotations

import codecs

from mcpconn.wire.pipes import CHUNK, Reader


class Transcoder:
    """Translates between UTF-8 and one encoding."""

    def __init__(self, encoding: str, errors: str) -> None:
        """
        Args:
            encoding: Known to `codecs`.
            errors: `strict`, `ignore` or `replace`.
        """
        self._encoding = encoding
        self._errors = errors
        self._encoder = codecs.getincrementalencoder(encoding)(errors)

    @classmethod
    def needed(cls, encoding: str, errors: str) -> Transcoder | None:
        """A transcoder; None if there is nothing to do."""
        plain = codecs.lookup(encoding).name == "utf-8" and errors == "strict"
        return None if plain else cls(encoding, errors)

    def encode(self, body: bytes) -> bytes:
        """A message for the child.

        Raises:
            UnicodeEncodeError: it holds a character that the encoding cannot express. Nothing was written.
        """
        return self._encoder.encode(body.decode("utf-8"))

    def reader(self, inner: Reader) -> Reader:
        """What `inner` receives, as UTF-8."""
        return _Reader(inner, self._encoding, self._errors)


class _Reader:
    def __init__(self, inner: Reader, encoding: str, errors: str) -> None:
        self._inner = inner
        # Undecodable bytes must invalidate only their line, not everything after it: they become lone surrogates, which
        # are not valid UTF-8 either, so the parser rejects the line.
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogateescape" if errors == "strict" else errors)

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        text = ""
        while not text:
            text = self._decoder.decode(await self._inner.receive(max_bytes))
        return text.encode("utf-8", "surrogatepass")

    async def aclose(self) -> None:
        await self._inner.aclose()
