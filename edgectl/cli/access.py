"""`edgectl access`: keys for clients of the models."""

import secrets

import typer

from edgectl.cli.options import Output, form_of
from edgectl.cli.output import Form, emit_json, say, talk

app = typer.Typer(no_args_is_help=True, help="Make keys for clients of the models.")


@app.callback()
def access() -> None:
    """Make keys for clients of the models."""


@app.command("new-key")
def new_key(ctx: typer.Context, output: Output = None) -> None:
    """Make an API key, and the hash of it for a manifest's access.key_hashes or an agent's --api-keys file.

    The key is printed once and stored nowhere: devices know the hash only.
    """
    from agent_daemon.contract import digest

    key = f"edgectl-{secrets.token_urlsafe(32)}"
    hashed = digest.of_bytes(key.encode())
    if form_of(ctx, output) is Form.JSON:
        emit_json({"key": key, "hash": hashed})
        return
    say(f"key:  {key}")
    say(f"hash: {hashed}")
    talk("give the key to the client, and the hash to the manifest or the agent")
