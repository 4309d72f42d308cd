"""`edgectl hub`: where devices report by themselves."""

from pathlib import Path
from typing import Annotated

import typer

from edgectl.cli.options import settings_of
from edgectl.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Let devices report by themselves.")


@app.callback()
def hub() -> None:
    """Let devices report by themselves."""


@app.command()
def serve(
    ctx: typer.Context,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen.")] = "127.0.0.1:8770",
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The certificate and its chain, in PEM form.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The certificate's key, in PEM form, unencrypted.")
    ] = None,
    interval: Annotated[
        int,
        typer.Option(metavar="SECONDS", min=1, max=3600, help="How long devices wait between two reports."),
    ] = 60,
    limit_rate: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Bytes of files a second, for all devices together, such as 20MiB."
        ),
    ] = None,
) -> None:
    """Take reports from devices, and bring them what they missed while they were off, until it is told to stop (Ctrl-C,
    or SIGTERM).

    It runs in the foreground and uses the same inventory as every other command. A device reports here when it was
    bootstrapped with this hub's URL; each has a token of its own. Behind a proxy that ends TLS, leave it on
    127.0.0.1; to be reached without one, give it a certificate: without, tokens travel unencrypted.
    """
    from edgectl.hub.serve import Certificate, parse_address, serve

    if (tls_cert is None) != (tls_key is None):
        raise UsageError("TLS needs a certificate and its key", "give both --tls-cert and --tls-key")
    certificate = Certificate(tls_cert, tls_key) if tls_cert and tls_key else None
    serve(settings_of(ctx).database, parse_address(listen), certificate, interval, _rate(limit_rate))


def _rate(text: str | None) -> int | None:
    from edgectl.sizes import parse_size

    rate = parse_size(text) if text is not None else None
    if rate == 0:
        raise UsageError("--limit-rate 0: expected bytes a second, such as 20MiB")
    return rate
