"""What the host shows its user, for every failure and every way there can be."""

from hypothesis import given

from mcpconn import TRANSITIONS, Delivery, Event, Failure, State
from mcpconn.testing.strategies import failures, walks

TARGET = {(row.source, row.event): row.target for row in TRANSITIONS}


def sentence(failure: Failure) -> str:
    """Under test: what the user reads."""
    if failure.delivery is Delivery.UNKNOWN:
        return f"Look first, it may have been done: {failure.summary}"
    return f"Try again: {failure.summary}"


class Light:
    """Under test: a light in the host's window, told of every change."""

    green = False

    def see(self, event: Event) -> None:
        if event is Event.ESTABLISHED:
            self.green = True
        elif event is not Event.SUSPECTED:
            self.green = False


@given(failure=failures())
def test_nobody_is_asked_to_repeat_what_may_have_run(failure: Failure) -> None:
    asked = sentence(failure).startswith("Try again")
    assert asked is (failure.delivery is not Delivery.UNKNOWN)


@given(walk=walks())
def test_the_light_is_green_while_the_connection_is_ready(walk: list[Event]) -> None:
    light, state = Light(), State.IDLE
    for event in walk:
        light.see(event)
        state = TARGET[state, event]
        assert light.green is (state is State.READY)
