"""Which test belongs to which suite, and which tests of a suite are run.

`make test` runs the suite `quick`. Every other suite has a make target, `make test-slow` runs all of them, and
`.ci/run` runs `quick` and then a short form of each. `pytest` without `--suite` runs every test there is.

What is not named in `SLOW` is quick. A test belongs elsewhere when it needs more than a second or a program that is
started for it, and other quick tests look at the same code. The tests of `MATRICES` are in two suites: `quick` runs a
cover of their combinations, and `hostile` runs each combination.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from zlib import crc32

import pytest

QUICK = "quick"
MATRIX = "hostile"
FEW = 4
"""A parameter with at most so many values is a dimension (the event loop, the engine, the era); one with more is a list
of cases."""

# Files, folders and functions, as they begin in a test's id. The longest one that fits decides.
SLOW: dict[str, tuple[str, ...]] = {
    # Servers that cannot be trusted: with MATRICES, in every combination of case, engine, era and event loop.
    "hostile": (
        "tests/gateway/access/test_other_users.py",
        "tests/gateway/clients/test_parked.py",
        "tests/gateway/test_bad_input.py",
        "tests/gateway/test_faults.py",
        "tests/gateway/test_outages.py",
        "tests/gateway/http/test_slow_readers.py",
        "tests/test_hostile.py",
        "tests/test_untrusted_answers.py",
        "tests/test_concurrency.py::test_five_hundred_calls_on_a_forgotten_session_cost_one_initialize",
        "tests/test_convergence.py::test_a_refusal_in_other_words_is_met_by_handlers_of_all_kinds",
        "tests/test_streams.py::test_an_event_stream_in_crumbs_is_refused_and_not_resumed",
        "tests/test_streams.py::test_a_stream_that_was_cut_holds_one_socket_and_leaves_none",
    ),
    # Bad networks, cancellation at every point, simulated days, random histories and the search through the model.
    "chaos": (
        "tests/auth/test_lifetimes.py::test_refresh_tokens_that_rotate_or_not_are_good_for_years",
        "tests/cancellation",
        "tests/core/test_model.py::test_the_model_keeps_every_invariant",
        "tests/fire",
        "tests/gateway/test_chaos.py::test_every_caller_is_told_the_truth",
        "tests/properties",
        "tests/simulated_fleet/test_minutes.py::test_a_fleet_keeps_its_promises_for_long",
        "tests/simulated_fleet/test_minutes.py::test_a_mistake_in_the_fleet_is_found",
        "tests/simulated_fleet/test_minutes.py::test_a_seed_repeats_its_minute",
        "tests/simulated_fleet/test_minutes.py::test_retired_replicas_cost_no_client_an_answer",
        "tests/simulation",
        "tests/testing/test_convergence.py",
        "tests/testing/test_fixtures_machine.py",
        "tests/testing/test_handler_machine.py",
    ),
    # Servers, gateways, commands and programs that run as processes, and are killed.
    "processes": (
        "tests/auth/test_processes.py",
        "tests/cli/test_terminal.py",
        "tests/cli/test_watch.py::test_an_absent_host_is_one_line",
        "tests/cli/test_watch.py::test_a_transition_of_a_host_is_a_line_and_the_end_of_the_pipe_the_end",
        "tests/cli/test_watch.py::test_an_attached_source_follows_a_host_and_acts_on_it",
        "tests/cli/test_watch.py::test_diagram_marks_a_hosts_states",
        "tests/cli/test_watch.py::test_chosen_names_are_shown_alone",
        "tests/cli/test_watch.py::test_a_wrong_key_says_where_to_put_it",
        "tests/deploy/test_dockerfile.py::test_its_steps_make_a_gateway_that_is_healthy_and_stops",
        "tests/deploy/test_systemd.py::test_no_connection_is_refused_while_the_gateway_is_killed_and_restarted",
        "tests/deploy/test_systemd.py::test_the_first_client_starts_a_gateway_that_says_it_is_ready",
        "tests/gateway/http/test_activation.py::test_a_passed_socket_that_all_can_reach_needs_keys",
        "tests/gateway/clients/test_notifications.py",
        "tests/gateway/test_away_at_start.py",
        "tests/gateway/test_broken_file.py",
        "tests/gateway/test_capacity.py::test_crowds_beyond_a_limit_harm_no_other",
        "tests/gateway/test_churn.py",
        "tests/gateway/test_embedding.py",
        "tests/gateway/test_ending.py",
        "tests/gateway/test_idle.py",
        "tests/gateway/test_foreign_clients.py",
        "tests/gateway/test_handing_on.py",
        "tests/gateway/test_everything.py",
        "tests/gateway/test_killed.py",
        "tests/gateway/test_outages.py::test_a_gateway_dials_once_a_second",
        "tests/gateway/test_starting.py::test_an_unusable_file_is_one_line",
        "tests/gateway/test_starting.py::test_calls_are_answered_on_uvloop",
        "tests/gateway/test_starting.py::test_a_taken_port_is_one_line",
        "tests/gateway/test_starting.py::test_calls_are_answered_on_uvloop",
        "tests/gateway/test_stdio_faults.py",
        "tests/gateway/test_store.py::test_of_several_processes_one_wins",
        "tests/gateway/upstream_auth/test_login.py",
        "tests/gateway/upstream_auth/test_many_users.py",
        "tests/gateway/requests/test_stopping.py::test_sigterm_answers_calls_after_grace",
        "tests/gateway/servers/test_shared_children.py::test_a_shared_child_reaches_whom_its_news_are_for",
        "tests/stdio/test_dead_children.py",
        "tests/stdio/test_eras.py",
        "tests/stdio/test_first_starts.py",
        "tests/stdio/test_orphans.py",
        "tests/stdio/test_strays.py",
        "tests/stdio/test_writes.py",
        "tests/test_canaries.py::test_no_command_shows_a_canary",
        "tests/test_everything_server.py",
        "tests/test_installed.py",
        "tests/test_real_servers.py",
        "tests/test_secret_canaries.py::test_no_command_shows_a_secret",
        "tests/test_secret_canaries.py::test_no_command_shows_a_childs_secret",
        "tests/test_stdio.py",
        "tests/test_sync_processes.py",
        "tests/testing/test_fixtures.py",
        "tests/typing",
    ),
    # Several replicas of the gateway, as processes behind a balancer too, killed and replaced.
    "fleet": ("tests/fleet",),
    # What readers are told to run: the demo, the examples, the tutorial, the how-to pages, the site.
    "docs": (
        "tests/docs_src",
        "tests/test_demo.py",
        "tests/test_diagram_reading.py::test_it_reads_as_mermaids_parser_does",
        "tests/test_diagram_reading.py::test_mermaids_own_parser_reads_the_machine_out_of_the_diagram",
        "tests/test_docs.py::test_the_site_builds_without_a_warning_and_needs_no_network",
        "tests/test_examples.py",
    ),
    "browser": ("tests/browser",),
    "conformance": ("tests/conformance",),
    "integrations": ("tests/integrations",),
}
# Not there in every checkout.
OPTIONAL = frozenset({"tests/integrations"})

# Of these, the short form runs one test: each takes seconds, and they are alike.
ONCE = (
    "tests/test_canaries.py::test_no_command_shows_a_canary",
    "tests/test_secret_canaries.py::test_no_command_shows_a_secret",
    "tests/test_secret_canaries.py::test_no_command_shows_a_childs_secret",
    "tests/test_convergence.py::test_a_refusal_in_other_words_is_met_by_handlers_of_all_kinds",
    "tests/test_real_servers.py::test_a_killed_sdk_server_leaves_the_outcome_unknown",
    "tests/conformance/test_gateway.py::test_the_gateway_fails_nothing_that_its_server_passes",
    "tests/gateway/test_everything.py::test_it_passes_between_processes_and_reaches_no_other",
    "tests/gateway/test_foreign_clients.py::test_the_inspector_lists_and_calls",
    "tests/gateway/test_foreign_clients.py::test_the_typescript_sdk_does_everything",
    "tests/gateway/test_foreign_clients.py::test_the_typescript_sdk_lives_on",
    "tests/fleet/test_processes.py::test_a_key_at_another_replica_runs_once",
    "tests/fleet/test_processes.py::test_after_an_owner_is_killed_the_next_call_says_so",
    "tests/fleet/test_processes.py::test_an_owner_that_is_paused_and_woken_is_one_no_more",
    "tests/gateway/test_handing_on.py::test_sigterm_under_load_loses_no_call",
    "tests/gateway/test_handing_on.py::test_open_requests_end_after_sigterm",
    "tests/gateway/test_killed.py::test_killed_at_each_write_a_call_runs_at_most_once",
    "tests/gateway/upstream_auth/test_many_users.py::test_users_with_own_tokens_come_and_go",
    "tests/testing/test_handler_machine.py::test_a_broken_handler_is_found_by_search",
    "tests/testing/test_handler_machine.py::test_a_search_spares_a_right_handler",
    "tests/fleet/test_store_faults.py::test_while_it_answers_nothing",
    "tests/simulated_fleet/test_minutes.py::test_a_mistake_in_the_fleet_is_found",
    "tests/simulation/test_day.py::test_a_seed_repeats_its_day",
)

# The short form leaves these out: each takes a quarter of a minute or more, and what it looks at is looked at by others
# in less time. `make test-slow` runs them.
LONG = (
    "tests/core/test_model.py::test_the_model_keeps_every_invariant",
    "tests/deploy/test_dockerfile.py::test_its_steps_make_a_gateway_that_is_healthy_and_stops",
    "tests/docs_src/test_team.py::test_a_team_gets_keys_and_rights",
    "tests/fire/test_bad_network.py::test_an_answer_cut_after_any_number_of_bytes_is_never_taken_for_another",
    "tests/fleet/test_processes.py::test_rolling_restarts_with_other_keys_lose_no_request",
    "tests/fleet/test_refreshes.py::test_two_hundred_calls_cost_one_refresh",
    "tests/fleet/test_refreshes.py::test_without_redis_no_refresh_is_begun",
    "tests/fleet/test_store_faults.py::test_while_it_is_slow",
    "tests/gateway/test_outages.py::test_a_gateway_dials_once_a_second",
    "tests/simulated_fleet/test_minutes.py::test_a_fleet_keeps_its_promises_for_long",
    "tests/simulation/test_day.py::test_on_a_day_of_outages_callers_are_told_the_truth",
)

MATRICES = (
    "tests/auth/test_issuers.py",
    "tests/auth/test_leaks.py",
    "tests/auth/test_lifetimes.py",
    "tests/auth/test_registrations.py",
    "tests/gateway/clients/test_parked.py",
    "tests/gateway/clients/test_questions.py",
    "tests/gateway/requests/test_keyed.py",
    "tests/gateway/test_link.py",
    "tests/gateway/test_link_dials.py",
    "tests/runtime/test_calls.py",
    "tests/test_canaries.py",
    "tests/test_concurrency.py",
    "tests/test_convergence.py",
    "tests/test_convergence_timing.py",
    "tests/test_faults.py",
    "tests/test_handler_answers.py",
    "tests/test_handlers.py",
    "tests/test_hidden_requests.py",
    "tests/test_lifecycle.py",
    "tests/test_listeners.py",
    "tests/test_mcp_tasks.py",
    "tests/test_neighbours.py",
    "tests/test_restore.py",
    "tests/test_secret_canaries.py",
    "tests/test_secrets.py",
    "tests/test_streams.py",
    "tests/test_timing.py",
    "tests/test_wrong_loop.py",
    "tests/testing/test_convergence.py",
    "tests/testing/test_scripted_servers.py",
    "tests/wire/test_engine.py",
    "tests/wire/test_engine_faults.py",
    "tests/wire/test_engine_sockets.py",
    "tests/wire/test_malformed.py",
    "tests/wire/test_reachability.py",
    "tests/wire/test_redirects.py",
    "tests/wire/test_sse_fallback.py",
)
NAMES = (QUICK, *SLOW)


def suite_of(test: str) -> str:
    """The suite of a test, by its id, or of a file's tests that are not named, by the file's path."""
    found = [(len(beginning), name) for name, all_ in SLOW.items() for beginning in all_ if begins(test, beginning)]
    return max(found)[1] if found else QUICK


def begins(test: str, beginning: str) -> bool:
    """Whether a test's id begins with a folder, a file or a function, and not only with a part of its name."""
    return test == beginning or test.startswith((f"{beginning}/", f"{beginning}::", f"{beginning}["))


