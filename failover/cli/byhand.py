"""The handover by hand, as lines to paste into a shell: for when the controller is dead. Reads the file, sends nothing.

The order is the controller's: close the old producer on every proxy, see it closed without a session, then open the
new one on every proxy. Passwords are read from their files by the shell, never printed.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from failover.config.document import read
from failover.model import Pool, Proxy


def secrets(path: Path) -> Mapping[str, str]:
    """How a shell gets each proxy's password, by the proxy's name; from what the file names, not from its value."""
    root, _ = read(path.read_text(encoding="utf-8-sig"), str(path))
    found = {}
    for proxy in root.plain().get("proxies", []):
        if "password_file" in proxy:
            found[proxy["name"]] = f'"$(cat {shlex.quote(str(proxy["password_file"]))})"'
        elif "password_env" in proxy:
            found[proxy["name"]] = f'"${proxy["password_env"]}"'
    return found


def commands(pool: Pool, to: str, passwords: Mapping[str, str]) -> list[str]:
    """The whole handover to ``to``, with a comment above each part."""
    others = pool.others(to)
    lines = [
        f"# {pool.name}: hand the role to {to}. Run on the host where the controller runs, with its rights.",
        "# Does the daemon still run? Then it would undo this: use failover switchover, or first: failover release",
        "",
        f"# 1. Close {', '.join(others)} on every proxy, and end the sessions there.",
    ]
    for proxy in pool.proxies:
        lines.append(f"# {proxy.name}")
        lines.extend(_close(proxy, producer, passwords.get(proxy.name)) for producer in others)
    lines += ["", "# 2. Look: every line must say MAINT and 0 sessions. Do not go on before; a proxy that does not"]
    lines += ["#    answer may still carry traffic: stop it, or shut its traffic out otherwise."]
    for proxy in pool.proxies:
        lines.extend(_look(proxy, producer, passwords.get(proxy.name)) for producer in others)
    lines += ["", f"# 3. Open {to} on every proxy."]
    for proxy in pool.proxies:
        lines += [f"# {proxy.name}", _open(proxy, to, passwords.get(proxy.name))]
    lines += ["", f"# 4. Look: {to} must become UP, and sessions come when the relays redial."]
    lines.extend(_look(proxy, to, passwords.get(proxy.name)) for proxy in pool.proxies)
    lines += [
        "",
        f"# When the controller is back, and {' and '.join(others)} is down: it sees what was done, and follows.",
        f"# While the one that it takes for active is up, it moves the role back: failover switchover --to {to}",
    ]
    return lines


def _close(proxy: Proxy, producer: str, password: str | None) -> str:
    server = f"{proxy.backend}/{proxy.servers[producer]}"
    if proxy.socket is not None:
        return _socat(proxy, f"set server {server} state maint; shutdown sessions server {server}")
    return "\n".join(_post(proxy, producer, action, password) for action in ("maint", "shutdown"))


def _open(proxy: Proxy, producer: str, password: str | None) -> str:
    if proxy.socket is not None:
        return _socat(proxy, f"set server {proxy.backend}/{proxy.servers[producer]} state ready")
    return _post(proxy, producer, "ready", password)


def _look(proxy: Proxy, producer: str, password: str | None) -> str:
    """One line with the proxy, the producer, the status (column 18) and the sessions (column 5)."""
    if proxy.socket is not None:
        source = _socat(proxy, "show stat")
    else:
        source = _curl(proxy, password, shlex.quote(f"{proxy.stats};csv"))
    condition = f'$1=="{proxy.backend}" && $2=="{proxy.servers[producer]}"'
    script = f'{condition} {{print "{proxy.name} {producer}:", $18, $5, "sessions"}}'
    return f"{source} | awk -F, {shlex.quote(script)}"


def _socat(proxy: Proxy, command: str) -> str:
    where = f"TCP:{proxy.socket}" if not isinstance(proxy.socket, Path) else str(proxy.socket)
    return f"echo {shlex.quote(command)} | socat -t 5 - {shlex.quote(where)}"


def _post(proxy: Proxy, producer: str, action: str, password: str | None) -> str:
    """The answer is a redirection whose address must end in st=DONE."""
    form = f"s={proxy.servers[producer]}&action={action}&b={proxy.backend}"
    rest = f"-o /dev/null -w '{proxy.name} {producer} {action}: %{{redirect_url}}\\n' -d {shlex.quote(form)}"
    return _curl(proxy, password, f"{rest} {shlex.quote(str(proxy.stats))}")


def _curl(proxy: Proxy, password: str | None, rest: str) -> str:
    """printf is the shell's own, so the password shows in no process list."""
    options: list[Any] = ["-sS", "--noproxy", "'*'", "-m", "10"]
    for option, value in (("--cacert", proxy.ca_file), ("--cert", proxy.cert_file), ("--key", proxy.key_file)):
        if value is not None:
            options += [option, shlex.quote(str(value))]
    if proxy.username is None or password is None:
        return f"curl {' '.join(options)} {rest}"
    user = shlex.quote(proxy.username)
    return f"printf 'user = \"%s:%s\"\\n' {user} {password} | curl -K - {' '.join(options)} {rest}"
