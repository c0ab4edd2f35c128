"""Two errors in the same words."""

from mcpconn import Evidence, FailureKind, classify

TEXT = "Session not found"

# A refusal of a request that carried a session id: proof, and the tool has not run.
refused = classify(
    Evidence(
        http_status=404, code=-32600, message=TEXT, session_sent=True, from_wire=True
    )
)
assert refused.kind is FailureKind.SESSION_EXPIRED
assert refused.proof

# The same words in an answer with HTTP 200: perhaps. A probe of the session will tell.
answered = classify(
    Evidence(
        http_status=200, code=-32000, message=TEXT, session_sent=True, from_wire=True
    )
)
assert answered.kind is FailureKind.SESSION_EXPIRED
assert not answered.proof
