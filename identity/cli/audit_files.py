"""What the commands of ``identity audit`` that read have in common: files, times, keys, and progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeAlias

import typer

if TYPE_CHECKING:
    from identity.audit.reading import EventFile, Found

CANNOT_TELL = 2
_FETCH_SECONDS = 10.0

Files: TypeAlias = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[FILE]...", help="Files of the file sink, current or put away; `.gz` too."),
]
OtlpFiles: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--otlp-json", help="Spans or logs that a backend has given out as OTLP in JSON; may be repeated."
    ),
]
Since: TypeAlias = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="Not before: 2026-11-25 or 2026-11-25T04:20:00Z.")
]
Until: TypeAlias = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Not after; as --from.")]


def event_files(files: Sequence[Path] | None, otlp_files: Sequence[Path] | None) -> Sequence[EventFile]:
    """All of them, in the order in which they were named."""
    from identity.audit.reading import EventFile

    return [
        *(EventFile(path) for path in files or ()),
        *(EventFile(path, is_otlp=True) for path in otlp_files or ()),
    ]


def moment_of(text: str | None, option: str) -> int | None:
    """Milliseconds since 1970. Ends the command where that is no time."""
    from identity.audit.selection import NotATimeError, moment_ms

    try:
        return None if text is None else moment_ms(text)
    except NotATimeError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def cannot_tell(message: str) -> NoReturn:
    """Ends the command with exit code 2."""
    typer.secho(f"identity: {message}", fg=typer.colors.RED, err=True)
    sys.exit(CANNOT_TELL)


def trusted_keys(sources: Sequence[str] | None, kids: Sequence[str] | None) -> set[str]:
    """The thumbprints of the keys of JWK sets, by file or URL, and those that were named themselves."""
    return {thumbprint for source in sources or () for thumbprint in _thumbprints(source)} | set(kids or ())


@contextmanager
def progress_over(files: Sequence[EventFile]) -> Iterator[Callable[[EventFile], Iterator[Found]]]:
    """Reads files with a bar on standard error, where that is a terminal. Raises ``ReadError``."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    total = sum(file.size_bytes() for file in files)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=total)
        before = 0

        def read(file: EventFile) -> Iterator[Found]:
            nonlocal before
            progress.update(task, description=file.path.name)
            for found in file.found():
                progress.update(task, completed=before + found.bytes_read)
                yield found
            before += file.size_bytes()

        yield read


def _thumbprints(source: str) -> Sequence[str]:
    from grpc_identity.errors import KeyFetchError, KeyRefusedError
    from grpc_identity.jwk import KeySet
    from grpc_identity.jwks_http import HttpJwks

    try:
        if source.startswith(("https://", "http://")):
            fetch = HttpJwks(source, allow_plaintext=False, timeout_seconds=_FETCH_SECONDS)
            keys = fetch(None).key_set
        else:
            keys = KeySet.from_json(Path(source).read_bytes())
    except OSError as error:
        cannot_tell(f"cannot read {source}: {error.strerror}")
    except (KeyFetchError, KeyRefusedError, ValueError) as error:
        cannot_tell(f"no keys from {source}: {error}")
    return [key.thumbprint for key in keys]
