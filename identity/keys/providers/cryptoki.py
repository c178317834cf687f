"""Three calls of a PKCS #11 module that python-pkcs11 makes in a way that a server with threads cannot use.

- ``C_Initialize`` without arguments tells a module that one thread calls it at a time; SoftHSM then goes without its
  locks, and two threads that sign bring the process down. Here it is told to lock (``CKF_OS_LOCKING_OK``).
- ``C_Login`` counts for all sessions of a process with a token. python-pkcs11 takes "already logged in" for a failure,
  and logs all of them out when it closes the one session that had logged in.
- ``C_Finalize``, to begin anew with a module whose device was away.

Names and numbers are those of PKCS #11 2.40.
"""

from __future__ import annotations

import ctypes
from typing import Any

import pkcs11
from pkcs11 import _pkcs11

CKR_OK = 0x000
CKR_CRYPTOKI_NOT_INITIALIZED = 0x190
CKR_CRYPTOKI_ALREADY_INITIALIZED = 0x191
_CKR_PIN = {0x0A0: pkcs11.PinIncorrect, 0x0A3: pkcs11.PinExpired, 0x0A4: pkcs11.PinLocked}
_CKR_USER_ALREADY_LOGGED_IN = 0x100
_CKF_OS_LOCKING_OK = 0x2
_CKU_USER = 1
# Places in CK_FUNCTION_LIST, which starts with a version that is padded to a pointer.
_INITIALIZE, _FINALIZE, _LOGIN = 1, 2, 19

_Arguments: Any = type(
    "CK_C_INITIALIZE_ARGS",
    (ctypes.Structure,),
    {
        "_fields_": [
            ("mutex_functions", ctypes.c_void_p * 4),
            ("flags", ctypes.c_ulong),
            ("reserved", ctypes.c_void_p),
        ]
    },
)


class ModuleUnfitError(Exception):
    """The library is none, or cannot be used by a server."""


class Module(_pkcs11.lib):
    """A module that threads may share. Its constructor raises ``ModuleUnfitError`` and ``pkcs11.PKCS11Error``."""

    def initialize(self) -> None:
        """Called by the library's constructor, in place of its own."""
        if self._functions() != self._functions():
            # p11-kit's client does that: what is done by one list counts for that list only.
            raise ModuleUnfitError("gives a new list of functions at each call; use the HSM's own module")
        arguments = _Arguments(flags=_CKF_OS_LOCKING_OK)
        result = self._function(_INITIALIZE, ctypes.c_void_p)(ctypes.byref(arguments))
        if result not in (CKR_OK, CKR_CRYPTOKI_ALREADY_INITIALIZED):
            raise pkcs11.GeneralError(f"C_Initialize returned {result:#x}")

    def begin_anew(self) -> None:
        """Ends every session of this process. No other thread may be in the module."""
        result = self._function(_FINALIZE, ctypes.c_void_p)(None)
        if result not in (CKR_OK, CKR_CRYPTOKI_NOT_INITIALIZED):
            raise pkcs11.GeneralError(f"C_Finalize returned {result:#x}")
        self.initialize()

    def login(self, session: Any, pin: bytes) -> None:
        """Logs in for all sessions with the token; success where that was done already."""
        call = self._function(_LOGIN, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong)
        result = call(session.handle, _CKU_USER, pin, len(pin))
        if result not in (CKR_OK, _CKR_USER_ALREADY_LOGGED_IN):
            raise _CKR_PIN.get(result, pkcs11.GeneralError)(f"C_Login returned {result:#x}")

    def _functions(self) -> int:
        functions = ctypes.c_void_p()
        result = ctypes.CDLL(self.so).C_GetFunctionList(ctypes.byref(functions))
        if result != CKR_OK or functions.value is None:
            raise ModuleUnfitError(f"has no functions (C_GetFunctionList returned {result:#x})")
        return functions.value

    def _function(self, place: int, *arguments: Any) -> Any:
        pointer = ctypes.c_void_p.from_address(self._functions() + place * ctypes.sizeof(ctypes.c_void_p))
        # CFUNCTYPE lets go of the interpreter's lock for as long as the call takes.
        return ctypes.CFUNCTYPE(ctypes.c_ulong, *arguments)(pointer.value or 0)
