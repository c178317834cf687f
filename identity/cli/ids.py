"""Ids as arguments of commands: one in 64 begins with a dash, since they are base64url, and is no option."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

# A session's id has 32 characters, a key's 43; no option is as long.
_ID = re.compile(r"-[A-Za-z0-9_-]{31,42}")


class TakesId(TyperCommand):
    """A command with an id as an argument; a misspelt option stays an error."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As any command does."""
        ctx.ignore_unknown_options = any(_ID.fullmatch(text) for text in args)
        return super().parse_args(ctx, args)
