"""Who may call what. The default is deny: a method without a rule needs a valid token.

>>> policy = (
...     Policy()
...     .public(Policy.HEALTH)
...     .require("/shop.v1.Orders/Refund", scope("orders.write") & claim("amr", has="mfa"))
...     .require("shop.v1.Reports", scope("reports.read") | role("auditor"))
... )

Rules may be declared in the protos (``Policy.from_protos``), where they are reviewed with the contract; those in code
win over them, for protos one does not own. ``check`` finds rules for methods that do not exist.

Rules name one method exactly (``/package.Service/Method``) or a whole service (``/package.Service/*`` or
``package.Service``), never a prefix or a pattern, and are compared with the path as it came in. The rule of a method
goes before that of its service. Naming the same method or service twice raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from grpc_identity.errors import PolicyError, Reason
from grpc_identity.principal import Principal

if TYPE_CHECKING:
    from grpc_identity.policy_protos import Declarations

__all__ = ["CompiledPolicy", "Policy", "Requirement", "Rule", "UsageAudit", "claim", "role", "scope"]


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a caller must have. Combine with ``&`` and ``|``."""

    check: Callable[[Principal], Reason | None]
    text: str

    def __and__(self, other: Requirement) -> Requirement:
        first, second = self.check, other.check
        return Requirement(
            lambda principal: first(principal) or second(principal), f"({self.text} and {other.text})"
        )

    def __or__(self, other: Requirement) -> Requirement:
        first, second = self.check, other.check

        def either(principal: Principal) -> Reason | None:
            missing = first(principal)
            return missing if missing is None or second(principal) is not None else None

        return Requirement(either, f"({self.text} or {other.text})")

    def __repr__(self) -> str:
        return self.text


def scope(*names: str) -> Requirement:
    """Every one of these is among the token's scopes."""
    wanted = _names(names, "scope")
    return Requirement(
        lambda principal: None if wanted <= principal.scopes else Reason.SCOPE_MISSING,
        " and ".join(f"scope {name}" for name in names),
    )


def role(*names: str) -> Requirement:
    """Every one of these is among the token's roles."""
    wanted = _names(names, "role")
    return Requirement(
        lambda principal: None if wanted <= principal.roles else Reason.ROLE_MISSING,
        " and ".join(f"role {name}" for name in names),
    )


_CLAIMS: dict[str, Callable[[Principal], Iterable[str | None]]] = {
    "acr": lambda principal: (principal.acr,),
    "act": lambda principal: principal.actors,
    "amr": lambda principal: principal.amr,
    "client_id": lambda principal: (principal.client_id,),
    "iss": lambda principal: (principal.issuer,),
    "sub": lambda principal: (principal.subject,),
}


def claim(name: str, *, has: str) -> Requirement:
    """The claim is this string, or a list with this string in it."""
    values = _CLAIMS.get(name)
    if values is None:
        raise PolicyError(f"no rule can ask for the claim {name!r}; these are known: {', '.join(_CLAIMS)}")
    if not has:
        raise PolicyError(f"the claim {name!r} cannot be asked for an empty value")
    return Requirement(
        lambda principal: None if has in values(principal) else Reason.CLAIM_MISSING,
        f"claim {name} has {has}",
    )


class UsageAudit(Enum):
    """Whether each use of a token on a method is recorded."""

    NONE = "none"
    USE = "use"
    """Recorded when it ends, a stream also when it begins; the call goes on while the record waits to be delivered."""
    MUST = "must"
    """Recorded, or the call is refused."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule of one method: public, or a valid token and what ``requirement`` asks of it.

    ``audience``: one of these must be among the token's, in place of those the issuer is trusted for; ``None``
    leaves it at those.
    """

    is_public: bool = False
    requirement: Requirement | None = None
    audience: frozenset[str] | None = None
    audit: UsageAudit = UsageAudit.NONE


_VALID_TOKEN = Rule()
_PUBLIC = Rule(is_public=True)
_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
_SERVICE = re.compile(rf"{_IDENTIFIER}(?:\.{_IDENTIFIER})*")
_METHOD = re.compile(_IDENTIFIER)


