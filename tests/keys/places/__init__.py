"""Places where keys can be, each real or as near to it as can be had."""

# The fixture that starts each, by the scheme of its provider.
PLACES = {
    "pkcs11": "softhsm",
    "transit": "openbao",
    "awskms": "aws",
    "awssm": "aws",
    "azurekv": "azure",
    "azuresecrets": "azure",
    "gcpkms": "gcp",
    "gcpsm": "gcp",
}
# Where the place itself lacks an algorithm that its provider knows, or its stand-in does.
LACKING = {
    ("awskms", "EdDSA"): "moto makes no Ed25519 keys; KMS does",
    ("azurekv", "EdDSA"): "Key Vault has no Ed25519",
}
