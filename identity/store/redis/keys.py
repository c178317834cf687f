"""The names of all keys, in one place.

Everything about a subject has the same hash tag (``{b02a}``: its bucket), so that each decision is one script
in one slot, on a single server as on a cluster. The number of buckets is fixed when a store is first used.
docs/store.md lists the keys, their fields and how long each lives.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256

from identity.tokens.family_id import FamilyId, SubjectTag, bucket_of, subject_tag


@dataclass(frozen=True, slots=True)
class BucketKeys:
    """The keys of one bucket, and of what lives in it."""

    index: int
    prefix: str

    @property
    def outbox(self) -> str:
        """Stream of the events that are not yet with the backend."""
        return self.prefix + "outbox"

    @property
    def ledger(self) -> str:
        """Counter of all events of the bucket, and of refusals that are only counted."""
        return self.prefix + "ledger"

    @property
    def relays(self) -> str:
        """How far each sink has got with the outbox, and which relay reads it for that."""
        return self.prefix + "relays"

    @property
    def dead_letters(self) -> str:
        """Stream of the events that a sink will never take."""
        return self.prefix + "dead"

    def family(self, family: FamilyId) -> str:
        """State of a family: named by the end of its id, since what comes before is its subject's."""
        return self.family_prefix + family.name

    @property
    def family_prefix(self) -> str:
        """What the keys of all families start with."""
        return self.prefix + "family:"

    def shared(self, digest: bytes) -> bytes:
        """What many families have in common."""
        return f"{self.prefix}shared:".encode() + digest

    def families(self, tag: SubjectTag) -> str:
        """List of the families of a subject."""
        return f"{self.prefix}index:{_text(tag)}"

    def subject(self, tag: SubjectTag) -> str:
        """Cut-off of a subject."""
        return f"{self.prefix}subject:{_text(tag)}"

    def client(self, client_id: str) -> str:
        """Cut-off of a client, as far as this bucket goes."""
        return f"{self.prefix}client:{client_id}"

    def address(self, ip_address: str) -> str:
        """Budgets of an end user's address, as far as this bucket goes."""
        return f"{self.prefix}address:{_text(sha256(ip_address.encode()).digest()[:12])}"

    def idempotency(self, key_digest: bytes) -> str:
        """The first answer to a call with an idempotency key."""
        return f"{self.prefix}idempotency:{_text(key_digest)}"

    def usage_mark(self, client_id: str, spool_id: bytes) -> str:
        """How far a spool of a client, which keeps uses of tokens, is recorded in this bucket."""
        return f"{self.prefix}usage:{client_id}:{_text(spool_id)}"

    @property
    def settled(self) -> str:
        """Written to be waited for, after something that has to be durable."""
        return self.prefix + "settled"

    @property
    def revocations(self) -> str:
        """Stream of what verifiers must refuse."""
        return self.prefix + "revocations"

    def denied_token(self, token_id: str) -> str:
        """A revoked access token."""
        return f"{self.prefix}denied:{token_id}"


class KeySpace:
    """Finds the bucket of a thing, and names its keys."""

    __slots__ = (
        "buckets",
        "checkpoint_turn",
        "instances",
        "keyring",
        "last_checkpoint",
        "questions",
        "registry_clients",
        "registry_revision",
        "relays_alive",
        "settings",
    )

    def __init__(self, prefix: str, buckets: int) -> None:
        self.buckets = tuple(BucketKeys(index, f"{prefix}:{{b{index:03x}}}:") for index in range(buckets))
        # The registry of clients is small and lives in the first bucket, beside the outbox of its events.
        self.registry_clients = self.buckets[0].prefix + "clients"
        self.registry_revision = self.buckets[0].prefix + "clients:revision"
        self.keyring = self.buckets[0].prefix + "keyring"
        self.checkpoint_turn = self.buckets[0].prefix + "checkpoint:turn"
        self.last_checkpoint = self.buckets[0].prefix + "checkpoint:last"
        self.settings = f"{prefix}:settings"
        # Server instances find each other there, beside the registry.
        self.instances = self.buckets[0].prefix + "instances"
        self.questions = self.buckets[0].prefix + "questions"
        self.relays_alive = self.buckets[0].prefix + "relays:alive"

    def recent_sessions(self, window: str, step: int) -> str:
        """Which sessions were seen in one step of a window; a HyperLogLog."""
        return f"{self.buckets[0].prefix}recent:{window}:{step}"

    def answers(self, question_id: str) -> str:
        """What the instances have answered to a question."""
        return f"{self.buckets[0].prefix}answers:{question_id}"

    def of_family(self, family: FamilyId) -> BucketKeys:
        """The bucket of a family: that of its subject."""
        return self.of_tag(family.subject_tag)

    def of_tag(self, tag: SubjectTag) -> BucketKeys:
        """The bucket of a subject."""
        return self.buckets[bucket_of(tag, len(self.buckets))]

    def of_name(self, name: str) -> BucketKeys:
        """The bucket of a subject or client by its name."""
        return self.of_tag(subject_tag(name))


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
