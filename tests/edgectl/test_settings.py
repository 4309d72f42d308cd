from pathlib import Path

import pytest

from edgectl.errors import UsageError
from edgectl.settings import Settings, load


@pytest.fixture
def home() -> Path:
    return Path.home()


def config(home: Path, text: str) -> Path:
    path = home / ".config" / "edgectl" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_without_anything_the_inventory_is_in_the_state_directory(home: Path) -> None:
    assert load() == Settings(home / ".local/state/edgectl/inventory.db", "table")


def test_a_flag_beats_the_environment_which_beats_the_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config(home, 'database = "/from/file.db"\noutput = "json"\n')
    assert load() == Settings(Path("/from/file.db"), "json")
    monkeypatch.setenv("EDGECTL_DATABASE_URL", "sqlite:////from/env.db")
    assert load() == Settings(Path("/from/env.db"), "json")
    assert load("/from/flag.db") == Settings(Path("/from/flag.db"), "json")


def test_paths_are_absolute_and_know_the_home(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("~/x.db").database == home / "x.db"
    assert load("x.db").database == tmp_path / "x.db"
    assert load("sqlite:///x.db").database == tmp_path / "x.db"


def test_relative_xdg_directories_are_ignored(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    assert load().database == home / ".local/state/edgectl/inventory.db"


@pytest.mark.parametrize(
    "url", ["postgresql://edge:hunter2@db/fleet", "postgresql+psycopg://edge:hunter2@db/fleet"]
)
def test_another_kind_of_database_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(UsageError, match="SQLite only, not in a postgresql database") as caught:
        load(url)
    assert "hunter2" not in caught.value.message + str(caught.value.hint)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite://host/x.db", "sqlite:///x.db?mode=ro"])
def test_an_odd_sqlite_url_is_explained(url: str) -> None:
    with pytest.raises(UsageError, match="a SQLite URL is sqlite:///"):
        load(url)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("database = ", "not valid TOML"),
        ("databse = 'x'", "unknown setting 'databse'; expected one of: database, output"),
        ("database = 3", "database must be a text"),
        ("output = 'yaml'", "output must be one of: table, wide, json"),
    ],
)
def test_a_broken_file_is_one_sentence_that_names_it(home: Path, text: str, said: str) -> None:
    path = config(home, text)
    with pytest.raises(UsageError) as caught:
        load()
    assert caught.value.message.startswith(f"{path}: ")
    assert said in caught.value.message
    assert "\n" not in caught.value.message
