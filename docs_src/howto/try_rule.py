"""A rule of one's own, tried on what a server said."""

from mcpconn import Evidence, FailureKind, Rule, classify

said = Evidence(
    http_status=200,
    code=-32602,
    message="Error: No such conversation (id 7)",
    from_wire=True,
)

assert classify(said).kind is FailureKind.APPLICATION

rule = Rule.phrase("no such conversation")
failure = classify(said, [rule])
assert failure.kind is FailureKind.SESSION_EXPIRED
assert not failure.proof
