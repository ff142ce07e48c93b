"""HAProxy's words, turned into values: every status and check result that was measured, and what is believed."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failover.errors import GateRefused
from failover.gates import haproxy_answers as answers
from failover.model import Admin, Check, Proxy, ServerView

PROXY = Proxy("proxy-1", "producers", {"main": "main"})
COLUMNS = "# pxname,svname,scur,stot,status,weight,check_status,tracked,addr,"


def table(*rows: str) -> answers.Table:
    return answers.table(PROXY, "\n".join([COLUMNS, *rows, "producers,BACKEND,0,7,UP,1,,,,", ""]))


def view(status: str, check: str = "", weight: str = "1", bits: int | None = None, forced: bool = False) -> ServerView:
    rows = table(f"producers,main,3,9,{status},{weight},{check},,,")
    known = None if bits is None else {"main": bits}
    return answers.reading(PROXY, rows, answers.Identity(), known, ["main"] if forced else []).servers["main"]


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("UP", "UP"),
        ("UP 1/3", "UP"),
        ("DOWN", "DOWN"),
        ("DOWN 1/2", "DOWN"),
        ("DOWN 3/2", "DOWN"),
        ("DOWN (agent)", "DOWN"),
        ("DRAIN", "DRAIN"),
        ("DRAIN 1/2", "DRAIN"),
        ("NOLB", "NOLB"),
        ("no check", "no check"),
        ("MAINT", "MAINT"),
        ("MAINT (via watch/main)", "MAINT"),
        ("MAINT (resolution)", "MAINT"),
    ],
)
def test_a_status_is_read_by_its_first_word(status: str, word: str) -> None:
    assert view(status).status == word


@pytest.mark.parametrize(
    ("status", "check", "believed"),
    [
        ("UP", "L7OK", Check.PASSED_L7),
        ("UP", "* L7OK", Check.PASSED_L7),
        ("UP", "L7OKC", Check.PASSED_L7),
        ("UP", "L6OK", Check.PASSED_L4),
        ("UP", "L4OK", Check.PASSED_L4),
        ("UP", "* L4OK", Check.PASSED_L4),
        ("UP", "PROCOK", Check.PASSED_L4),
        ("UP 1/2", "L7TOUT", Check.PASSED_L7),
        ("UP 1/2", "L4CON", Check.PASSED_L4),
        ("UP", "INI", Check.NONE),
        ("UP", "* INI", Check.NONE),
        ("UP", "UNK", Check.NONE),
        ("UP", "", Check.NONE),
        ("no check", "", Check.NONE),
        ("MAINT", "L7OK", Check.NONE),
        ("MAINT (via watch/main)", "L7OK", Check.NONE),
        ("DOWN", "L7TOUT", Check.FAILED),
        ("DOWN", "L4OK", Check.FAILED),
        ("DOWN 1/2", "L7OK", Check.FAILED),
        ("DOWN", "SOCKERR", Check.FAILED),
        ("DOWN", "", Check.FAILED),
        ("DOWN", "INI", Check.NONE),
        ("DOWN (agent)", "L7OK", Check.PASSED_L7),
        ("DOWN (agent)", "L4TOUT", Check.FAILED),
        ("DOWN (agent)", "", Check.NONE),
        ("DRAIN", "L7OK", Check.PASSED_L7),
        ("NOLB", "L7OKC", Check.PASSED_L7),
    ],
)
def test_a_check_is_believed_as_far_as_it_goes(status: str, check: str, believed: Check) -> None:
    assert view(status, check).check is believed


@pytest.mark.parametrize(
    ("bits", "status", "admin"),
    [
        (0, "UP", Admin.READY),
        (1, "MAINT", Admin.MAINT),
        (4, "UP", Admin.READY),
        (5, "MAINT", Admin.MAINT),
        (2, "MAINT (via watch/main)", Admin.READY),
        (3, "MAINT (via watch/main)", Admin.MAINT),
        (32, "MAINT (resolution)", Admin.READY),
        (33, "MAINT (resolution)", Admin.MAINT),
        (8, "DOWN", Admin.DRAIN),
        (16, "DRAIN", Admin.DRAIN),
        (0, "DRAIN", Admin.DRAIN),
    ],
)
def test_the_admin_state_is_what_somebody_set(bits: int, status: str, admin: Admin) -> None:
    assert view(status, bits=bits).admin is admin


@pytest.mark.parametrize(
    ("status", "forced", "admin"),
    [
        ("MAINT", False, Admin.MAINT),
        ("MAINT (via watch/main)", False, Admin.READY),
        ("MAINT (via watch/main)", True, Admin.MAINT),
        ("MAINT (resolution)", False, Admin.READY),
        ("MAINT (resolution)", True, Admin.MAINT),
        ("UP", True, Admin.READY),
        ("DRAIN", True, Admin.DRAIN),
    ],
)
def test_a_page_shows_a_closed_gate_only_where_nothing_else_could_stand_behind_maint(
    status: str, forced: bool, admin: Admin
) -> None:
    assert view(status, forced=forced).admin is admin


def test_weight_zero_admits_nobody_even_when_ready() -> None:
    assert not view("no check", weight="0").serves
    assert view("no check").serves


def test_columns_are_found_by_name_and_quoted_fields_hold_commas() -> None:
    text = '# pxname,last_chk,svname,status,scur,stot\nproducers,"a, ""b""",main,UP,4,5\nproducers,,BACKEND,UP,4,6\n'
    reading = answers.reading(PROXY, answers.table(PROXY, text), answers.Identity(), {"main": 0})
    assert (reading.servers["main"].sessions, reading.total) == (4, 6)


def test_the_heading_of_a_page_names_pid_uptime_and_version() -> None:
    html = (
        '<h1><a href="x">HAProxy version 2.6.12-1+deb12u4, released 2026/10/17</a></h1>'
        "<h2>Statistics Report for pid 5496</h2><b>uptime = </b> 1d 2h03m04s<br>"
    )
    assert answers.identity_of_page(html) == answers.Identity(pid=5496, uptime=93784.0, version="2.6.12-1+deb12u4")
    assert answers.identity_of_page("<html>").process is None


def test_two_processes_with_one_pid_differ_by_their_start() -> None:
    text = "Version: 2.6.12\nPid: 8\nUptime_sec: 5\nStopping: {}\nStart_time_sec: {}\n"
    first = answers.identity_of_info(PROXY, text.format(0, 100))
    second = answers.identity_of_info(PROXY, text.format(1, 200))
    assert first.process != second.process
    assert (first.stopping, second.stopping) == (False, True)
    assert answers.identity_of_info(PROXY, "Pid: 8\n") == answers.Identity(pid=8)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    answers.identity_of_page(text)
    answers.admin_bits(text)
    for read in (answers.table, answers.identity_of_info):
        with suppress(GateRefused):
            read(PROXY, text)


@given(st.lists(st.lists(st.text(st.characters(exclude_characters="\r\n\0"), max_size=12), max_size=12), max_size=6))
def test_any_rows_are_read_or_refused(rows: list[list[str]]) -> None:
    with suppress(GateRefused):
        answers.reading(PROXY, table(*[",".join(row) for row in rows]), answers.Identity(), None)
