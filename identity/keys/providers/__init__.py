"""Places where private keys can be, one module each. Each is a ``KeyProvider``; they do not know each other."""
