"""Who calls, as the use cases see it: a client that has proved itself, and the circumstances of the call."""

from __future__ import annotations

from dataclasses import dataclass, replace

from identity.audit.event import NOBODY, Circumstances, EndUser
from identity.clients.client import Client
from identity.clients.policy import ClientPolicy


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated client and one call of its."""

    client: Client
    method: str
    traceparent: str = ""
    end_user: EndUser = NOBODY

    @property
    def client_id(self) -> str:
        """The client's id."""
        return self.client.client_id

    @property
    def policy(self) -> ClientPolicy:
        """What the client may do."""
        return self.client.policy

    @property
    def circumstances(self) -> Circumstances:
        """What every event of this call carries."""
        return Circumstances(self.client.client_id, self.method, self.end_user, self.traceparent)

    def on_behalf_of(self, end_user: EndUser) -> Caller:
        """The call with the end user the client names, if the client is believed in that."""
        if end_user is NOBODY or not self.client.policy.may_forward_client_context:
            return self
        return replace(self, end_user=end_user)
