"""Listings as clients see them: keys, pieces, odd names, long ones; what did not come about."""

from __future__ import annotations

from tests.contracts.workqueue.conftest import LATER_FILE, V11, Api, Filled, at, folder, ok
from workqueue.models.jobs import Status, Type

DONE, FAILED = Status.DONE, Status.FAILED


def test_the_keys_of_a_listing(api: Api, site: int) -> None:
    """(asked, folders as the mover tells them) -> keys of v1.0, keys of v1.1."""
    cases: list[tuple[str, list[str], list[str], list[str]]] = [
        ("dir", ["dir", "dir/sub"], ["dir", "dir/sub"], ["dir", "dir/sub"]),
        ("dir/", ["dir", "dir/sub"], ["dir/", "dir/sub"], ["dir", "dir/sub"]),
        ("~", ["~", "~/sub"], ["~", "~/sub"], ["~", "~/sub"]),
        ("~/", ["~", "~/sub"], ["~/", "~/sub"], ["~", "~/sub"]),
        ("/", ["/", "/sub"], ["/", "/sub"], ["", "/sub"]),
        ("/f", ["/"], ["/"], ["/"]),
        ("f", [""], [""], [""]),
        ("a/f", ["a"], ["a"], ["a"]),
    ]
    for asked, told, names, later in cases:
        filled = Filled(api.job(src_siteid=site, src_filepath=asked)["id"])
        filled.element(0, Type.LIST, DONE, (DONE, "x"), src_filepath=asked)
        filled.listing(0, *(folder(each, "f") for each in told))
        filled.count(num_done=1)
        assert list(ok(api.get(at(filled, "/elements/0")))["listing"][0]) == names, asked
        assert list(ok(api.get(at(filled, "/elements/0/output")))["entries"]) == names
        assert list(ok(api.get(V11 + at(filled, "/elements/0")))["listing"]) == later, asked


def test_listings_come_in_pieces(api: Api, site: int) -> None:
    filled = Filled(api.job(src_siteid=site, src_filepath="d")["id"])
    filled.element(0, Type.LIST, DONE, (DONE, "x"), src_filepath="d")
    lines = [
        folder("d", last=False),
        *(folder("d", f"a{number}", first=False, last=False) for number in range(20)),
        folder("d", first=False),
        folder("d/empty"),
        folder("d/odd", 'a "b"', "é", "e\u0301", "-x", "a\nb", "a%20b", "end ", "\\x41"),
    ]
    filled.listing(0, *lines, pieces=12)
    filled.count(num_done=1)
    (listing,) = ok(api.get(at(filled, "/elements/0")))["listing"]
    assert listing["d"] == [f"a{number}" for number in range(20)]
    assert listing["d/empty"] == []
    assert listing["d/odd"] == ['a "b"', "é", "e\u0301", "-x", "a\nb", "a%20b", "end ", "\\x41"]
    later = ok(api.get(V11 + at(filled, "/elements/0")))["listing"]
    assert {key: [each["name"] for each in told] for key, told in later.items()} == listing
    assert all(isinstance(each[name], int) for each in later["d/odd"] for name in LATER_FILE)


def test_names_that_are_no_utf8(api: Api, site: int) -> None:
    filled = Filled(api.job(src_siteid=site, src_filepath="d")["id"])
    filled.element(0, Type.LIST, DONE, (DONE, "x"), src_filepath="d")
    filled.listing(0, folder("d", "plain\\"), {**folder(r"d/\xff", r"a\xfe\\"), "x": True})
    filled.element(1, Type.COPY, DONE, (DONE, "x"), src_filepath=r"d/\xff/a", dst_filepath="b", escaped=True)
    filled.count(num_done=2)
    for base in ("", V11):
        elements = ok(api.get(base + at(filled, "/elements")))
        assert ["escaped" in element for element in elements] == [False, True]
        assert elements[1]["escaped"] is True
    entries = ok(api.get(at(filled, "/elements/0/output")))["entries"]
    assert entries["d"] == [{"name": "plain\\", "st_size": 10, "st_mode": 33188, "st_mtime": 1332336900}]
    assert (entries[r"d/\xff"][0]["name"], entries[r"d/\xff"][0]["escaped"]) == (r"a\xfe\\", True)
    later = ok(api.get(V11 + at(filled, "/elements/0")))["listing"]
    assert later["d"] == [{"name": "plain\\", **LATER_FILE}]
    assert later[r"d/\xff"] == [{"name": r"a\xfe\\", **LATER_FILE, "escaped": True}]


def test_long_listings_are_left_out_of_the_list(api: Api, site: int) -> None:
    filled = Filled(api.job(src_siteid=site, src_filepath="d")["id"])
    for number, count in ((0, 10_000), (1, 10_001)):
        filled.element(number, Type.LIST, DONE, (DONE, "x"), src_filepath="d")
        filled.listing(number, folder("d", *(f"f{each}" for each in range(count))))
    filled.count(num_done=2)
    for base in ("", V11):
        short, long = ok(api.get(base + at(filled, "/elements")))
        assert (long["listing"], long["listing_count"], "listing_count" in short) == (None, 10_001, False)
        whole = [ok(api.get(base + at(filled, f"/elements/{number}")))["listing"] for number in (0, 1)]
        assert short["listing"] == whole[0]
        assert len(whole[1]["d"] if base else whole[1][0]["d"]) == 10_001
    assert [len(each["listing"]["d"]) for each in ok(api.get(at(filled, "/output")))] == [10_000, 10_001]


def test_listings_that_did_not_come_about(api: Api, site: int) -> None:
    filled = Filled(api.job(src_siteid=site)["id"])
    filled.element(0, Type.LIST, FAILED, (FAILED, "no"), (FAILED, "no"))
    filled.listing(0, folder("d", "a"))
    filled.element(1, Type.LIST, DONE, (FAILED, "no"), (DONE, "yes"), src_filepath="d")
    filled.listing(1, folder("d", "b"), attempt=2)
    filled.count(num_failed=1, num_done=1)
    first, second = ok(api.get(at(filled, "/elements")))
    assert (first["listing"], second["listing"]) == (None, [{"d": ["b"]}])
    told = ok(api.get(at(filled, "/output")))
    assert ["listing" in each for each in told] == [False, True]
    assert "listing" not in ok(api.get(at(filled, "/elements/1/output/1")))
