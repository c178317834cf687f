"""Sessions with one token of a PKCS #11 module, for the threads that use it. Blocks; runs in ``WorkerThreads``.

- Each thread keeps a session and the handles it has found, so that a signature is one call to the module. Threads times
  sessions is what the HSM must allow; ``keys.provider_concurrency`` bounds both.
- A failure that may be the session's ends every session of the process: the next call opens one and logs in. If that
  fails too, the module is begun anew once no thread is in it, because some modules connect only then.
- A PIN that was refused is not tried again until the file that holds it has another: three tries lock many a token.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pkcs11
from pkcs11 import ObjectClass

from identity.keys.ports import ProviderError
from identity.keys.providers.cryptoki import Module, ModuleUnfitError
from identity.keys.providers.pkcs11_uri import Pkcs11Uri
from identity.keys.providers.remote import UnreachableError

ALONE_SECONDS = 1.0
MAX_HANDLES = 64

_T = TypeVar("_T")
_FINAL = {
    pkcs11.NoSuchKey: "has no such key",
    pkcs11.NoSuchToken: "is not in any slot; check the URI",
    pkcs11.MultipleTokensReturned: "is more than one; name its serial in the URI",
    pkcs11.MechanismInvalid: "does not know the algorithm",
    pkcs11.TokenWriteProtected: "is write-protected",
}
_PIN = (pkcs11.PinIncorrect, pkcs11.PinExpired, pkcs11.PinLocked)


@dataclass(eq=False)
class _Shared:
    """What all tokens of one module in this process have in common."""

    module: Module
    inside: int = 0
    generation: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)


_modules: dict[str, _Shared] = {}
_modules_lock = threading.Lock()


def _shared(path: str) -> _Shared:
    with _modules_lock:
        if path not in _modules:
            try:
                _modules[path] = _Shared(Module(path))
            except ModuleUnfitError as error:
                raise ProviderError(f"the PKCS #11 module {path} {error}") from None
            except pkcs11.PKCS11Error as error:
                if "while loading" in str(error):
                    raise ProviderError(
                        f"the PKCS #11 module {path} does not load; check module-path and that it is for this machine"
                    ) from None
                raise UnreachableError(f"its module does not start ({type(error).__name__})") from None
        return _modules[path]


class TokenSession:
    """A session, and what was found in it."""

    def __init__(self, session: Any, generation: int) -> None:
        self.raw = session
        self.generation = generation
        self._handles: dict[bytes, Any] = {}

    def private_key(self, key_id: bytes) -> Any:
        """The key with this ``CKA_ID``. Raises ``pkcs11.NoSuchKey``."""
        if key_id not in self._handles:
            if len(self._handles) >= MAX_HANDLES:
                self._handles.clear()
            self._handles[key_id] = self.raw.get_key(object_class=ObjectClass.PRIVATE_KEY, id=key_id)
        return self._handles[key_id]


class TokenSessions:
    """The sessions of one token."""

    def __init__(self, uri: Pkcs11Uri) -> None:
        self._uri = uri
        self._module_path = str(uri.module_path)
        self._kept = threading.local()
        self._open: set[Any] = set()
        self._lock = threading.Lock()
        self._refused_pin = b""

    @property
    def _shared(self) -> _Shared:
        return _shared(self._module_path)

    def reading(self, operation: Callable[[TokenSession], _T]) -> _T:
        """``operation`` with this thread's session. Raises ``ProviderError`` and ``UnreachableError``."""
        with self._inside(), self._errors():
            return operation(self._session())

    def writing(self, operation: Callable[[Any], _T]) -> _T:
        """``operation`` with a session of its own that may change the token."""
        with self._inside(), self._errors():
            self._session()  # which has logged in
            session = self._token().open(rw=True)
            try:
                return operation(session)
            finally:
                session.close()

    def mechanisms(self) -> set[Any]:
        """What the token can do."""
        with self._inside(), self._errors():
            return set(self._token().slot.get_mechanisms())

    def close(self) -> None:
        """Closes the sessions that are still good. With the last one of the process its login ends."""
        with self._lock:
            open_sessions, self._open = self._open, set()
        for session in open_sessions:
            try:
                session.close()
            except pkcs11.PKCS11Error:
                continue

    @contextmanager
    def _inside(self) -> Iterator[None]:
        with self._shared.changed:
            self._shared.inside += 1
        try:
            yield
        finally:
            with self._shared.changed:
                self._shared.inside -= 1
                self._shared.changed.notify_all()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except _PIN as error:
            raise ProviderError(
                f"{self._uri} refuses the PIN ({type(error).__name__}); it is not tried again until pin-source "
                "holds another one"
            ) from None
        except pkcs11.PKCS11Error as error:
            if reason := _FINAL.get(type(error)):
                raise ProviderError(f"{self._uri} {reason}") from None
            self._forget_sessions()
            raise UnreachableError(f"the module reports {type(error).__name__}") from None

    def _forget_sessions(self) -> None:
        with self._shared.changed:
            self._shared.generation += 1
        with self._lock:
            self._open.clear()

    def _session(self) -> TokenSession:
        kept: TokenSession | None = getattr(self._kept, "session", None)
        if kept is None or kept.generation != self._shared.generation:
            kept = self._kept.session = self._opened()
        return kept

    def _opened(self) -> TokenSession:
        try:
            return self._logged_in()
        except (*_PIN, *_FINAL):
            raise
        except pkcs11.PKCS11Error:
            if not self._begun_anew():
                raise
            return self._logged_in()

    def _logged_in(self) -> TokenSession:
        generation = self._shared.generation
        session: Any = self._token().open()
        with self._lock:
            pin = self._uri.pin()
            # What was refused is kept as a digest: it may be right tomorrow, or elsewhere.
            digest = hashlib.sha256(pin).digest()
            if hmac.compare_digest(digest, self._refused_pin):
                raise pkcs11.PinIncorrect
            try:
                self._shared.module.login(session, pin)
            except _PIN:
                self._refused_pin = digest
                raise
            self._open.add(session)
        return TokenSession(session, generation)

    def _begun_anew(self) -> bool:
        """Begins the module anew, unless another thread stays in it."""
        with self._shared.changed:
            before = self._shared.generation
            self._shared.inside -= 1
            try:
                if not self._shared.changed.wait_for(lambda: self._shared.inside == 0, ALONE_SECONDS):
                    return False
                if self._shared.generation == before:
                    self._shared.generation += 1
                    self._shared.module.begin_anew()
                return True
            finally:
                self._shared.inside += 1

    def _token(self) -> Any:
        path = self._uri.path
        found = [
            token
            for slot in self._shared.module.get_slots(token_present=True)
            if path.get("slot-id", str(slot.slot_id)) == str(slot.slot_id)
            for token in [slot.get_token()]
            if _is_named(token, path)
        ]
        if not found:
            raise pkcs11.NoSuchToken
        if len(found) > 1:
            raise pkcs11.MultipleTokensReturned
        return found[0]


def _is_named(token: Any, path: Mapping[str, str]) -> bool:
    actual = {
        "token": token.label,
        "serial": token.serial.decode("ascii", "replace"),
        "manufacturer": token.manufacturer_id,
        "model": token.model,
    }
    return all(path.get(name, value).strip() == value.strip() for name, value in actual.items())
