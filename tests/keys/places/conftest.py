"""Real places for keys, and the providers that use them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from keys.places import PLACES
from keys.places.aws import Aws
from keys.places.azure import Azure
from keys.places.gcp import Gcp
from keys.places.openbao import OpenBao
from keys.places.softhsm import SoftHsm, softhsm

from identity.keys.ports import KeyProvider
from identity.keys.providers.by_uri import provider_by_uri
from identity.keys.providers.remote import RemoteLimits


@pytest.fixture(name="softhsm", scope="session")
def softhsm_fixture(tmp_path_factory: Any) -> SoftHsm:
    return softhsm(tmp_path_factory.mktemp("softhsm"))


@pytest.fixture(name="openbao", scope="session")
def openbao_fixture(tmp_path_factory: Any) -> Iterator[OpenBao]:
    server = OpenBao(tmp_path_factory.mktemp("openbao"))
    server.set_up()
    yield server
    server.kill()


@pytest.fixture(name="aws", scope="session")
def aws_fixture() -> Iterator[Aws]:
    server = Aws()
    yield server
    server.stop()


@pytest.fixture(name="azure", scope="session")
def azure_fixture(tmp_path_factory: Any) -> Iterator[Azure]:
    server = Azure(tmp_path_factory.mktemp("azure"))
    yield server
    server.stop()


@pytest.fixture(name="gcp", scope="session")
def gcp_fixture() -> Iterator[Gcp]:
    server = Gcp()
    yield server
    server.stop()


@pytest.fixture
def uri_of(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """The URI of a place by the name of its scheme; starts what it names."""

    def uri(place: str) -> str:
        found: str = request.getfixturevalue(PLACES[place]).uri_of(place)
        return found

    return uri


@pytest_asyncio.fixture
async def provider_at() -> AsyncIterator[Callable[..., KeyProvider]]:
    """Providers by URI, closed at the end."""
    made: list[KeyProvider] = []

    def build(uri: str, **limits: Any) -> KeyProvider:
        made.append(provider_by_uri(uri, RemoteLimits(**{"timeout_seconds": 5.0} | limits)))
        return made[-1]

    yield build
    for provider in made:
        await provider.close()
