"""A gateway before the server answers 418 while it moves sessions elsewhere."""

from mcpconn import Delivery, FailureKind, Rule

MOVING = Rule(
    because="the gateway moves the session elsewhere",
    kind=FailureKind.SESSION_EXPIRED,
    delivery=Delivery.REJECTED,  # it refuses before the server sees the request
    proof=False,  # a probe of the session decides
    matches=lambda seen: seen.status == 418,
)
