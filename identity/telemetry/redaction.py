"""Takes out of a text what looks like a token or a client's secret, whoever has put it there.

What stays of it are its last six characters, by which two lines can be told to be about the same one.
"""

from __future__ import annotations

from re import Match
from re import compile as compile_pattern

KEPT_CHARS = 6

# A JWS, and what begins as refresh tokens (gidr_) and client secrets (gics_) do; whole, or cut off.
_LOOKS_SECRET = compile_pattern(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*|gi(?:cs|dr)_[A-Za-z0-9_-]{8,}")


# Whole: a name may begin like one.
_IS_SECRET = compile_pattern(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+){2,}|gi(?:cs|dr)_[A-Za-z0-9_-]{8,}")


def holds_secret(text: str) -> bool:
    """Whether there is a token or a client's secret in it, as far as can be seen.

    >>> holds_secret("gidr_AAECAwQFBgcICQ"), holds_secret("eyJhbGciOiJFUzI1NiJ9")
    (True, False)
    """
    return _IS_SECRET.search(text) is not None


def redacted(text: str) -> str:
    """The text without tokens.

    >>> redacted("token=eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl!")
    'token=…F0dXJl!'
    """
    return _LOOKS_SECRET.sub(_end_of, text)


def _end_of(found: Match[str]) -> str:
    return "…" + found[0][-KEPT_CHARS:]
