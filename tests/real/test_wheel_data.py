"""The wheel holds what an operator deploys, and renders it without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from failover import data
from failover.errors import FailoverError

CHECKOUT = Path(__file__).resolve().parents[2]

PROGRAM = """
import json, sys
from pathlib import Path
import failover
from failover import data
from failover.gates import haproxy_config
from failover.model import Address, Pool, Producer, Proxy

producers = (Producer("main", Address("127.0.0.1", 1)), Producer("backup", Address("127.0.0.1", 2)))
pool = Pool("P", "lab", 42, producers, ())
names = {"main": "main", "backup": "backup"}
place = haproxy_config.Place(listen="*:3")
made = {}
for proxy in (
    Proxy("a", "producers", names, socket=Path("/run/haproxy/admin.sock")),
    Proxy("b", "producers", names, stats="http://127.0.0.1:4/stats", username="failover"),
):
    made[proxy.name] = haproxy_config.configuration(pool, proxy, place)
    made.update(haproxy_config.units(proxy, place))
made["README.md"] = data.text("haproxy", "README.md")
print(json.dumps({"from": failover.__file__, "made": made}))
"""


def rendered(path: Path, cwd: Path) -> dict[str, object]:
    """What the program prints when ``failover`` is imported from ``path``."""
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = json.loads(result.stdout)
    assert Path(found["from"]).is_relative_to(path)
    return dict(found["made"])


@pytest.fixture(scope="module")
def installed_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout and unpacked as an installer would."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "site")
    return folder / "site"


def test_every_file_that_an_operator_deploys_is_in_the_wheel(installed_wheel: Path) -> None:
    folder = CHECKOUT / "haproxy"
    packed = installed_wheel / "failover" / "_data" / "haproxy"
    names = sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in packed.iterdir()) == names
    assert [n for n in names if (folder / n).read_bytes() != (packed / n).read_bytes()] == []
    assert not (installed_wheel / "haproxy").exists(), "only one import package"
    assert not (installed_wheel / "tests").exists()


def test_the_wheel_and_the_checkout_render_the_same(installed_wheel: Path, tmp_path: Path) -> None:
    from_wheel = rendered(installed_wheel, tmp_path)
    assert from_wheel == rendered(CHECKOUT, tmp_path)
    assert {"a", "b", "haproxy-state.service", "haproxy-state.timer", "README.md"} == set(from_wheel)
    assert all(from_wheel.values())


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(FailoverError, match=r"haproxy/nosuch\.cfg is not part of this installation"):
        data.text("haproxy", "nosuch.cfg")
