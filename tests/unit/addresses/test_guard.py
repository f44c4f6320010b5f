"""The guard: which URLs are well formed, and which addresses are reached."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from workers.addresses import parse, permitted, refusal
from workers.addresses.guard import METADATA, PURPOSES, allowed_networks, setting_of
from workers.vocabulary.errors import AddressRefused, InvalidInput

pytestmark = pytest.mark.invariant

PUBLIC = ["93.184.216.34", "8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"]
INTERNAL = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::808:808",  # IPv4-compatible: gone since 2006
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",  # Teredo
    "2001:0:5ef5:79fb:0:59d:f5ff:fffe",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "2a00:1450::5efe:10.0.0.1",  # ISATAP
    "2a00:1450::200:5efe:127.0.0.1",
    "::ffff:0:127.0.0.1",  # translated by SIIT
    "fe80::1%eth0",
    "fd00:ec2::254%1",
]


@pytest.mark.parametrize("address", [*PUBLIC, "64:ff9b::808:808", "2002:808:808::1", "::ffff:8.8.8.8"])
def test_public_addresses_are_reached(address: str) -> None:
    assert refusal(ip_address(address)) is None


@pytest.mark.parametrize("address", INTERNAL)
def test_internal_addresses_are_refused(address: str) -> None:
    assert refusal(ip_address(address))


@given(address=st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_every_wrapping(address: IPv4Address) -> None:
    number = int(address)
    wrapped = [
        IPv6Address((0xFFFF << 32) | number),
        IPv6Address((0x64FF9B << 96) | number),
        IPv6Address((0x2002 << 112) | (number << 80) | 1),
    ]

    for outer in wrapped:
        assert (refusal(address) is None) == (refusal(outer) is None)
    assert refusal(IPv6Address(number))


@given(address=st.ip_addresses(v=4), prefix=st.integers(0, 2**32 - 1), flag=st.booleans())
def test_isatap_addresses_are_judged_by_what_they_wrap(address: IPv4Address, prefix: int, flag: bool) -> None:
    outer = (0x2A00 << 112) | (prefix << 64) | ((0x02005EFE if flag else 0x5EFE) << 32) | int(address)
    if refusal(address) is not None:
        assert refusal(IPv6Address(outer)) is not None


@given(address=st.ip_addresses(v=6), zone=st.sampled_from(["eth0", "1", "lo"]))
def test_a_zone_changes_nothing(address: IPv6Address, zone: str) -> None:
    assert (refusal(address) is None) == (refusal(IPv6Address(f"{address}%{zone}")) is None)


@given(
    networks=st.lists(st.ip_addresses(v=4).map(lambda item: f"{item}/32"), max_size=3),
    found=st.lists(st.ip_addresses(), min_size=1, max_size=5),
)
def test_nothing_but_public_and_allowed_addresses_is_ever_permitted(
    networks: list[str], found: list[IPv4Address | IPv6Address]
) -> None:
    with override_settings(GANTRY_CALLBACK_ALLOW_NETWORKS=networks):
        try:
            good = permitted("name.test", map(str, found), "callback")
        except AddressRefused:
            return
    assert good
    for address in good:
        assert refusal(address) is None or f"{address}/32" in networks


@given(
    number=st.integers(0, 2**32 - 1),
    form=st.sampled_from(["{0}", "{0:#x}", "0{0:o}", "{1}.{2}", "{1}.{3:#x}", "{4}.0x{5:x}"]),
)
def test_an_address_has_one_spelling(number: int, form: str) -> None:
    """Decimal, hexadecimal, octal and shortened forms, which resolvers understand, are not hosts."""
    low = number & 0xFFFF
    host = form.format(number, number >> 24, number & 0xFFFFFF, low, number >> 16 & 255, low & 9)
    with pytest.raises(InvalidInput):
        parse(f"http://{host}/")


@pytest.mark.parametrize("purpose", PURPOSES)
def test_each_purpose_has_a_list_of_its_own(purpose: str, settings: Settings) -> None:
    for name in PURPOSES:
        setattr(settings, setting_of(name), ["10.0.0.0/8"] if name == purpose else [])
    for name in PURPOSES:
        if name == purpose:
            assert permitted("h", ["10.1.2.3"], name) == [ip_address("10.1.2.3")]
        else:
            with pytest.raises(AddressRefused, match=setting_of(name)):
                permitted("h", ["10.1.2.3"], name)


@pytest.mark.parametrize("port", [22, 25, 6379, 11211])
def test_ports_of_other_services_are_refused(port: int) -> None:
    with pytest.raises(InvalidInput, match="not a web server's"):
        parse(f"http://example.com:{port}/")
    assert parse(f"sftp://example.com:{port}/", schemes=["sftp"]).port == port


@given(address=st.ip_addresses())
def test_what_is_reached_is_public_to_python_too(address: IPv4Address | IPv6Address) -> None:
    if refusal(address) is None:
        if isinstance(address, IPv6Address) and address.sixtofour is not None:
            # Newer Pythons call every such address private: the one inside counts.
            address = address.sixtofour
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_private
        assert not address.is_link_local
        assert not address.is_loopback
        assert not address.is_unspecified


@given(host=st.integers(0, 255), network=st.sampled_from(["10.0.0", "127.0.0", "192.168.7", "169.254.3"]))
def test_no_private_address_is_ever_reached(host: int, network: str) -> None:
    with pytest.raises(AddressRefused, match="GANTRY_URI_ALLOW_NETWORKS"):
        permitted("name.test", [f"{network}.{host}"], "uri")


def test_one_refused_address_refuses_the_name() -> None:
    for found in (["8.8.8.8", "10.0.0.1"], ["10.0.0.1", "8.8.8.8"], []):
        with pytest.raises(AddressRefused):
            permitted("name.test", found, "uri")


def test_what_a_name_resolves_to_is_not_told_to_the_client() -> None:
    with pytest.raises(AddressRefused) as caught:
        permitted("db.internal.test", ["10.20.30.40"], "callback")

    assert caught.value.message == (
        "db.internal.test is refused: it leads to a private network. "
        "An operator can open its network with GANTRY_CALLBACK_ALLOW_NETWORKS"
    )


def test_an_operator_opens_networks_for_one_purpose(settings: Settings) -> None:
    settings.GANTRY_URI_ALLOW_NETWORKS = ["10.1.0.0/16", "127.0.0.0/8"]
    settings.GANTRY_CALLBACK_ALLOW_NETWORKS = []

    assert permitted("h", ["10.1.2.3"], "uri") == [ip_address("10.1.2.3")]
    assert permitted("h", ["::ffff:10.1.2.3"], "uri") == [ip_address("10.1.2.3")]
    assert permitted("localhost", ["::1", "127.0.0.1"], "uri") == [ip_address("127.0.0.1")]
    with pytest.raises(AddressRefused):
        permitted("h", ["10.2.0.1"], "uri")
    with pytest.raises(AddressRefused):
        permitted("h", ["64:ff9b::a01:203"], "uri")  # through a translator: not what was opened
    with pytest.raises(AddressRefused):
        permitted("h", ["10.1.2.3"], "callback")


@pytest.mark.parametrize("address", sorted(map(str, METADATA)))
def test_metadata_services_need_an_entry_of_their_own(address: str, settings: Settings) -> None:
    settings.GANTRY_URI_ALLOW_NETWORKS = ["0.0.0.0/0", "::/0"]
    with pytest.raises(AddressRefused, match="metadata"):
        permitted("h", [address], "uri")

    settings.GANTRY_URI_ALLOW_NETWORKS = [address]
    assert permitted("h", [address], "uri") == [ip_address(address)]


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "internal", "10.0.0.0/33", ""])
def test_a_wrong_network_names_the_setting(entry: str, settings: Settings) -> None:
    settings.GANTRY_URI_ALLOW_NETWORKS = ["192.168.0.0/16", entry]

    with pytest.raises(ImproperlyConfigured, match="GANTRY_URI_ALLOW_NETWORKS"):
        allowed_networks("uri")


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("http://example.com", "example.com", 80, "/"),
        ("HTTPS://EXAMPLE.com:8443/a/b?c=d#e", "example.com", 8443, "/a/b?c=d"),
        ("http://example.com./x", "example.com", 80, "/x"),
        ("http://example.com:/x", "example.com", 80, "/x"),
        ("http://bücher.example/ü?q=ü", "xn--bcher-kva.example", 80, "/%C3%BC?q=%C3%BC"),
        ("http://[2606:4700:4700:0::1111]:81/", "2606:4700:4700::1111", 81, "/"),
        ("http://127.0.0.1/", "127.0.0.1", 80, "/"),
        ("http://a_b.example/%2e%2e/%00?x=%20", "a_b.example", 80, "/%2e%2e/%00?x=%20"),
        ("http://example.com?x=1", "example.com", 80, "/?x=1"),
    ],
)
def test_well_formed_urls(url: str, host: str, port: int, path: str) -> None:
    target = parse(url)

    assert (target.host, target.port, target.path) == (host, port, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "http:example.com",
        "http:///path",
        "http://:80/",
        "http://./",
        "http://a..b/",
        "http://-a.example/",
        "http://user@example.com/",
        "http://user:password@example.com/",
        "http://a@b@example.com/",
        "http://example.com\\@evil.example/",
        "http://example.com /",
        "http://exa\tmple.com/",
        "http://example.com/\r\nHost: evil",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:http/",
        "http://example.com:80:80/",
        "http://example.com:٨٠/",
        "http://%31%32%37.0.0.1/",
        "http://[::1",
        "http://[::1]evil.example/",
        "http://evil.example[::1]/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[v1.fe80]/",
        "http://[127.0.0.1]/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://017700000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.0.1.1/",
        "http://127.0.0.01/",
        "http://1.2.3.256/",
        "http://example.0x7f/",
        "http://" + "a" * 64 + ".example/",
        "http://" + "a." * 130 + "example/",
        "http://example.com/" + "a" * 9000,
    ],
)
def test_malformed_urls(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(url, field="callbackUrl")

    assert caught.value.field == "callbackUrl"
    assert caught.value.message.startswith("callbackUrl: ")
    assert "password" not in caught.value.message.replace("user name and password", "")


@pytest.mark.parametrize("host", ["①②⑦.⓪.⓪.①", "１２７.0.0.1", "127。0。0。1"])
def test_digits_of_other_scripts_are_read_before_they_are_judged(host: str) -> None:
    assert parse(f"http://{host}/").host == "127.0.0.1"


@given(url=st.text(max_size=60).map(lambda text: "http://" + text))
def test_parse_never_fails_in_another_way(url: str) -> None:
    try:
        target = parse(url, credentials=True)
    except InvalidInput:
        return
    assert target.host.isascii()
    assert target.path.startswith("/")
    assert not any(ord(char) <= 0x20 or ord(char) > 0x7E for char in target.path + target.authority)


def test_credentials_become_a_header_and_are_not_shown() -> None:
    target = parse("https://ann:p%40ss@example.com/x.tgz?token=abc", credentials=True)

    assert target.authorization == "Basic YW5uOnBAc3M="
    assert target.shown == "https://example.com/x.tgz?..."
    assert "YW5u" not in repr(target)
