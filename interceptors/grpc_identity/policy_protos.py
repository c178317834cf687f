"""Rules that are declared where the methods are: ``option (grpc_identity.v1.auth)`` and ``service_auth``, read from
descriptors.

Rules it keeps:

- the option of a method stands for itself; a method without one has that of its service; without either, a valid token
  is needed and nothing more;
- ``public`` goes with nothing else: a method cannot be open and ask for a scope;
- of ``roles`` one is enough, of ``scopes`` all are needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from google.protobuf.descriptor import FileDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions, ServiceOptions

from grpc_identity.errors import PolicyError
from grpc_identity.policy import Requirement, Rule, UsageAudit, role, scope
from grpc_identity.v1 import auth_pb2

__all__ = ["Declarations", "declared_methods", "declared_rules"]

Declarations: TypeAlias = FileDescriptor | ServiceDescriptor

_AUDITS = {
    auth_pb2.USAGE_AUDIT_UNSPECIFIED: UsageAudit.NONE,
    auth_pb2.USAGE_AUDIT_USE: UsageAudit.USE,
    auth_pb2.USAGE_AUDIT_MUST: UsageAudit.MUST,
}


def declared_methods(descriptors: Iterable[Declarations]) -> frozenset[str]:
    """The paths of all methods, such as ``/shop.v1.Orders/Refund``."""
    return frozenset(_path(method) for method in _methods(descriptors))


def declared_rules(descriptors: Iterable[Declarations]) -> dict[str, Rule]:
    """The rule of every method that declares one, itself or by its service. Raises ``PolicyError``."""
    rules = {}
    for method in _methods(descriptors):
        declared = _declared(method)
        if declared is not None:
            rules[_path(method)] = _rule(_path(method), declared)
    return rules


def _methods(descriptors: Iterable[Declarations]) -> Iterator[MethodDescriptor]:
    for descriptor in descriptors:
        match descriptor:
            case FileDescriptor():
                for service in descriptor.services_by_name.values():
                    yield from service.methods
            case ServiceDescriptor():
                yield from descriptor.methods
            case _:
                raise PolicyError(
                    f"{descriptor!r} is no descriptor of a file or service; give orders_pb2.DESCRIPTOR, for example"
                )


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _declared(method: MethodDescriptor) -> auth_pb2.AuthRule | None:
    # Serialised and read anew, because a descriptor may come from a pool that does not know the option.
    # Untyped, because the generated stubs do not say which options an extension extends.
    own: Any = MethodOptions.FromString(method.GetOptions().SerializeToString())
    declared: auth_pb2.AuthRule
    if own.HasExtension(auth_pb2.auth):
        declared = own.Extensions[auth_pb2.auth]
        return declared
    shared: Any = ServiceOptions.FromString(method.containing_service.GetOptions().SerializeToString())
    if shared.HasExtension(auth_pb2.service_auth):
        declared = shared.Extensions[auth_pb2.service_auth]
        return declared
    return None


def _rule(path: str, declared: auth_pb2.AuthRule) -> Rule:
    if declared.audit not in _AUDITS:
        raise PolicyError(
            f"{path}: audit {declared.audit} is not known here; a newer grpc-identity may know it"
        )
    if declared.public:
        if declared.scopes or declared.roles or declared.audience or declared.audit:
            raise PolicyError(
                f"{path} is declared public, and asks for something all the same; take one away"
            )
        return Rule(is_public=True)
    parts: list[Requirement] = []
    if declared.scopes:
        parts.append(scope(*declared.scopes))
    if declared.roles:
        parts.append(_one_of(declared.roles))
    requirement: Requirement | None = None
    for part in parts:
        requirement = part if requirement is None else requirement & part
    audience = frozenset(declared.audience) or None
    if audience is not None and not all(audience):
        raise PolicyError(f"{path}: an audience has no name")
    return Rule(requirement=requirement, audience=audience, audit=_AUDITS[declared.audit])


def _one_of(roles: Iterable[str]) -> Requirement:
    combined: Requirement | None = None
    for name in roles:
        combined = role(name) if combined is None else combined | role(name)
    assert combined is not None  # noqa: S101 - the caller has looked
    return combined