def may_hold(file: str, suites: Iterable[str]) -> bool:
    """Whether a file has tests of these suites. If not, it need not be imported."""
    if suite_of(file) in suites or (file in MATRICES and MATRIX in suites):
        return True
    return any(beginning.startswith(f"{file}::") for name in suites for beginning in SLOW.get(name, ()))


def choose(items: Iterable[pytest.Item], suites: Iterable[str], *, short: bool) -> Iterator[pytest.Item]:
    """The tests of these suites, in their order.

    Args:
        items: All that were collected.
        suites: Names; see `NAMES`.
        short: Of each function with parameters, only as many tests as show every pair of values of its dimensions.
    """
    every = list(items)
    once: set[str] = set()
    covers: dict[bool, set[str]] = {}
    for cases in (True, False):
        by_function: dict[str, list[pytest.Item]] = {}
        for item in every:
            by_function.setdefault(item.nodeid.partition("[")[0], []).append(item)
        covers[cases] = {item.nodeid for group in by_function.values() for item in cover(group, cases=cases)}
    for item in every:
        suite = suite_of(item.nodeid)
        in_matrix = suite == QUICK and item.nodeid.partition("::")[0] in MATRICES
        if in_matrix:
            quick = QUICK in suites and item.nodeid in covers[True]
            # The short form of CI comes after `quick`, which has a cover of them already.
            if quick or (MATRIX in suites and not short):
                yield item
        elif suite in suites and (suite == QUICK or not short or item.nodeid in covers[False]):
            function = item.nodeid.partition("[")[0]
            if short and (function in LONG or (function in ONCE and function in once)):
                continue
            once.add(function)
            yield item


