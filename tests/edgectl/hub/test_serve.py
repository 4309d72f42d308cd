import pytest

from edgectl.errors import UsageError
from edgectl.hub.serve import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("127.0.0.1:8770", Address("127.0.0.1", 8770), True),
        ("127.9.9.9:0", Address("127.9.9.9", 0), True),
        ("[::1]:8770", Address("::1", 8770), True),
        ("localhost:1", Address("localhost", 1), True),
        ("0.0.0.0:8770", Address("0.0.0.0", 8770), False),
        ("hub.example:443", Address("hub.example", 443), False),
    ],
)
def test_where_to_listen(text: str, address: Address, loopback: bool) -> None:
    assert parse_address(text) == address
    assert (str(address), address.loopback) == (text, loopback)


@pytest.mark.parametrize(
    "text", ["", "8770", ":8770", "host:", "host:http", "host:65536", "::1:8770", "h:-1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        parse_address(text)
