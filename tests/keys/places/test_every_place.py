"""One suite for every place where keys can be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from jwt.algorithms import get_default_algorithms
from keys.places import LACKING, PLACES

from grpc_identity.jwk import parse_jwk
from identity.keys.ports import KeyProvider, ProviderError, SignerUnavailableError

ALGORITHMS = ("ES256", "RS256", "EdDSA")
SIGNING_INPUT = b"eyJhbGciOiJub25lIn0.e30"
PUBLIC_MEMBERS = {
    "ES256": {"kty", "crv", "x", "y", "use", "alg", "kid"},
    "RS256": {"kty", "n", "e", "use", "alg", "kid"},
    "EdDSA": {"kty", "crv", "x", "use", "alg", "kid"},
}
SIGNATURE_BYTES = {"ES256": 64, "RS256": 384, "EdDSA": 64}


def verifies(jwk: Any, signature: bytes) -> bool:
    key = parse_jwk(jwk)
    done: bool = get_default_algorithms()[key.algorithm.value].verify(
        SIGNING_INPUT, key.public_key, signature
    )
    return done


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("place", ["local", *PLACES])
async def test_a_key_is_made_signs_and_ends(
    place: str, algorithm: str, uri_of: Callable[[str], str], provider_at: Callable[..., KeyProvider]
) -> None:
    if reason := LACKING.get((place, algorithm)):
        pytest.skip(reason)
    provider = provider_at("local:" if place == "local" else uri_of(place))
    made = await provider.generate(algorithm)
    assert set(made.public_jwk) == PUBLIC_MEMBERS[algorithm]
    checked = parse_jwk(made.public_jwk)
    assert (checked.kid, checked.algorithm.value) == (checked.thumbprint, algorithm)

    signer = await provider.signer(checked.thumbprint, algorithm, made.private_part)
    assert (signer.kid, signer.algorithm) == (checked.thumbprint, algorithm)
    signer.check()
    signatures = await asyncio.gather(*(signer.sign(SIGNING_INPUT) for _ in range(20)))
    assert {len(signature) for signature in signatures} == {SIGNATURE_BYTES[algorithm]}
    assert all(verifies(made.public_jwk, signature) for signature in signatures)
    assert repr(made.private_part)[2:-1] not in f"{made!r} {signer!r} {provider!r}"

    await provider.destroy(made.private_part)
    await provider.destroy(made.private_part)


@pytest.mark.parametrize("place", PLACES)
async def test_a_key_that_was_destroyed_signs_no_more(
    place: str, uri_of: Callable[[str], str], provider_at: Callable[..., KeyProvider]
) -> None:
    provider = provider_at(uri_of(place))
    kept, ended = await provider.generate("ES256"), await provider.generate("ES256")
    assert kept.private_part != ended.private_part
    signer = await provider.signer(ended.public_jwk["kid"], "ES256", ended.private_part)
    assert verifies(ended.public_jwk, await signer.sign(SIGNING_INPUT))
    await provider.destroy(ended.private_part)
    # A process of its own may know the key from before; a new one does not.
    another = provider_at(uri_of(place))
    with pytest.raises((SignerUnavailableError, ProviderError)):
        await (await another.signer(ended.public_jwk["kid"], "ES256", ended.private_part)).sign(SIGNING_INPUT)
    signer = await another.signer(kept.public_jwk["kid"], "ES256", kept.private_part)
    assert verifies(kept.public_jwk, await signer.sign(SIGNING_INPUT))


@pytest.mark.parametrize("place", PLACES)
async def test_a_provider_that_comes_up_later_finds_the_keys_that_were_made_before(
    place: str, uri_of: Callable[[str], str], provider_at: Callable[..., KeyProvider]
) -> None:
    made = await provider_at(uri_of(place)).generate("ES256")
    signer = await provider_at(uri_of(place)).signer(made.public_jwk["kid"], "ES256", made.private_part)
    assert verifies(made.public_jwk, await signer.sign(SIGNING_INPUT))