def cover(items: list[pytest.Item], *, cases: bool) -> Iterator[pytest.Item]:
    """Tests of one function that together show every pair of values of its dimensions and, if asked, each of its cases.

    The order in which they are tried is mixed but always the same, so that the cases are spread over the dimensions.
    """
    # By identity, since many values have no hash: `parametrize` hands the same object to every test that has the value.
    parameters = [named_values(item) for item in items]
    known: dict[str, set[int]] = {}
    for each in parameters:
        for name, value in each.items():
            known.setdefault(name, set()).add(value)
    dimensions = {name for name, values in known.items() if len(values) <= FEW}
    shown: set[object] = set()
    mixed = sorted(zip(items, parameters, strict=True), key=lambda pair: crc32(pair[0].nodeid.encode()))
    for item, each in mixed:
        small = sorted(pair for pair in each.items() if pair[0] in dimensions)
        case = tuple(sorted(pair for pair in each.items() if pair[0] not in dimensions))
        shows: set[object] = {*small, *combinations(small, 2), ("case", case if cases else None)}
        if not shows <= shown:
            shown |= shows
            yield item


def named_values(item: pytest.Item) -> dict[str, int]:
    """Which values a test has for its parameters."""
    call = getattr(item, "callspec", None)
    return {name: id(value) for name, value in call.params.items()} if call is not None else {}
