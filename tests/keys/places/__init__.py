"""Places where keys can be, each real or as near to it as can be had."""

# The fixture that starts each, by the scheme of its provider.
PLACES = {"pkcs11": "softhsm", "transit": "openbao"}
