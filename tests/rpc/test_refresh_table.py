"""The refresh table, row by row, through gRPC and against a real Valkey. docs/refresh.md is the same table."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from grpc_identity.v1 import admin_service_pb2 as admin_pb
from grpc_identity.v1 import clients_pb2
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.tokens.family_id import FamilyId
from identity.tokens.refresh_token import RefreshToken, RefreshTokenCodec, new_family_secret

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def codec_of(service: Any) -> RefreshTokenCodec:
    secrets_of_service = service.server.keys.refresh_token_secrets()
    return RefreshTokenCodec(secrets_of_service.by_id, secrets_of_service.active_id)


async def test_a_token_that_is_not_authentic_is_invalid(service: Any, new_session: Any, refused: Any) -> None:
    session = await new_session()
    family = codec_of(service).decode(session.tokens.refresh_token).family
    forged = RefreshTokenCodec({1: secrets.token_bytes(32)}, 1).encode(
        RefreshToken(family, 0, new_family_secret())
    )
    for text in ("nonsense", session.tokens.refresh_token[:-1], forged, session.tokens.access_token):
        refusal = await refused(session.refresh(text))
        assert (refusal.code, refusal.reason) == (UNAUTHENTICATED, "REFRESH_TOKEN_INVALID")
        assert text not in refusal.message
    await session.refresh()  # nothing was changed


async def test_an_authentic_token_of_an_unknown_family_is_invalid(
    service: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session()
    unknown = codec_of(service).encode(RefreshToken(FamilyId.generate("alice"), 0, new_family_secret()))
    assert (await refused(session.refresh(unknown))).reason == "REFRESH_TOKEN_INVALID"


async def test_the_server_secret_alone_makes_no_token(service: Any, new_session: Any, refused: Any) -> None:
    session = await new_session()
    family = FamilyId.parse(session.tokens.session_id)
    assert family is not None
    made = codec_of(service).encode(RefreshToken(family, 0, new_family_secret()))
    assert (await refused(session.refresh(made))).reason == "REFRESH_TOKEN_INVALID"
    await session.refresh()


async def test_another_client_ends_the_family(service: Any, new_session: Any, refused: Any) -> None:
    session = await new_session()
    other = await service.new_client("other", clients_pb2.ClientPolicy(grants=["GRANT_REFRESH"]))
    assert (await refused(session.refresh(caller=other))).code is UNAUTHENTICATED
    assert (await refused(session.refresh())).reason == "FAMILY_REVOKED"


@pytest.mark.parametrize("target", ["session", "subject", "client"])
async def test_a_revoked_family_subject_or_client_refreshes_no_more(
    service: Any, new_session: Any, refused: Any, target: str
) -> None:
    session = await new_session()
    request = {
        "session": pb.RevokeRequest(session_id=session.tokens.session_id),
        "subject": pb.RevokeRequest(subject="alice"),
        "client": pb.RevokeRequest(client_id="login"),
    }[target]
    await service.identity.Revoke(request, metadata=service.login)
    assert (await refused(session.refresh())).reason == "FAMILY_REVOKED"
    later = await new_session()
    await later.refresh()  # what starts after the cut-off lives, in the same second


async def test_a_disabled_client_gets_nothing_and_its_sessions_stay_dead(
    service: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session()
    for disabled in (True, False):
        await service.administration.SetClientDisabled(
            admin_pb.SetClientDisabledRequest(client_id="login", disabled=disabled), metadata=service.admin
        )
        expected = "CLIENT_DISABLED" if disabled else "FAMILY_REVOKED"
        assert (await refused(session.refresh())).reason == expected
    await (await new_session()).refresh()


async def test_past_the_idle_lifetime_a_session_is_expired(
    service: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session()
    service.travel(seconds=47 * 3600)
    await session.refresh()
    service.travel(seconds=48 * 3600 + 1)
    assert (await refused(session.refresh())).reason == "REFRESH_TOKEN_EXPIRED"


async def test_past_the_absolute_lifetime_a_session_is_expired_however_often_it_was_refreshed(
    service: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session()
    end = session.tokens.refresh_token_expires_at.seconds + 5 * 24 * 3600  # the first is bounded by idleness
    for _ in range(5):
        service.travel(seconds=28 * 3600)
        tokens = await session.refresh()
        assert tokens.refresh_token_expires_at.seconds <= end + 1
    service.travel(seconds=28 * 3600)
    assert (await refused(session.refresh())).reason == "REFRESH_TOKEN_EXPIRED"


async def test_the_current_generation_rotates(service: Any, new_session: Any) -> None:
    session = await new_session()
    first = session.tokens
    second = await session.refresh()
    assert second.refresh_token != first.refresh_token
    assert second.session_id == first.session_id
    assert codec_of(service).decode(second.refresh_token).generation == 1
    assert list(second.scopes) == ["orders.read", "orders.write"]


async def test_the_same_key_gets_the_same_token_again_with_a_fresh_access_token(
    service: Any, new_session: Any
) -> None:
    session = await new_session()
    spent = session.tokens.refresh_token
    answers = [await session.refresh(spent, key="attempt-1") for _ in range(3)]
    assert len({answer.refresh_token for answer in answers}) == 1
    assert len({answer.access_token for answer in answers}) == 3
    service.travel(seconds=110)
    assert (await session.refresh(spent, key="attempt-1")).refresh_token == answers[0].refresh_token
    await session.refresh(key="attempt-2")


async def test_without_keys_a_race_within_the_leeway_gets_the_same_token(
    service: Any, new_session: Any
) -> None:
    session = await new_session()
    spent = session.tokens.refresh_token
    first = await session.refresh(spent)
    service.travel(seconds=9)
    assert (await session.refresh(spent)).refresh_token == first.refresh_token


@pytest.mark.parametrize(
    ("first_key", "second_key", "seconds"),
    [
        ("a", "b", 0),  # another key: strict at once
        ("a", "", 0),  # no key, though the rotation carried one
        ("a", "a", 121),  # the same key, after the retry window
        ("", "", 11),  # no keys, after the leeway
    ],
)
async def test_a_spent_token_that_comes_back_revokes_its_family(
    service: Any, new_session: Any, refused: Any, first_key: str, second_key: str, seconds: int
) -> None:
    session = await new_session()
    spent = session.tokens.refresh_token
    live = (await session.refresh(spent, key=first_key)).refresh_token
    service.travel(seconds=seconds)
    refusal = await refused(session.refresh(spent, key=second_key))
    assert (refusal.code, refusal.reason) == (UNAUTHENTICATED, "REFRESH_TOKEN_REUSED")
    for token in (live, spent):
        assert (await refused(session.refresh(token))).reason == "FAMILY_REVOKED"


async def test_a_token_two_generations_old_revokes_its_family_at_once(
    service: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session()
    oldest = session.tokens.refresh_token
    await session.refresh()
    await session.refresh()
    assert (await refused(session.refresh(oldest))).reason == "REFRESH_TOKEN_REUSED"


async def test_once_the_successor_is_spent_the_key_answers_no_more(
    service: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session()
    spent = session.tokens.refresh_token
    await session.refresh(spent, key="a")
    await session.refresh(key="b")
    assert (await refused(session.refresh(spent, key="a"))).reason == "REFRESH_TOKEN_REUSED"


async def test_a_client_without_leeway_is_strict_without_keys_too(
    service: Any, new_session: Any, refused: Any
) -> None:
    policy = clients_pb2.ClientPolicy(
        grants=["GRANT_ISSUE", "GRANT_REFRESH"], subjects=["*"], audiences=["orders"], scopes=["*"]
    )
    policy.refresh_leeway.FromSeconds(0)
    strict = await service.new_client("strict", policy)
    session = await new_session(caller=strict)
    spent = session.tokens.refresh_token
    await session.refresh(spent, caller=strict)
    assert (await refused(session.refresh(spent, caller=strict))).reason == "REFRESH_TOKEN_REUSED"


async def test_a_store_that_lost_writes_is_caught_up_with(service: Any, new_session: Any) -> None:
    session = await new_session()
    await session.refresh()
    lose_what_follows = await forgetful(service, session)
    await session.refresh()
    await session.refresh()
    await lose_what_follows()
    tokens = await session.refresh()
    assert codec_of(service).decode(tokens.refresh_token).generation == 4
    await session.refresh()


async def test_a_fast_forward_undoes_no_revocation(service: Any, new_session: Any, refused: Any) -> None:
    """Where the cut-off has outlived the refreshes before it."""
    session = await new_session("alice")
    lose_what_follows = await forgetful(service, session)
    await session.refresh()
    await session.refresh()
    await service.identity.Revoke(pb.RevokeRequest(subject="alice"), metadata=service.login)
    await lose_what_follows()
    assert (await refused(session.refresh())).reason == "FAMILY_REVOKED"


async def forgetful(service: Any, session: Any) -> Callable[[], Awaitable[None]]:
    """Has the store forget what happens to a session from here on, once that is called."""
    family = FamilyId.parse(session.tokens.session_id)
    assert family is not None
    store = service.server.store
    key = store.keys.of_family(family).family(family)
    before = await store.connection.command("GET", key)

    async def forget() -> None:
        await store.connection.command("SET", key, before, "KEEPTTL")

    return forget


async def test_a_fast_forward_is_bounded(service: Any, new_session: Any, refused: Any) -> None:
    session = await new_session()
    token = codec_of(service).decode(session.tokens.refresh_token)
    far = codec_of(service).encode(RefreshToken(token.family, 1_000, token.family_secret))
    assert (await refused(session.refresh(far))).reason == "REFRESH_TOKEN_INVALID"
    await session.refresh()


async def test_scope_and_audience_only_narrow_and_only_for_one_access_token(
    service: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session(audience=["orders", "billing-test"])
    narrowed = await session.refresh(scopes=["orders.read"], audience=["orders"])
    assert list(narrowed.scopes) == ["orders.read"]
    assert (await refused(session.refresh(scopes=["orders.delete"]))).reason == "SCOPE_NOT_ALLOWED"
    assert (await refused(session.refresh(audience=["stock-test"]))).reason == "AUDIENCE_NOT_ALLOWED"
    assert list((await session.refresh()).scopes) == ["orders.read", "orders.write"]


async def test_200_parallel_spends_on_three_instances_end_in_one_successor(
    service: Any, new_session: Any, make_settings: Any
) -> None:
    from identity.app import IdentityServer

    others = [IdentityServer(service.settings) for _ in range(2)]
    targets = [service.addresses.grpc_target] + [(await other.start()).grpc_target for other in others]
    channels = [grpc.aio.insecure_channel(target) for target in targets]
    session = await new_session()
    methods = [
        channel.unary_unary(
            "/grpc_identity.v1.IdentityService/Refresh",
            request_serializer=pb.RefreshRequest.SerializeToString,
            response_deserializer=pb.RefreshResponse.FromString,
        )
        for channel in channels
    ]
    request = pb.RefreshRequest(refresh_token=session.tokens.refresh_token)
    answers = await asyncio.gather(
        *(methods[number % 3](request, metadata=service.login) for number in range(200)),
        return_exceptions=True,
    )
    given = [answer.tokens.refresh_token for answer in answers if isinstance(answer, pb.RefreshResponse)]
    assert len(given) == 200, [answer for answer in answers if not isinstance(answer, pb.RefreshResponse)][:1]
    assert len(set(given)) == 1
    state = await service.server.store.reader.find_family(FamilyId.parse(session.tokens.session_id))
    assert (state.generation, state.ended) == (1, None)
    for channel in channels:
        await channel.close()
    for other in others:
        await other.stop(0)


async def test_200_parallel_spends_with_keys_of_their_own_end_the_family(
    service: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session()
    token = session.tokens.refresh_token
    answers = await asyncio.gather(
        *(session.refresh(token, key=f"thief-{number}") for number in range(200)), return_exceptions=True
    )
    successes = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert len(successes) == 1
    assert (await refused(session.refresh(successes[0].refresh_token))).reason == "FAMILY_REVOKED"


async def test_where_reuse_is_only_reported_the_session_lives_and_the_record_says_what_would_have_been(
    collector: Any, make_settings: Any, start_service: Any, wait_until: Any
) -> None:
    service = await start_service(make_settings(audit={"relay": True}))
    policy = clients_pb2.ClientPolicy(
        grants=["GRANT_ISSUE", "GRANT_REFRESH"],
        subjects=["*"],
        audiences=["orders"],
        may_forward_client_context=True,
        reuse_policy="REUSE_POLICY_REPORT",
    )
    migrating = await service.new_client("migrating", policy)

    async def refresh(token: str, key: str, address: str) -> Any:
        request = pb.RefreshRequest(refresh_token=token, idempotency_key=key)
        request.client_context.ip_address = address
        return (await service.identity.Refresh(request, metadata=migrating)).tokens

    issue = pb.IssueTokensRequest(subject="alice", audience=["orders"])
    first = (await service.identity.IssueTokens(issue, metadata=migrating)).tokens
    second = await refresh(first.refresh_token, "a", "192.0.2.1")
    third = await refresh(second.refresh_token, "b", "192.0.2.1")
    again = await refresh(first.refresh_token, "c", "192.0.2.2")
    assert again.refresh_token == third.refresh_token  # the live one, and no second successor
    assert (await refresh(third.refresh_token, "d", "192.0.2.1")).session_id == first.session_id
    await wait_until(lambda: bool(collector.of_type("refresh.reuse_detected")))
    (event,) = collector.of_type("refresh.reuse_detected")
    assert (event["identity.event.outcome"], event["identity.event.reason"]) == (
        "success",
        "REFRESH_TOKEN_REUSED",
    )
    assert event["identity.reuse.distance"] == 2
    assert event["identity.reuse.since_spent_ms"] >= 0
    assert (event["identity.reuse.address"], event["identity.reuse.user_agent"]) == ("other", "unknown")
    assert event["identity.reuse.key"] is True


async def test_a_session_is_not_caught_up_with_long_after_its_last_known_use(
    service: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session()
    codec = codec_of(service)
    live = codec.decode(session.tokens.refresh_token)
    ahead = codec.encode(RefreshToken(live.family, live.generation + 1, live.family_secret))
    service.travel(seconds=24 * 3600 + 1)
    assert (await refused(session.refresh(ahead))).reason == "REFRESH_TOKEN_INVALID"
    await session.refresh()
    await session.refresh(codec.encode(RefreshToken(live.family, live.generation + 3, live.family_secret)))
