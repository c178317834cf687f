"""Whether 32 bytes are a point that an Ed25519 public key may be (RFC 8032, sections 5.1 and 5.1.3).

OpenSSL takes any 32 bytes for a key and looks at the point only when a signature is checked. Then it is late: what is
no point of the curve refuses every token, and under one of the eight points of small order anybody can write
signatures that verify, without a private key. Run once a key, when it is loaded; in plain integers, because nothing
here is secret.
"""

from __future__ import annotations

__all__ = ["is_sound_point"]

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_COFACTOR_DOUBLINGS = 3


def is_sound_point(encoded: bytes) -> bool:
    """Whether these 32 bytes are the one encoding of a point on edwards25519 that is not of small order.

    >>> is_sound_point(bytes([1]) + bytes(31))  # the neutral element
    False
    """
    value = int.from_bytes(encoded, "little")
    y = value & (2**255 - 1)  # the top bit is the sign of x
    if y >= _P:
        return False
    x_squared = _x_squared(y)
    if pow(x_squared, (_P - 1) // 2, _P) == _P - 1:
        return False
    # Of small order is what eight times itself is the neutral element, the only point whose y is 1. The points
    # without a sign, whose x is 0, are among them.
    for _ in range(_COFACTOR_DOUBLINGS):
        x_squared = _x_squared(y)
        y = (y * y + x_squared) * pow(2 + x_squared - y * y, -1, _P) % _P
    return y != 1


def _x_squared(y: int) -> int:
    # From -x² + y² = 1 + d x² y². The divisor is never zero, because -1/d is no square.
    return (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