class Policy:
    """Rules, put together once and then handed to an interceptor, after which none can be added.

    >>> Policy().public("/a.B/C").require("/a.B/C", "orders.read")
    Traceback (most recent call last):
    ...
    grpc_identity.errors.PolicyError: /a.B/C has two rules; say which one holds
    """

    HEALTH: ClassVar[tuple[str, ...]] = (
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/Watch",
    )
    REFLECTION: ClassVar[tuple[str, ...]] = (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    )

    __slots__ = ("_declared", "_frozen", "_known", "_methods", "_services")

    def __init__(self) -> None:
        self._methods: dict[str, Rule] = {}
        self._services: dict[str, Rule] = {}
        self._declared: dict[str, Rule] = {}
        self._known: frozenset[str] = frozenset()
        self._frozen = False

    @classmethod
    def from_protos(cls, *descriptors: Declarations) -> Policy:
        """The rules that these files or services declare with ``option (grpc_identity.v1.auth)``.

        ``Policy.from_protos(orders_pb2.DESCRIPTOR)``. Raises ``PolicyError`` for a declaration that contradicts itself.
        """
        from grpc_identity.policy_protos import declared_methods, declared_rules

        policy = cls()
        policy._declared = declared_rules(descriptors)
        policy._known = declared_methods(descriptors)
        return policy

    def public(self, *methods: str | Iterable[str]) -> Policy:
        """These may be called without a token. A token that is sent is verified all the same."""
        for named in methods:
            for method in (named,) if isinstance(named, str) else named:
                self._add(method, _PUBLIC)
        return self

    def require(
        self,
        method: str,
        *requirements: str | Requirement,
        audience: str | Collection[str] | None = None,
        audit: UsageAudit = UsageAudit.NONE,
    ) -> Policy:
        """This needs a valid token that meets every requirement; a plain string is the name of a scope.

        With ``audience``, the token must be for one of these, in place of those its issuer is trusted for.
        """
        if not requirements and audience is None and audit is UsageAudit.NONE:
            raise PolicyError(f"{method}: require what? A valid token is needed anyway")
        audiences = (audience,) if isinstance(audience, str) else audience
        if audiences is not None and not (audiences and all(audiences)):
            raise PolicyError(f"{method}: an audience needs a name")
        combined: Requirement | None = None
        for requirement in requirements:
            part = scope(requirement) if isinstance(requirement, str) else requirement
            combined = part if combined is None else combined & part
        wanted = None if audiences is None else frozenset(audiences)
        self._add(method, Rule(requirement=combined, audience=wanted, audit=audit))
        return self

    def check(self, *descriptors: Declarations) -> Policy:
        """Raises ``PolicyError`` for a rule that names a method or service which does not exist: a rule for a misspelt
        name protects nothing.

        What exists is what ``from_protos`` was given, these descriptors, health and reflection.
        """
        known = self._known | {*self.HEALTH, *self.REFLECTION}
        if descriptors:
            from grpc_identity.policy_protos import declared_methods

            known |= declared_methods(descriptors)
        services = {method.rpartition("/")[0] for method in known}
        for name, candidates in (
            *((method, known) for method in self._methods),
            *((service, services) for service in self._services),
        ):
            if name not in candidates:
                close = get_close_matches(name, candidates, n=1)
                hint = f"; is {close[0]} meant?" if close else "; give its descriptor to from_protos or check"
                raise PolicyError(f"the policy has a rule for {name}, which does not exist{hint}")
        return self

    def compile(self) -> CompiledPolicy:
        """The rules for looking up; from here on none can be added."""
        self._frozen = True
        return CompiledPolicy(
            # A rule in code for a whole service stands above what its methods declare, too.
            {
                **{
                    method: rule
                    for method, rule in self._declared.items()
                    if method.rpartition("/")[0] not in self._services
                },
                **self._methods,
            },
            dict(self._services),
        )

    def _add(self, name: str, rule: Rule) -> None:
        if self._frozen:
            raise PolicyError(
                f"{name}: the policy is in use; add rules before it is handed to an interceptor"
            )
        service, method = _parse(name)
        rules, key = (self._services, service) if method is None else (self._methods, f"{service}/{method}")
        if key in rules:
            raise PolicyError(f"{name} has two rules; say which one holds")
        rules[key] = rule


class CompiledPolicy:
    """Rules for looking up, in constant time."""

    __slots__ = ("_methods", "_services")

    def __init__(self, methods: dict[str, Rule], services: dict[str, Rule]) -> None:
        self._methods = methods
        self._services = services

    def rules(self) -> Iterable[tuple[str, Rule]]:
        """Every rule, with the method or service it is for."""
        return (*self._services.items(), *self._methods.items())

    def rule(self, method: str) -> Rule:
        """The rule of a method, by the path as it came in."""
        rule = self._methods.get(method)
        if rule is not None:
            return rule
        if not self._services:
            return _VALID_TOKEN
        service, _, name = method.rpartition("/")
        # A path without a method name is not in the service, however much it looks like it.
        return self._services.get(service, _VALID_TOKEN) if name else _VALID_TOKEN


def _parse(name: str) -> tuple[str, str | None]:
    """The service of a rule, with its slash as in a path, and the method or ``None`` for all of them."""
    if _SERVICE.fullmatch(name):
        return f"/{name}", None
    service, _, method = name.removeprefix("/").partition("/")
    if name.startswith("/") and _SERVICE.fullmatch(service) and (method == "*" or _METHOD.fullmatch(method)):
        return f"/{service}", None if method == "*" else method
    raise PolicyError(
        f"{name!r} names neither a method (/package.Service/Method) nor a service (package.Service or "
        "/package.Service/*)"
    )


def _names(names: tuple[str, ...], kind: str) -> frozenset[str]:
    if not names or not all(name and not name.isspace() and " " not in name for name in names):
        raise PolicyError(f"a {kind} needs a name, without spaces")
    return frozenset(names)
