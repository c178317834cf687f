"""A service whose keys are elsewhere, as its callers and verifiers see it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from keys.places import LACKING, PLACES
from keys.places.aws import SECRET_KEY
from keys.places.azure import CLIENT_SECRET, TOKEN_PREFIX, Azure
from keys.places.openbao import OpenBao
from keys.places.softhsm import PIN
from keys.places.test_every_place import ALGORITHMS, PUBLIC_MEMBERS

from grpc_identity import Issuer, Reason, TokenError, Verifier
from grpc_identity.jwk import KeySet
from grpc_identity.jws import verify_compact
from grpc_identity.v1 import admin_service_pb2 as admin_pb
from grpc_identity.v1 import clients_pb2
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.cli.connection import basic_metadata as basic
from identity.config import ConfigurationError
from identity.keys import document
from identity.keys.schedule import MAX_JWKS_AGE

ISSUE = pb.IssueTokensRequest(subject="alice", audience=["orders"])
ISSUER = "https://id.example"
SESSIONS = 12
REFRESHES_AFTERWARDS = 3


async def published(service: Any) -> list[dict[str, Any]]:
    """The keys as they are by HTTP, by GetJWKS and on a stream: the same, for as long, and public members only."""
    async with httpx.AsyncClient() as client:
        by_http = await client.get(f"{service.addresses.http_url}/.well-known/jwks.json")
    found: list[dict[str, Any]] = by_http.json()["keys"]
    for answer in (await service.identity.GetJWKS(pb.GetJWKSRequest()), await pushed(service)):
        members = [{field.name: value for field, value in key.ListFields()} for key in answer.keys]
        assert members == found
        assert by_http.headers["ETag"] == f'"{answer.version}"'
        assert f"max-age={answer.max_age.seconds}," in by_http.headers["Cache-Control"]
        assert 0 < answer.max_age.seconds <= MAX_JWKS_AGE.total_seconds()
    for key in found:
        assert set(key) == PUBLIC_MEMBERS[key["alg"]]
        assert all(type(value) is str for value in key.values())
    return found


async def pushed(service: Any) -> Any:
    """The keys that a stream begins with."""
    # Of two servers with one store each makes a client of its own.
    name = f"reader-{service.server._instance_id}"
    if name not in service.secrets:
        await service.new_client(name, clients_pb2.ClientPolicy(grants=["GRANT_VERIFY"]))
    stream = service.identity.WatchVerifierState(metadata=basic(name, service.secrets[name]))
    await stream.write(pb.WatchVerifierStateRequest(verifier_id="reader"))
    jwks = (await stream.read()).jwks
    stream.cancel()
    return jwks


async def problems(service: Any) -> set[str]:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{service.addresses.http_url}/readyz")
    return {problem["name"] for problem in answer.json()["problems"]}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("place", ["local", *PLACES])
async def test_tokens_are_signed_there_and_verified_with_what_is_published(
    place: str,
    algorithm: str,
    uri_of: Callable[[str], str],
    make_settings: Any,
    start_service: Any,
    openbao: OpenBao,
    caplog: Any,
) -> None:
    if reason := LACKING.get((place, algorithm)):
        pytest.skip(reason)
    caplog.set_level(logging.DEBUG)
    uri = "local:" if place == "local" else uri_of(place)
    settings = make_settings(keys={"provider": uri, "algorithm": algorithm, "provider_timeout_ms": 10_000})
    service = await start_service(settings)
    keys = await published(service)
    assert [key["alg"] for key in keys] == [algorithm]

    issued = (await service.identity.IssueTokens(ISSUE, metadata=service.login)).tokens
    request = pb.RefreshRequest(refresh_token=issued.refresh_token)
    refreshed = (await service.identity.Refresh(request, metadata=service.login)).tokens
    for tokens in (issued, refreshed):
        verify_compact(tokens.access_token, KeySet.from_jwks(keys), typ="at+jwt")

    # Another process with the same keyring signs with the same key.
    another = await start_service(settings)
    assert await published(another) == keys
    tokens = (await another.identity.IssueTokens(ISSUE, metadata=another.login)).tokens
    verify_compact(tokens.access_token, KeySet.from_jwks(keys))

    # However many there are, and whatever state they are in.
    request = admin_pb.RotateKeysRequest(idempotency_key="next")
    waiting = (await another.administration.RotateKeys(request, metadata=another.admin)).key.public_key.kid
    assert [key["kid"] for key in await published(another)] == [keys[0]["kid"], waiting]
    await another.administration.RevokeKey(
        admin_pb.RevokeKeyRequest(kid=keys[0]["kid"]), metadata=another.admin
    )
    assert [key["kid"] for key in await published(another)] == [waiting]

    keyring = await service.server.store.keyring.load()
    stored = document.to_text(keyring)
    assert json.loads(stored)["keys"][0]["provider"] == place
    token = await asyncio.to_thread(openbao.token_file.read_text)
    credentials = [PIN, SECRET_KEY, CLIENT_SECRET, TOKEN_PREFIX, token]
    for text in (caplog.text, stored, repr(service.server.keys), repr(settings)):
        assert len(text) > 10
        assert not [credential for credential in credentials if credential in text]


@pytest_asyncio.fixture(params=["openbao", "azure"])
async def own_place(request: pytest.FixtureRequest) -> AsyncIterator[OpenBao | Azure]:
    """One that a test may kill; the next finds it alive."""
    place: OpenBao | Azure = request.getfixturevalue(request.param)
    yield place
    await asyncio.to_thread(place.bring_back)


class Refreshing:
    """One session whose owner refreshes on and on, each time with a key, and never gives up."""

    def __init__(self, service: Any, refresh_token: str) -> None:
        self._service = service
        self._token = refresh_token
        self.done = 0
        self.unavailable = 0

    async def run(self) -> None:
        while True:
            request = pb.RefreshRequest(refresh_token=self._token, idempotency_key=f"refresh-{self.done}")
            try:
                answer = await self._service.identity.Refresh(request, metadata=self._service.login)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                self.unavailable += 1
                await asyncio.sleep(0.05)
            else:
                self._token = answer.tokens.refresh_token
                self.done += 1


# Of a stand-in that is killed in the middle of a handshake, nobody closes the connection.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_place_that_is_killed_under_load_and_comes_back_costs_no_session_and_no_restart(
    own_place: OpenBao | Azure, make_settings: Any, start_service: Any, refused: Any, wait_until: Any
) -> None:
    settings = make_settings(
        keys={"provider": own_place.uri, "provider_timeout_ms": 1000},
        limits={"address_successes_per_minute": 10**6},
    )
    service = await start_service(settings)
    answers = [await service.identity.IssueTokens(ISSUE, metadata=service.login) for _ in range(SESSIONS)]
    sessions = [Refreshing(service, answer.tokens.refresh_token) for answer in answers]
    running = [asyncio.create_task(session.run()) for session in sessions]
    await wait_until(lambda: all(session.done > 1 for session in sessions))

    own_place.kill()
    await wait_until(lambda: all(session.unavailable for session in sessions))
    refusal = await refused(service.identity.IssueTokens(ISSUE, metadata=service.login))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SIGNER_UNAVAILABLE")
    assert refusal.retry_after_seconds >= 1
    assert await problems(service) == {"signer_unavailable"}
    # Verifiers go on: what is published needs nobody.
    assert len(await published(service)) == 1

    await asyncio.to_thread(own_place.bring_back)
    done = [session.done for session in sessions]
    await wait_until(
        lambda: all(
            session.done >= before + REFRESHES_AFTERWARDS
            for session, before in zip(sessions, done, strict=True)
        ),
        seconds=30,
    )
    assert not any(task.done() for task in running)
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    assert await problems(service) == set()


async def test_while_the_place_is_away_a_refresh_spends_nothing(
    own_place: OpenBao | Azure, make_settings: Any, start_service: Any, refused: Any, wait_until: Any
) -> None:
    service = await start_service(make_settings(keys={"provider": own_place.uri, "provider_timeout_ms": 500}))
    tokens = (await service.identity.IssueTokens(ISSUE, metadata=service.login)).tokens
    own_place.hang()

    async def is_open() -> bool:
        calls = [refused(service.identity.IssueTokens(ISSUE, metadata=service.login)) for _ in range(5)]
        assert {refusal.reason for refusal in await asyncio.gather(*calls)} == {"SIGNER_UNAVAILABLE"}
        return "signer_unavailable" in await problems(service)

    await wait_until(is_open)
    request = pb.RefreshRequest(refresh_token=tokens.refresh_token)
    refusal = await refused(service.identity.Refresh(request, metadata=service.login))
    assert refusal.reason == "SIGNER_UNAVAILABLE"
    own_place.bring_back()

    async def is_ready() -> bool:
        return not await problems(service)

    await wait_until(is_ready)
    # Long past the leeway of a caller without a key.
    service.travel(seconds=600)
    assert (await service.identity.Refresh(request, metadata=service.login)).tokens.refresh_token


async def test_a_service_comes_up_while_the_place_is_away_and_signs_once_it_is_back(
    own_place: OpenBao | Azure, make_settings: Any, start_service: Any, refused: Any, wait_until: Any
) -> None:
    settings = make_settings(keys={"provider": own_place.uri, "provider_timeout_ms": 500})
    await start_service(settings)
    own_place.kill()
    service = await start_service(settings)
    refusal = await refused(service.identity.IssueTokens(ISSUE, metadata=service.login))
    assert refusal.reason == "SIGNER_UNAVAILABLE"
    await asyncio.to_thread(own_place.bring_back)

    async def signs() -> bool:
        try:
            await service.identity.IssueTokens(ISSUE, metadata=service.login)
        except grpc.aio.AioRpcError:
            return False
        return True

    await wait_until(signs)


async def test_a_key_that_leaked_is_taken_from_verifiers_even_while_no_other_can_be_made(
    own_place: OpenBao | Azure, make_settings: Any, start_service: Any, refused: Any, wait_until: Any
) -> None:
    service = await start_service(make_settings(keys={"provider": own_place.uri, "provider_timeout_ms": 200}))
    await service.new_client("orders", clients_pb2.ClientPolicy(grants=["GRANT_VERIFY"]))
    at = {"target": service.addresses.grpc_target, "audience": "orders"}
    polls = Verifier(Issuer(ISSUER, **at))
    follows = Verifier(Issuer(ISSUER, client_id="orders", client_secret=service.secrets["orders"], **at))
    for verifier in (follows, polls):
        await asyncio.to_thread(verifier.start)
    try:
        token = (await service.identity.IssueTokens(ISSUE, metadata=service.login)).tokens.access_token
        assert follows.verify(token).subject == polls.verify(token).subject == "alice"
        own_place.kill()
        (stolen,) = follows.held_kids(ISSUER)
        revoke = admin_pb.RevokeKeyRequest(kid=stolen)
        refusal = await refused(service.administration.RevokeKey(revoke, metadata=service.admin))
        assert refusal.reason == "SIGNER_UNAVAILABLE"
        await wait_until(lambda: follows.held_kids(ISSUER) == ())
        await asyncio.to_thread(polls._refreshers[ISSUER].start().result)
        assert polls.held_kids(ISSUER) == ()
        for verifier in (follows, polls):
            with pytest.raises(TokenError) as caught:
                verifier.verify(token)
            assert caught.value.reason is Reason.KEYS_UNAVAILABLE
        introspected = await service.identity.Introspect(
            pb.IntrospectRequest(token=token), metadata=service.login
        )
        assert not introspected.active

        await asyncio.to_thread(own_place.bring_back)
        await wait_until(lambda: len(follows.held_kids(ISSUER)) == 1)
        token = (await service.identity.IssueTokens(ISSUE, metadata=service.login)).tokens.access_token
        assert follows.verify(token).subject == "alice"
    finally:
        for verifier in (follows, polls):
            await asyncio.to_thread(verifier.close)


def test_a_provider_that_does_not_exist_is_an_error_that_names_the_setting(make_settings: Any) -> None:
    from identity.parts import key_providers

    with pytest.raises(
        ConfigurationError, match=r"keys.provider: 'hsm' is not a key provider; there are local:"
    ):
        key_providers(make_settings(keys={"provider": "hsm:1"}))
