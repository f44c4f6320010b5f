"""What a request needs: amounts, types, and that equal requests and no others are one class."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queues.needs import MOST, MOST_INSTANCES, MOST_RESOURCES, amount, bound_to, digest, need_of, shown, total
from workers.vocabulary.errors import InvalidInput


@pytest.mark.parametrize(
    ("value", "thousandths"),
    [
        (0, 0),
        (1, 1000),
        (MOST, MOST * 1000),
        (2.5, 2500),
        (0.1, 100),
        (1e-7, 1),
        (0.0001, 1),
        (1e3, 1_000_000),
        (-0.0, 0),
        ("0", 0),
        ("-0", 0),
        ("+5", 5000),
        ("500m", 500),
        ("1.5", 1500),
        ("5.", 5000),
        (".5", 500),
        ("100u", 1),
        ("1n", 1),
        ("2000u", 2),
        ("1e3", 1_000_000),
        ("1E3", 1_000_000),
        ("1e-3", 1),
        ("1k", 1_000_000),
        ("1M", 10**9),
        ("1Ki", 1024_000),
        ("1Gi", 2**30 * 1000),
        ("1.5Gi", 3 * 2**29 * 1000),
        ("0.5Ti", 2**39 * 1000),
    ],
)
def test_an_amount(value: object, thousandths: int) -> None:
    """Catches: a suffix read wrongly, a float's binary tail, a need rounded down to nothing."""
    assert amount(value, "data.x") == thousandths


def test_what_there_is_is_rounded_down_and_what_is_needed_up() -> None:
    """Catches: a host that offers a thousandth more than it has."""
    assert amount("1.0005", "x") == 1001
    assert amount("1.0005", "x", up=False) == 1000
    assert amount("1n", "x", up=False) == 0


@pytest.mark.parametrize(
    "value",
    [
        -1, -0.5, "-1", "-500m", MOST + 1, 10**50, -(10**50), 1e300, float("inf"), float("-inf"),
        float("nan"), "1E", "2P", "1e99", "-1e-30", "9" * 30,
        pytest.param(10**5000, id="huge"), pytest.param(-(10**5000), id="minus huge"),
    ],
)  # fmt: skip
def test_an_amount_out_of_bounds(value: object) -> None:
    """Catches: a negative need that would create capacity, and a number that Python cannot even print."""
    with pytest.raises(InvalidInput, match=r"^data\.x: ") as refused:
        amount(value, "data.x")
    assert refused.value.field == "data.x"


@pytest.mark.parametrize(
    "value",
    [
        True, False, None, [], {}, "", " ", " 5", "5 ", "5\n", "abc", "1 Gi", "1gi", "Gi", ".", "-", "e3",
        "1e", "1e3Gi", "1e3k", "1.2.3", "0x10", "1_000", "nan", "inf", "Infinity", "\u0665", "1,5", "\x00",
    ],
)  # fmt: skip
def test_what_is_no_amount(value: object) -> None:
    """Catches: true read as 1, text that Decimal knows but Kubernetes does not, other scripts' digits."""
    with pytest.raises(InvalidInput, match=r"^data\.x: ") as refused:
        amount(value, "data.x")
    assert refused.value.field == "data.x"


@pytest.mark.parametrize("begin", ["1", ".", "0.0", "1.", "1e"])
@pytest.mark.parametrize("end", ["", "x", "!m"])
def test_a_long_text_is_refused_at_once(begin: str, end: str) -> None:
    """Catches: a pattern that takes a time which grows with the square of the length: 60 kB for minutes."""
    text = begin + begin[-1] * 60_000 + end
    began = time.perf_counter()
    with pytest.raises(InvalidInput) as refused:
        amount(text, "data.x")
    assert time.perf_counter() - began < 1
    assert len(refused.value.message) < 200


@given(st.decimals(0, 10**12, places=5))
def test_an_amount_is_never_below_what_was_asked(value: Decimal) -> None:
    """Catches: any rounding the wrong way; one thousandth is the most that is added."""
    found = amount(str(value), "x")
    assert 0 <= found - value * 1000 < 1
    assert 0 <= value * 1000 - amount(str(value), "x", up=False) < 1


@given(st.integers(0, MOST * 1000))
def test_what_is_shown_is_what_was_given(thousandths: int) -> None:
    """Catches: 2 shown as 2.0, and a fraction lost."""
    value = shown(thousandths)
    assert isinstance(value, int) == (thousandths % 1000 == 0)
    if thousandths < 10**15:  # a float has 15 digits
        assert amount(value, "x") == thousandths


def test_vm() -> None:
    """Absent is 0 and left out; equal instances are one size with a count; other keys are not looked at."""
    data = {
        "project": "p",
        "instances": [
            {"VCPU": 2, "Memory": 512, "Disk": 0},
            {"Memory": 512, "VCPU": 2.0, "flavor": "m1", "Disk": None},
            {"Disk": 1},
        ],
    }
    assert need_of("vm", data) == (
        (1, (("Disk", 1000),)),
        (2, (("Memory", 512_000), ("VCPU", 2000))),
    )


