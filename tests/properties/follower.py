"""Follows a real connection through the model: is there a way for the model to do what was seen?

The model (`tests.model.model`) lists everything that can happen in a world. What really happened is known in
part: the transitions, how calls ended, how often the server ran them, and what was done to the server. The
follower keeps every world that the model could be in after all that. Where none is left, the connection has done
something that the model does not allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mcpconn import Event, State
from tests.model.model import Model
from tests.model.worlds import Caller, Step, World


class Ledger(Model):
    """The model, with a note of the events that each step fires."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self._fired: list[Event] = []
        self._known: dict[World, tuple[tuple[Step, tuple[Event, ...]], ...]] = {}

    def fire(self, world: World, event: Event) -> World:
        self._fired.append(event)
        return super().fire(world, event)

    def choices(self, world: World) -> tuple[tuple[Step, tuple[Event, ...]], ...]:
        """Everything that can happen in `world`, and the events that it fires."""
        if world not in self._known:
            self._fired.clear()
            found = []
            for step in self.steps(world):
                # What was computed since the last step was computed for this one.
                found.append((step, tuple(self._fired)))
                self._fired.clear()
            self._known[world] = tuple(found)
        return self._known[world]

    def _plain(self, caller: Caller, world: World) -> Caller:
        if caller.phase == "over":
            return caller._replace(epoch=0, written=False, fault="", replays=0, doubt=False)
        return super()._plain(caller, world)


@dataclass(frozen=True)
class Seen:
    """What is known of one call at a quiet moment."""

    outcome: str
    """Empty while it is in progress; as the model's otherwise."""
    arrived: bool
    """The server received it."""
    ran: bool
    """An attempt that was not answered has run."""


@dataclass(frozen=True)
class Observation:
    """What is known of a connection at a quiet moment."""

    events: tuple[Event, ...]
    """Its transitions since the last one."""
    replays: int
    """Calls retried since the last one, after a refusal or an unknown outcome."""
    state: State
    open: bool
    in_flight: int
    waiting: int
    calls: tuple[Seen | None, ...]
    """One for each caller of the model; None if it makes no call."""


class Follower:
    """The worlds that the model can be in."""

    def __init__(self, model: Ledger) -> None:
        self.model = model
        over = tuple(caller._replace(phase="over") for caller in model.start.callers)
        self.worlds = {model.start._replace(callers=over)}

    def begin(self, number: int, *, safe: bool) -> None:
        """A caller of the model makes a call."""
        self.worlds = {self.model.change(world, number, Caller(safe)) for world in self.worlds}

    def observe(self, seen: Observation, possible: Callable[[str], bool]) -> None:
        """Keep the worlds that fit.

        Args:
            seen: What is known.
            possible: Whether what a step says can have happened since the last observation.

        Raises:
            AssertionError: none does.
        """
        nodes = [(world, 0, seen.replays + _again(world)) for world in self.worlds]
        met, fitting = set(nodes), set()
        while nodes:
            world, done, again = nodes.pop()
            if done == len(seen.events) and again == _again(world) and _fits(world, seen):
                fitting.add(world)
            for step, events in self.model.choices(world):
                if not possible(step.words) or events != seen.events[done : done + len(events)]:
                    continue
                following = (self.model.canonical(step.after), done + len(events), again)
                if following not in met and _again(following[0]) <= again:
                    met.add(following)
                    nodes.append(following)
        if not fitting:
            raise AssertionError(_explain(seen, met))
        self.worlds = {_forget(world, seen) for world in fitting}


def _again(world: World) -> int:
    return sum(caller.again for caller in world.callers)


def _fits(world: World, seen: Observation) -> bool:
    if world.state is not seen.state or (world.gate == "open") is not seen.open:
        return False
    phases = [caller.phase for caller in world.callers]
    # A call that sleeps until its Retry-After is "granted" in the model, which has no time.
    if phases.count("in flight") != seen.in_flight or phases.count("waiting") + phases.count("granted") < seen.waiting:
        return False
    calls = zip(world.callers, seen.calls, strict=True)
    return all(call is None or _fits_call(caller, call, world) for caller, call in calls)


def _fits_call(caller: Caller, call: Seen, world: World) -> bool:
    if not call.outcome and caller.outcome == "not run" and world.probes:
        # A call that was refused is told so when the probe has said whether it is the only one.
        return True
    if caller.outcome != call.outcome or (caller.phase == "over") is not bool(call.outcome):
        return False
    # The model knows whether an attempt may have run; what did run must be among that.
    return (caller.sent or not call.arrived) and (caller.ran or not call.ran)


def _forget(world: World, seen: Observation) -> World:
    """What is over, and was told to its caller, has been compared and matters no more."""
    return world._replace(
        callers=tuple(
            Caller(caller.safe, "over") if caller.phase == "over" and (call is None or call.outcome) else caller
            for caller, call in zip(world.callers, seen.calls, strict=True)
        )
    )


def _explain(seen: Observation, met: Iterable[tuple[World, int, int]]) -> str:
    furthest = max(done for _, done, _ in met)
    worlds = {str(world) for world, done, _ in met if done == furthest}
    lines = [
        "the model allows nothing like it",
        f"  seen: {', '.join(map(str, seen.events)) or 'no transition'}; {seen.replays} replays",
        f"  then: {seen.state}, {seen.in_flight} in flight, {seen.waiting} waiting, {seen.calls}",
        f"  the model comes as far as {', '.join(map(str, seen.events[:furthest])) or 'no transition'}; worlds there:",
        *(f"    {world}" for world in sorted(worlds)[:12]),
    ]
    return "\n".join(lines)
