"""What the control side was told: flags over environment over file, read once into one frozen value."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgectl.errors import UsageError

DATABASE_VARIABLE = "EDGECTL_DATABASE_URL"
OUTPUTS = ("table", "wide", "json")
SSH_CONFIG_VARIABLE = "EDGECTL_SSH_CONFIG"
_KEYS = ("database", "output", "ssh_config")


@dataclass(frozen=True)
class Settings:
    """`database` is the absolute path of the inventory's SQLite file; `output` the form used without `-o`;
    `ssh_config` the OpenSSH client configuration to read instead of ~/.ssh/config."""

    database: Path
    output: str = "table"
    ssh_config: Path | None = None


def load(database: str | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from the flag's value, the environment (default: this process's) and the file.

    Raises UsageError for a file that cannot be read or holds anything unknown, and for a database that is
    not a SQLite file.
    """
    environ = os.environ if environ is None else environ
    path = config_file(environ)
    told = _read(path)
    named = environ.get(SSH_CONFIG_VARIABLE) or told.get("ssh_config")
    ssh_config = Path(named).expanduser().absolute() if named else None
    output = told.get("output", "table")
    for text, origin in (
        (database, "--database"),
        (environ.get(DATABASE_VARIABLE), DATABASE_VARIABLE),
        (told.get("database"), f"database in {path}"),
    ):
        if text:
            return Settings(database_path(text, origin), output, ssh_config)
    default = state_home(environ) / "edgectl" / "inventory.db"
    return Settings(default, output, ssh_config)


def config_file(environ: Mapping[str, str]) -> Path:
    """Where the configuration file is looked for, whether or not it exists."""
    return _home(environ, "XDG_CONFIG_HOME", ".config") / "edgectl" / "config.toml"


def state_home(environ: Mapping[str, str]) -> Path:
    """The directory for state that should outlast a restart."""
    return _home(environ, "XDG_STATE_HOME", ".local/state")


def database_path(text: str, origin: str) -> Path:
    """The absolute file path named by a path or a `sqlite:///…` URL.

    Raises UsageError for any other URL, without repeating it: it may hold a password.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Path(text).expanduser().absolute()
    if scheme != "sqlite":
        kind = scheme.partition("+")[0]
        named = kind if kind.isalnum() else "other"
        raise UsageError(
            f"{origin}: this version stores its inventory in SQLite only, not in a {named} database",
            "give a file path, or sqlite:///path/to/inventory.db",
        )
    if not rest.startswith("/") or rest == "/" or "?" in rest:
        raise UsageError(
            f"{origin}: a SQLite URL is sqlite:/// and a file path, without options",
            "sqlite:///inventory.db is relative to here, sqlite:////srv/inventory.db is absolute",
        )
    return Path(rest[1:]).expanduser().absolute()


def _home(environ: Mapping[str, str], variable: str, default: str) -> Path:
    # The XDG specification has relative values ignored.
    chosen = environ.get(variable, "")
    return Path(chosen) if chosen.startswith("/") else Path(environ.get("HOME", "~")).expanduser() / default


def _read(path: Path) -> dict[str, str]:
    import tomllib

    try:
        content: dict[str, str] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}", "correct the file, or remove it") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    for key, value in content.items():
        if key not in _KEYS:
            raise UsageError(f"{path}: unknown setting {key!r}; expected one of: {', '.join(_KEYS)}")
        if not isinstance(value, str):
            raise UsageError(f"{path}: {key} must be a text in quotes")
    if content.get("output", "table") not in OUTPUTS:
        raise UsageError(f"{path}: output must be one of: {', '.join(OUTPUTS)}")
    return content
