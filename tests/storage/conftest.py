"""What the tests of storage share."""

from collections.abc import Callable, Iterator

import pytest
from shared_server import SECRET, SharedServer


@pytest.fixture(scope="session")
def shared_server() -> Iterator[SharedServer]:
    with SharedServer() as server:
        server.make_bucket("shared")
        yield server


@pytest.fixture
def be(shared_server: SharedServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts the keys of a person into the environment, at first the owner's."""

    def become(name: str) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", name)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET.format(name))

    for name, value in shared_server.environment.items():
        monkeypatch.setenv(name, value)
    return become