def test_kube() -> None:
    """Every key of a pod is a resource, quantities of one value are one size."""
    pods = [{"cpu": "500m", "memory": "1Gi"}, {"cpu": 0.5, "memory": 2**30}, {"nvidia.com/gpu": 1}]
    assert need_of("kube", {"namespace": "n", "pods": pods}) == (
        (1, (("nvidia.com/gpu", 1000),)),
        (2, (("cpu", 500), ("memory", 2**30 * 1000))),
    )


def test_another_type_is_a_map() -> None:
    """What is said beside the amounts is no amount."""
    data = {"licence": 2, "slots": 0, "host_aggregate": "a", "project": "p", "duration": 60}
    assert need_of("render", data) == ((1, (("licence", 2000),)),)


_VM = {"VCPU": 1}


@pytest.mark.parametrize(
    ("kind", "data", "field"),
    [
        ("vm", {}, "data.instances"),
        ("vm", {"instances": []}, "data.instances"),
        ("vm", {"instances": {}}, "data.instances"),
        ("vm", {"instances": "x"}, "data.instances"),
        ("vm", {"instances": [_VM] * (MOST_INSTANCES + 1)}, "data.instances"),
        ("vm", {"instances": [_VM, 5]}, "data.instances[1]"),
        ("vm", {"instances": [_VM, {}]}, "data.instances[1]"),
        ("vm", {"instances": [{"VCPU": 0, "Memory": 0}]}, "data.instances[0]"),
        ("vm", {"instances": [{"vcpu": 1}]}, "data.instances[0]"),
        ("vm", {"instances": [_VM, {"VCPU": -1}]}, "data.instances[1].VCPU"),
        ("vm", {"instances": [{"VCPU": 1, "Disk": True}]}, "data.instances[0].Disk"),
        ("vm", {"instances": [_VM], "project": 5}, "data.project"),
        ("vm", {"instances": [_VM], "duration": 0}, "data.duration"),
        ("vm", {"instances": [_VM], "duration": True}, "data.duration"),
        ("vm", {"instances": [_VM], "duration": float("nan")}, "data.duration"),
        ("vm", {"instances": [_VM], "duration": "60"}, "data.duration"),
        pytest.param("vm", {"instances": [_VM], "duration": 10**5000}, "data.duration", id="huge duration"),
        ("kube", {"instances": [_VM]}, "data.pods"),
        ("kube", {"pods": [{"cpu": "1x"}]}, "data.pods[0].cpu"),
        ("kube", {"pods": [{"": 1}]}, "data.pods[0]"),
        ("kube", {"pods": [{"n" * 65: 1}]}, "data.pods[0]"),
        ("kube", {"pods": [{str(n): 1 for n in range(MOST_RESOURCES + 1)}]}, "data.pods[0]"),
        ("render", {}, "data"),
        ("render", {"slots": 0}, "data"),
        ("render", {"slots": []}, "data.slots"),
    ],
)
def test_data_that_is_refused_names_its_field(kind: str, data: dict[str, Any], field: str) -> None:
    """Catches: an empty need, which would fit everywhere, and a message that leaves one searching."""
    with pytest.raises(InvalidInput) as refused:
        need_of(kind, data)
    assert refused.value.field == field
    assert refused.value.message.startswith(f"{field}: ")


def test_the_preset_aggregate() -> None:
    """Absent and null are any; a blank name is a mistake and not any."""
    assert bound_to({}) == bound_to({"host_aggregate": None}) == ""
    assert bound_to({"host_aggregate": "a-1"}) == "a-1"
    wrong: Any
    for wrong in ("", " ", 5, [], "x" * 256):
        with pytest.raises(InvalidInput) as refused:
            bound_to({"host_aggregate": wrong})
        assert refused.value.field == "data.host_aggregate"


_instances = st.lists(
    st.dictionaries(st.sampled_from(["VCPU", "Memory", "Disk"]), st.integers(0, 3), min_size=1).filter(
        lambda size: any(size.values())
    ),
    min_size=1,
    max_size=4,
)
_words = st.sampled_from(["", "a", "b", 'a"', "a,b"])


def _canonical(instances: list[dict[str, int]]) -> list[list[tuple[str, int]]]:
    return sorted(sorted((key, value) for key, value in each.items() if value) for each in instances)


@given(_instances, _instances, _words, _words, _words, _words)
def test_the_digest_is_equal_exactly_for_equal_requests(
    one: list[dict[str, int]], other: list[dict[str, int]], owner: str, owner2: str, bound: str, bound2: str
) -> None:
    """Catches: two classes taken for one (it would be admitted with the other's size), or one split."""
    mine = digest(owner, need_of("vm", {"instances": one}), bound)
    theirs = digest(owner2, need_of("vm", {"instances": other}), bound2)
    equal = (_canonical(one), owner, bound) == (_canonical(other), owner2, bound2)
    assert (mine == theirs) == equal
    assert mine == digest(owner, need_of("vm", {"instances": one[::-1]}), bound)


@given(_instances)
def test_the_total_is_the_sum_of_the_instances(instances: list[dict[str, int]]) -> None:
    """Catches: a count that is left out of a quota."""
    sums = {name: 1000 * sum(each.get(name, 0) for each in instances) for name in ("VCPU", "Memory", "Disk")}
    assert total(need_of("vm", {"instances": instances})) == {k: v for k, v in sums.items() if v}
