"""What was sealed is opened by the same ring, for the same purpose and context, and by nothing else."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpconn.errors import ConfigError
from mcpconn.seal import KeyRing, NotSealedHere, given_ring, kept_ring

OLD, NEW = b"o" * 32, b"n" * 32


@given(st.binary(max_size=200), st.text(max_size=20))
def test_what_is_sealed_is_opened(content, context):
    sealer = KeyRing([OLD]).sealer("session")
    assert sealer.open(sealer.seal(content, context), context) == content


@given(st.data())
def test_any_change_is_noticed(data):
    sealer = KeyRing([OLD]).sealer("session")
    text = sealer.seal(b"content")
    position = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda c: c != text[position]))
    with pytest.raises(NotSealedHere):
        sealer.open(text[:position] + other + text[position + 1 :])


@given(st.text(max_size=100))
def test_arbitrary_text_is_refused(text):
    with pytest.raises(NotSealedHere):
        KeyRing([OLD]).sealer("session").open(text)


def test_purpose_and_context_are_bound():
    ring = KeyRing([OLD])
    text = ring.sealer("session").seal(b"content", "alice")
    for sealer, context in [(ring.sealer("session"), "bob"), (ring.sealer("parked call"), "alice")]:
        with pytest.raises(NotSealedHere):
            sealer.open(text, context)


def test_keys_rotate_without_a_gap():
    old, both, swapped, new = (KeyRing(ring).sealer("s") for ring in ([OLD], [OLD, NEW], [NEW, OLD], [NEW]))
    assert both.open(old.seal(b"x")) == swapped.open(both.seal(b"x")) == both.open(swapped.seal(b"x")) == b"x"
    assert new.open(swapped.seal(b"x")) == b"x"
    with pytest.raises(NotSealedHere):
        new.open(old.seal(b"x"))


@pytest.mark.parametrize("ring", [[], [b"short"], [OLD, OLD]])
def test_an_unusable_ring_is_refused(ring):
    with pytest.raises(ConfigError):
        KeyRing(ring)


def test_a_ring_shows_no_secret():
    assert repr(KeyRing([OLD, NEW])) == "<KeyRing of 2>"


def test_a_key_is_made_once_and_kept(tmp_path):
    path = tmp_path / "state" / "key"
    ring, made = kept_ring(path)
    again, made_again = kept_ring(path)
    assert (made, made_again) == (True, False)
    assert again.sealer("s").open(ring.sealer("s").seal(b"x")) == b"x"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_a_readable_key_is_refused(tmp_path):
    path = tmp_path / "key"
    kept_ring(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        kept_ring(path)


def test_a_mistyped_key_is_named_not_shown(tmp_path):
    path = tmp_path / "key"
    path.write_text("zz" * 32)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="hexadecimal") as caught:
        kept_ring(path)
    assert "zz" not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "foreign", "fine"),
    [
        (0o400, False, True),
        (0o600, False, True),
        (0o440, False, False),
        (0o440, True, True),
        (0o640, True, True),
        (0o444, True, False),
        (0o460, True, False),
    ],
)
def test_a_given_key_may_be_the_groups_if_it_is_mounted(tmp_path, monkeypatch, mode, foreign, fine):
    path = tmp_path / "keys"
    path.write_text("ab" * 32 + "\n")
    path.chmod(mode)
    if foreign:
        monkeypatch.setattr("os.geteuid", lambda: path.stat().st_uid + 1)
    if fine:
        given_ring(path)
    else:
        with pytest.raises(ConfigError, match="others can read"):
            given_ring(path)


def test_a_given_key_is_never_made(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        given_ring(tmp_path / "keys")
    assert not (tmp_path / "keys").exists()
