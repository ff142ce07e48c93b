"""Where the file is looked for, and what is refused before or beside its values: text, bounds, secrets' files."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from config_files import TWO, refused

from failover.config import InvalidConfig, find, load, load_text
from failover.errors import ConfigError

SMALLEST = TWO + 'proxies: [{name: proxy-1, stats: "https://10.0.2.5:8404/stats", backend: producers}]\n'


def with_keys(keys: str) -> str:
    return SMALLEST.replace("backend:", f"{keys}, backend:")


def secret(tmp_path: Path, content: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


# ---------------------------------------------------------------- where


def test_the_file_is_looked_for_in_the_order_of_the_reference(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("by-option.yaml", "by-variable.yaml", "failover.yaml", "system.yaml")]
    for place in places:
        place.write_text("")
    variable = {"FAILOVER_CONFIG": "by-variable.yaml"}
    assert find("by-option.yaml", variable, tmp_path, system=places[3]) == places[0]
    assert find(None, variable, tmp_path, system=places[3]) == places[1]
    assert find(None, {"FAILOVER_CONFIG": ""}, tmp_path, system=places[3]) == places[2]
    places[2].unlink()
    assert find(None, {}, tmp_path, system=places[3]) == places[3]
    places[3].unlink()
    with pytest.raises(ConfigError, match=r"no configuration: neither .*/failover.yaml nor .*/system.yaml exists"):
        find(None, {}, tmp_path, system=places[3])


@pytest.mark.parametrize(("option", "source"), [("nowhere.yaml", "-c/--config"), (None, r"\$FAILOVER_CONFIG")])
def test_a_named_file_that_is_not_there_is_an_error_and_not_passed_over(
    tmp_path: Path, option: str | None, source: str
) -> None:
    (tmp_path / "failover.yaml").write_text(SMALLEST)
    with pytest.raises(ConfigError, match=f"{source}: 'nowhere.yaml': there is no such file"):
        find(option, {"FAILOVER_CONFIG": "nowhere.yaml"}, tmp_path)


def test_a_file_is_loaded_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "failover.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALLEST.encode())
    assert load(path, environ={}).path == path


# ---------------------------------------------------------------- the file as such


def refusal(path: Path) -> str:
    with pytest.raises(InvalidConfig) as caught:
        load(path, environ={})
    return str(caught.value)


def test_a_file_that_cannot_be_read_is_refused_for_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b"pool: A\nnetwork: \xe9\n")
    (tmp_path / "large").write_bytes(b"#" * ((1 << 20) + 1))
    (tmp_path / "looped").symlink_to(tmp_path / "looped")
    assert "there is no such file" in refusal(tmp_path / "none")
    assert "is a directory" in refusal(tmp_path)
    assert "is not a regular file" in refusal(tmp_path / "pipe")
    assert "latin:2: is not UTF-8 text" in refusal(tmp_path / "latin")
    assert "is larger than 1 MiB" in refusal(tmp_path / "large")
    assert "cannot be opened" in refusal(tmp_path / "looped")
    assert "cannot be read: input/output error" in refusal(Path("/proc/self/mem")).lower()


@pytest.fixture
def nobody() -> Iterator[None]:
    """Not root while the test runs: root may read everything."""
    ours = os.geteuid()
    if ours == 0:
        os.seteuid(65534)
    yield
    os.seteuid(ours)


def test_a_file_without_permission_is_refused(nobody: None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = secret(Path(folder), b"", 0)
        assert "cannot be opened: permission denied" in refusal(path)


def lines(count: int) -> str:
    return "".join(f"key{i}: 1\n" for i in range(count))


TEXTS = {
    "empty": ("", "the file is empty"),
    "comments": ("# nothing\n", "the file is empty"),
    "null": ("null\n", "the file is empty"),
    "list": ("- pool\n", "the file is not a mapping"),
    "word": ("pool\n", "the file is not a mapping"),
    "syntax": ("pool: A\nnetwork: [mainnet\nmode: act\n", "failover.yaml:3: network[0]: is not YAML: "),
    "tab": (
        "pool: A\n\tnetwork: b\n",
        "failover.yaml:2: is not YAML: found character '\\t' that",
    ),
    "doubled": (SMALLEST + "pool: B\n", "failover.yaml:7: pool: the key is written twice, first on line 1"),
    "doubled inside": (
        SMALLEST + "health:\n  fall: 1\n  fall: 2\n",
        "failover.yaml:9: health.fall: the key",
    ),
    "documents": ("pool: A\n---\npool: B\n", "failover.yaml:2: a second document begins here"),
    "directive": ("%YAML 1.1\n---\npool: A\n", "has directives"),
    "python tag": ("pool: !!python/object/apply:os.system [id]\n", "pool: a tag (!) asks for a special type"),
    "own tag": ("pool: !x A\n", "a tag (!) asks for a special type"),
    "anchor": ("pool: &a A\n", "an anchor (&) names a part of the file"),
    "alias": ("pool: *a\n", "an alias (*) repeats another part"),
    "merge": (SMALLEST + "<<: {mode: act}\n", "the key is unknown"),
    "key is a list": ("[a]: b\n", "a mapping or list stands where a key belongs"),
    "control": ("pool: A\nnetwork: \x00\n", "failover.yaml:2: has the control character U+0000"),
    "surrogate": ("pool: \ud800\n", "has the control character U+D800"),
    "escape beyond Unicode": ('pool: A\nmode: "\\U00110000"\n', "failover.yaml:2: mode: is not YAML"),
    "nested": ("a: " + "[" * 100_000, "is nested more than 10 levels deep"),
    "nested mappings": ("a: " + "{a: " * 100_000, "is nested more than 10 levels deep"),
    "many": ("a: [" + "1," * 100_000 + "]", "has more than 20000 values"),
    "many keys": (lines(11_000), "has more than 20000 values"),
    "large": ("#" * (1 << 20) + "#", "is larger than 1 MiB"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_text_that_is_no_plain_mapping_is_refused_in_its_own_words(case: str) -> None:
    text, words = TEXTS[case]
    message = refused(text)
    assert words in message
    assert "Mend: " in message


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    bomb = "a0: &a0 [lol, lol]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "failover.yaml:1: a0: an anchor (&) names a part of the file" in refused(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


@pytest.mark.parametrize("piece", ["a\n", "'", '"\\n', "[::", "? ", "- ", "a: |\n x\n", "!a ", "%a\n", "---\n"])
def test_the_worst_texts_of_full_size_end_in_time(piece: str) -> None:
    text = (piece * ((1 << 20) // len(piece)))[: 1 << 20]
    # The bound is far above what any machine needs, and far below a quadratic course.
    began = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    refused(text)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - began < 60


# ---------------------------------------------------------------- secrets and certificates


def test_a_password_is_read_from_its_file_without_the_line_end(tmp_path: Path) -> None:
    path = secret(tmp_path, b" hunter2 \r\n")
    loaded = load_text(with_keys(f"username: u, password_file: {path}"), environ={})
    assert loaded.pool.proxies[0].password == " hunter2 "


def test_a_password_is_read_from_the_environment() -> None:
    loaded = load_text(with_keys("username: u, password_env: PROXY_PASSWORD"), environ={"PROXY_PASSWORD": "hunter2"})
    assert loaded.pool.proxies[0].password == "hunter2"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o610])
def test_a_password_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = secret(tmp_path, b"hunter2", mode)
    message = refused(with_keys(f"username: u, password_file: {path}"))
    assert f"others can read the file (mode {mode:04o}). Mend: chmod 600 {path}." in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"\n", "the file is empty"),
        (b"hunter2\nhunter2\n", "several lines or control characters"),
        (b"hunter2\0", "several lines or control characters"),
        (b"hunter2\xff", "is not UTF-8 text"),
        (b"hunter2" * 1000, "is larger than 4096 bytes"),
    ],
)
def test_an_unfit_password_file_is_refused_without_its_content(tmp_path: Path, content: bytes, words: str) -> None:
    message = refused(with_keys(f"username: u, password_file: {secret(tmp_path, content)}"))
    assert words in message
    assert "proxies[0].password_file" in message
    assert "hunter2" not in message


def test_a_password_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path, words in (
        (tmp_path / "none", "there is no such file"),
        (tmp_path, "is a directory"),
        (tmp_path / "pipe", "is not a regular file"),
        (Path("/proc/self/mem"), "cannot be read: input/output error"),
    ):
        assert words in refused(with_keys(f"username: u, password_file: {path}")).lower()


@pytest.mark.parametrize(
    ("environ", "words"),
    [({}, "no such variable"), ({"P": ""}, "the variable is empty"), ({"P": "hunter2\n2"}, "several lines")],
)
def test_a_password_variable_that_is_none_is_refused(environ: dict[str, str], words: str) -> None:
    message = refused(with_keys("username: u, password_env: P"), environ=environ)
    assert words in message
    assert "hunter2" not in message


def test_credentials_come_in_pairs(tmp_path: Path) -> None:
    path = secret(tmp_path, b"hunter2")
    assert "has a password without a username" in refused(with_keys(f"password_file: {path}"))
    assert "has cert_file without key_file" in refused(with_keys(f"cert_file: {path}"))
    assert "has key_file without cert_file" in refused(with_keys(f"key_file: {path}"))
    both = with_keys(f"username: u, password_file: {path}, password_env: P")
    assert "has both password_file and password_env" in refused(both, environ={"P": "x"})


def test_certificates_must_be_there_and_a_key_must_be_private(tmp_path: Path) -> None:
    assert "ca_file: '/nowhere/ca.pem': there is no such file" in refused(with_keys("ca_file: /nowhere/ca.pem"))
    empty, open_key = tmp_path / "empty", secret(tmp_path, b"PEM", 0o644)
    empty.write_bytes(b"")
    assert "the file is empty" in refused(with_keys(f"ca_file: {empty}"))
    assert "others can read the file" in refused(with_keys(f"cert_file: {open_key}, key_file: {open_key}"))
    open_key.chmod(0o600)
    pair = load_text(with_keys(f"cert_file: {open_key}, key_file: {open_key}"), environ={}).pool.proxies[0]
    assert (pair.cert_file, pair.key_file) == (open_key, open_key)
