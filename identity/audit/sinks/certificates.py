"""Why the certificate of a backend does not do, and which setting to look at: one of another name is trusted well enough."""

from __future__ import annotations

import ssl

# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH
_OF_ANOTHER_NAME = frozenset({62, 64})


def why_refused(error: ssl.SSLCertVerificationError, *, address_setting: str, ca_setting: str) -> str:
    """In words for an operator."""
    if error.verify_code in _OF_ANOTHER_NAME:
        return of_another_name(address_setting)
    return not_trusted(ca_setting, f" ({error.verify_message})")


def of_another_name(address_setting: str) -> str:
    """In the same words, where only that much is known."""
    return f"its certificate is for another name than the one it is called by; check {address_setting}"


def not_trusted(ca_setting: str, why: str = "") -> str:
    """In the same words, where only that much is known."""
    return f"its certificate is not trusted{why}; check {ca_setting}"
