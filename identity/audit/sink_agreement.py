"""Whether all relays have the same sinks. Where they do not, events wait for every sink that any of them names, and somebody has to be told."""

from __future__ import annotations

from collections.abc import Sequence

from identity.audit.ports import LiveRelay
from identity.readiness import Problem


def all_sinks(relays: Sequence[LiveRelay]) -> Sequence[str]:
    """Every sink that one of them names, once each."""
    return sorted({sink for relay in relays for sink in relay.sinks})


def sinks_differ(own: Sequence[str], relays: Sequence[LiveRelay]) -> Sequence[Problem]:
    """That ``audit.sinks`` is not the same everywhere; ``own`` is what it is here. It does not block: nothing is lost."""
    if all(set(relay.sinks) == set(own) for relay in relays):
        return []
    others = "; ".join(f"relay {relay.name} has {', '.join(relay.sinks)}" for relay in relays)
    return [
        Problem(
            "audit_sinks_differ",
            f"audit.sinks is {', '.join(own)} here, and not everywhere: {others}. Events wait for every sink that a relay "
            "names; give all servers and relays the same",
            blocks=False,
        )
    ]
