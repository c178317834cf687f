"""``identity serve``."""

from __future__ import annotations

from identity.cli.settings import ConfigFile, Overrides, settings_of


def serve(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Run the service until SIGTERM or Ctrl-C, then let calls under way finish.

    Needs an issuer, a Redis or Valkey and a key-encryption key:

        identity serve --config identity.toml --set grpc.listen=0.0.0.0:50051

    See every setting with: identity config reference
    """
    import uvloop

    from identity.app import serve as serve_until_signal
    from identity.cli.logs import configure_logging

    settings = settings_of(config, overrides)
    configure_logging(settings.log.level, settings.log.format)
    uvloop.run(serve_until_signal(settings))
