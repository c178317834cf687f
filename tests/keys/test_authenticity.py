"""A keyring that was altered where it lies: nothing of it is used, and nothing of it is published."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from identity.keys.providers.local import generate_private_key, public_jwk
from identity.keys.sealing import SealError
from identity.keys.service import KeyService

Document = dict[str, Any]


def add_a_foreign_key(document: Document) -> None:
    jwk = public_jwk(generate_private_key("ES256"))
    document["keys"].append(document["keys"][0] | {"kid": jwk["kid"], "public_jwk": jwk, "state": "retired"})


def put_a_foreign_public_half_under_our_kid(document: Document) -> None:
    key = document["keys"][0]
    key["public_jwk"] = public_jwk(generate_private_key("ES256")) | {"kid": key["kid"]}


def rename_a_key(document: Document) -> None:
    document["keys"][0]["kid"] = document["keys"][0]["public_jwk"]["kid"] = "other"


def swap_the_seals_of_two_keys(document: Document) -> None:
    one, two = document["keys"]
    one["sealed_private_key"], two["sealed_private_key"] = (
        two["sealed_private_key"],
        one["sealed_private_key"],
    )


def swap_the_seals_of_two_secrets(document: Document) -> None:
    one, two = document["secrets"]
    one["sealed"], two["sealed"] = two["sealed"], one["sealed"]


def alter_a_seal(document: Document) -> None:
    sealed = document["keys"][1]["sealed_private_key"]
    document["keys"][1]["sealed_private_key"] = ("B" if sealed[0] == "A" else "A") + sealed[1:]


def empty_a_seal(document: Document) -> None:
    document["keys"][1]["sealed_private_key"] = ""


def publish_a_private_member(document: Document) -> None:
    document["keys"][0]["public_jwk"]["d"] = "AAAA"


def name_another_algorithm(document: Document) -> None:
    document["keys"][0]["algorithm"] = "EdDSA"


def name_a_key_twice(document: Document) -> None:
    document["keys"].append(document["keys"][0] | {"state": "removed"})


@pytest.mark.parametrize(
    "alter",
    [
        add_a_foreign_key,
        put_a_foreign_public_half_under_our_kid,
        rename_a_key,
        swap_the_seals_of_two_keys,
        swap_the_seals_of_two_secrets,
        alter_a_seal,
        empty_a_seal,
        publish_a_private_member,
        name_another_algorithm,
        name_a_key_twice,
    ],
)
async def test_an_altered_keyring_is_refused(
    make: Callable[..., KeyService], clock: Any, keyring_file: Any, alter: Callable[[Document], None]
) -> None:
    service = make()
    await service.start()
    clock.moment += timedelta(days=89)
    await service.tick()
    published, kid = service.published(), service.active_signer().kid
    document = keyring_file.read()
    assert [key["state"] for key in document["keys"]] == ["active", "pending"]
    alter(document)
    # Of a later revision, as a real change would be.
    keyring_file.write(document | {"revision": document["revision"] + 1})
    altered = keyring_file.read_raw()
    with pytest.raises(SealError, match="backup"):
        await service.tick()
    with pytest.raises(SealError, match="backup"):
        await make().start()
    assert (service.published(), service.active_signer().kid) == (published, kid)
    assert keyring_file.read_raw() == altered


async def test_a_retired_key_cannot_be_made_to_sign_again(
    make: Callable[..., KeyService], clock: Any, keyring_file: Any
) -> None:
    service = make()
    await service.start()
    for wait in (timedelta(days=89), timedelta(hours=26)):
        clock.moment += wait
        await service.tick()
    document = keyring_file.read()
    document["keys"][0]["state"], document["keys"][1]["state"] = "active", "pending"
    keyring_file.write(document)
    clock.moment -= timedelta(hours=26)
    with pytest.raises(SealError, match="no private half"):
        await make().start()


async def test_what_somebody_added_to_a_public_half_is_not_published(
    make: Callable[..., KeyService], keyring_file: Any
) -> None:
    await make().start()
    document = keyring_file.read()
    document["keys"][0]["public_jwk"]["x5u"] = "https://evil.example"
    keyring_file.write(document)
    service = make()
    await service.start()
    (jwk,) = service.published().jwks
    assert set(jwk) == {"kty", "use", "alg", "kid", "crv", "x", "y"}
