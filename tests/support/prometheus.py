"""Reads Prometheus' text format as a scraper does, and refuses what a scraper would."""

import http.client
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path

Labels = frozenset[tuple[str, str]]
_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_SAMPLE = re.compile(rf"({_NAME})(?:\{{(.*)\}})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


@dataclass
class Scraped:
    """One family: samples by their full name and labels."""

    kind: str
    help: str
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)

    def value(self, suffix: str = "", **labels: str) -> float:
        """The one sample that has these labels among its own."""
        wanted = set(labels.items())
        found = [
            value for (name, has), value in self.samples.items() if name.endswith(suffix) and wanted <= has
        ]
        assert len(found) == 1, (labels, self.samples)
        return found[0]


def scrape(page: str) -> dict[str, Scraped]:
    """The families of a page. AssertionError for anything that is not the format."""
    assert page == "" or page.endswith("\n")
    families: dict[str, Scraped] = {}
    current, help_ = "", ""
    for line in page.split("\n")[:-1]:
        if line.startswith("# HELP "):
            current, help_ = line.removeprefix("# HELP ").split(" ", 1)
            assert current not in families, f"{current} comes twice"
        elif line.startswith("# TYPE "):
            name, kind = line.removeprefix("# TYPE ").split(" ")
            assert name == current
            assert kind in ("counter", "gauge", "histogram")
            families[name] = Scraped(kind, help_)
        else:
            match = _SAMPLE.fullmatch(line)
            assert match, line
            family, labels = families[current], _labels(match[2] or "")
            suffixes = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
            assert match[1] in {current + suffix for suffix in suffixes}, line
            assert (match[1], labels) not in family.samples, f"twice: {line}"
            family.samples[match[1], labels] = float(match[3])
    for name, family in families.items():
        assert family.samples, f"{name} has no sample"
        assert re.fullmatch(_NAME, name)
    return families


def _labels(text: str) -> Labels:
    found, at = [], 0
    while at < len(text):
        match = _LABEL.match(text, at)
        assert match, text
        value = re.sub(r"\\[\\\"n]", lambda escape: _ESCAPES[escape[0]], match[2])
        found.append((match[1], value))
        at = match.end()
    assert len({name for name, _ in found}) == len(found), text
    return frozenset(found)


def scrape_agent(socket_path: Path) -> tuple[str, dict[str, Scraped]]:
    """Content type and families of `/metrics` on an agent's control socket."""
    connection = http.client.HTTPConnection("agent", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.sock.settimeout(60)
        connection.sock.connect(str(socket_path))
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        assert response.status == 200
        return response.headers["Content-Type"], scrape(response.read().decode())
    finally:
        connection.close()
