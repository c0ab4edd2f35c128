"""Self-validating settings: frozen dataclasses based on pydantic, with readable errors.

pydantic's own error quotes the value, which may be a token in the wrong place. So each error is converted to a
`ConfigError` that names the server, the key and the fix, and does not show the value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import field, fields
from functools import wraps
from typing import Annotated, Any, TypeVar, cast, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform

from mcpconn.errors import ConfigError

C = TypeVar("C", bound=type)

_CONFIG = ConfigDict(strict=True, hide_input_in_errors=True, arbitrary_types_allowed=True, extra="forbid")
NEVER = float("inf")
"""The number of seconds that means "no limit"; `false` in a file."""


def _unless_false(value: Any) -> Any:
    return NEVER if value is False else value


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A duration."""
Limit = Annotated[
    float,
    BeforeValidator(_unless_false),
    Field(gt=0),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"const": False}]}),
]
"""A duration, or False for "never"."""
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A number that is not a duration."""
Count = Annotated[int, Field(gt=0)]
"""A count."""


def _clean(text: str) -> str:
    if "\0" in text:
        raise ValueError("contains a NUL character")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("contains half of a surrogate pair, which is not a character") from None
    return text


Text = Annotated[str, AfterValidator(_clean)]
"""A string that an operating system accepts: without NUL and without lone surrogates."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field, Field))
def settings(cls: C) -> C:
    """Make a class a frozen dataclass that is validated on creation. Unknown and wrong values are a `ConfigError`.

    A check of one's own raises `ValueError` with what is wrong, as in "must be a list" (in a field's validator), or a
    `ConfigError` (in `__post_init__`). If the class has an attribute `name`, the error names that server.
    """
    made: Any = dataclass(cls, frozen=True, kw_only=True, config=_CONFIG)
    init: Callable[..., None] = made.__init__

    @wraps(init)
    def checked_init(self: Any, **values: Any) -> None:
        try:
            init(self, **values)
        except ValidationError as error:
            raise explain(error, cls, values) from None

    made.__init__ = checked_init
    return cast(C, made)


def explain(error: ValidationError, cls: type, values: Mapping[str, Any]) -> ConfigError:
    """The `ConfigError` for pydantic's error."""
    found: list[tuple[str | None, str]] = []
    errors = error.errors(include_url=False, include_context=True)
    for each in errors:
        if each["type"] == "literal_error" and any(
            other is not each and other["loc"][:1] == each["loc"][:1] for other in errors
        ):
            # One member of a union. The error of the other member, a number, describes the usual value.
            continue
        cause = each.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            return cause
        key = str(each["loc"][0]) if each["loc"] else None
        found.append((key, _words(each, cls)))
    words = "; ".join(dict.fromkeys(words for _, words in found))
    if not hasattr(cls, "name"):
        return ConfigError(f"{cls.__name__.lower()}: {words}", key=found[0][0])
    name = values.get("name", "")
    about = f"server {name!r}" if name else "server"
    return ConfigError(f"{about}: {words}", server=name, key=found[0][0])


def _words(error: Any, cls: type) -> str:
    """The problem with one field, and the expected value."""
    kind, location = error["type"], error["loc"]
    if kind == "unexpected_keyword_argument":
        return unknown_key(str(location[0]), [item.name for item in fields(cls)])
    where = ".".join(str(part) for part in location if part not in ("[key]", *_ARMS))
    if "[key]" in location:
        return f"{location[0]}: a name must be a string, not {type(error['input']).__name__}"
    if kind == "value_error":
        said = str(error["ctx"]["error"])
        # In "must be ..." and "is not ...", the key is the subject. A complete sentence follows a colon.
        return f"{where} {said}" if said.startswith(_VERBS) else f"{where}: {said}"
    what = _MUST.get(kind)
    if kind in ("float_type", "int_type", "greater_than", "finite_number"):
        what = _number_words(kind, error["input"])
    elif kind == "string_type" and len(location) > 1 and isinstance(location[1], str):
        what = f"must be a string, not {type(error['input']).__name__}"
    elif kind == "string_type" and len(location) > 1:
        where, what = str(location[0]), "must be a list of strings"
    elif kind == "literal_error":
        what = f"must be one of {error['ctx']['expected']}"
    return f"{where} {what or 'cannot be used'}"


_ARMS = ("constrained-float", "float")
"""What pydantic appends to an error's location to identify a member of a union."""
_VERBS = ("must ", "is ", "contains ", "needs ")
_MUST = {
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping of names to strings",
    "mapping_type": "must be a mapping of names to strings",
    "sequence_str": "must be a list of strings, not one string",
    "is_instance_of": "must be a list of strings",
    "list_type": "must be a list of strings",
    "tuple_type": "must be a list of strings",
    "string_unicode": "contains half of a surrogate pair, which is not a character",
}


def _number_words(kind: str, given: Any) -> str:
    if kind == "finite_number" and given == NEVER:
        return "must be a finite number; None is no limit, where there can be none"
    if kind == "greater_than" or (kind == "finite_number" and isinstance(given, float)):
        return "must be greater than zero"
    if kind == "float_type":
        huge = isinstance(given, int) and not isinstance(given, bool)
        return "is out of range" if huge else "must be a number of seconds"
    return "must be a whole number"


def check_timeout(timeout: object, what: str = "timeout") -> None:
    """Check that `timeout` is a valid time limit: a number of seconds, or None for no limit.

    Every limit is used in arithmetic with the event loop's clock. A value that breaks it (10**400 has no float, NaN
    compares as false) would raise in the task that owns a connection, not in the call that passed it. Zero is allowed,
    because a caller that passes on the rest of its own time limit may have none left.

    Raises:
        ConfigError: it is not a number, negative, or not finite.
    """
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        # The value is not shown: if it is not a number, it may be a token in the wrong place.
        raise ConfigError(f"{what} must be a number of seconds, not a {type(timeout).__name__}", key=what)
    if not 0 <= timeout <= sys.float_info.max:
        raise ConfigError(f"{what} must be zero or more seconds and finite; None is no limit", key=what)


def unknown_key(key: str, known: list[str]) -> str:
    """The message for an unknown key."""
    # Imported for an error alone.
    from difflib import get_close_matches

    close = get_close_matches(key, known, n=1)
    return f"unknown key {key!r}; " + (f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}")


def has_unit(annotation: Any) -> bool:
    """Whether a field's type is a duration."""
    return annotation in (Seconds, Limit) or any(has_unit(part) for part in get_args(annotation))
