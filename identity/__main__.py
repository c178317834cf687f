"""``python -m identity``, and the command ``identity``."""

from __future__ import annotations

from identity.cli.main import main

if __name__ == "__main__":
    main()
