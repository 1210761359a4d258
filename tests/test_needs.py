"""What jobs need: how it is written, the one text that equal needs have, and which workers meet them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import needs

from builder.errors import InvalidOptions
from builder.needs import (
    MAX_LABEL,
    MAX_NEEDS,
    Capabilities,
    InScript,
    Need,
    check_label,
    instead,
    of_script,
    of_text,
    text_of,
    together,
)

GIB = 1024**3
W3 = Capabilities.of(
    [("cores", "8"), ("memory", str(16 * GIB)), ("kvm", "yes"), ("sandbox", "overlay"), ("label.gpu", "")]
)


@pytest.mark.parametrize(
    ("said", "need", "canonical"),
    [
        ("kvm", Need(name="kvm"), "kvm"),
        ("big-disk", Need(name="big-disk"), "big-disk"),
        ("memory>=16G", Need(name="memory", least=16 * GIB), "memory>=16G"),
        ("memory>=16384M", Need(name="memory", least=16 * GIB), "memory>=16G"),
        ("memory>=1.5GiB", Need(name="memory", least=GIB * 3 // 2), "memory>=1536M"),
        ("memory>=1000", Need(name="memory", least=1000), "memory>=1000"),
        ("cores>=4", Need(name="cores", least=4), "cores>=4"),
        ("sandbox=overlay", Need(name="sandbox", value="overlay"), "sandbox=overlay"),
        ("root=sha256:0a", Need(name="root", value="sha256:0a"), "root=sha256:0a"),
    ],
)
def test_how_a_need_is_written(said: str, need: Need, canonical: str) -> None:
    assert Need.parse(said) == need
    assert str(need) == canonical


USAGE = "write NAME, memory>=SIZE, cores>=N or NAME=VALUE, such as kvm, memory>=16G or sandbox=overlay"


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("", f": {USAGE}"),
        ("memory>16G", f"memory>16G: {USAGE}"),
        ("a b", f"a b: {USAGE}"),
        ("-kvm", f"-kvm: {USAGE}"),
        ("kvm,gpu", f"kvm,gpu: {USAGE}"),
        ("k\x1bm", f"k\\x1bm: {USAGE}"),
        ("memory", "memory: write memory>=SIZE, such as memory>=16G"),
        ("memory=16G", "memory=16G: write memory>=SIZE, such as memory>=16G"),
        ("memory>=lots", "memory>=lots: write memory>=SIZE, such as memory>=16G"),
        ("memory>=0", "memory>=0: write memory>=SIZE, such as memory>=16G"),
        ("memory>=513T", "memory>=513T: no machine has so much: write memory>=SIZE, such as memory>=16G"),
        ("cores>=1.5", "cores>=1.5: write cores>=N, such as cores>=4"),
        ("sandbox", "sandbox: write sandbox=NAME, such as sandbox=overlay"),
        ("sandbox=", "sandbox=: write sandbox=NAME, such as sandbox=overlay"),
        ("sandbox>=overlay", f"sandbox>=overlay: only of cores and memory one can ask for so much; {USAGE}"),
        ("kvm=yes", "kvm=yes: kvm has no value to ask for: write kvm alone"),
        ("n" * 51, f"{'n' * 51}: a label has at most {MAX_LABEL} characters"),
    ],
)
def test_what_is_no_need_and_what_to_write(said: str, complaint: str) -> None:
    with pytest.raises(InvalidOptions) as raised:
        Need.parse(said)
    assert str(raised.value) == complaint


@given(needs)
def test_a_need_is_read_as_it_is_written(need: Need) -> None:
    assert Need.parse(str(need)) == need


@given(st.text(max_size=30))
def test_any_text_is_a_need_or_refused_in_one_line(said: str) -> None:
    try:
        outcome = str(Need.parse(said))
    except InvalidOptions as error:
        outcome = str(error)
    else:
        assert str(Need.parse(outcome)) == outcome
    assert outcome.isprintable()


def test_needs_together() -> None:
    said = ("kvm", "memory>=2G", "cores>=4", "memory>=4G", "kvm")
    assert text_of(together(map(Need.parse, said))) == "cores>=4 kvm memory>=4G"
    with pytest.raises(InvalidOptions, match="no worker has both sandbox=jail and sandbox=none: write one of them"):
        together(map(Need.parse, ("sandbox=jail", "sandbox=none")))
    many = [Need(name=f"label{number}") for number in range(MAX_NEEDS)]
    assert len(together(many)) == MAX_NEEDS
    with pytest.raises(InvalidOptions, match="at most 32 needs"):
        together([*many, Need(name="kvm")])


@given(st.lists(needs, max_size=8), st.randoms(use_true_random=False))
def test_equal_needs_are_equal_texts(found: list[Need], random: st.DataObject) -> None:
    try:
        once = together(found)
    except InvalidOptions:
        return
    random.shuffle(found)  # type: ignore[attr-defined]
    assert together(found) == once == together(once)
    assert of_text(text_of(once)) == once


@pytest.mark.parametrize(
    ("said", "lacking"),
    [
        ("", ""),
        ("kvm gpu cores>=8 memory>=16G sandbox=overlay", ""),
        ("cores>=9 kvm memory>=32G sandbox=jail tape", "cores>=9 memory>=32G sandbox=jail tape"),
        ("arch=x86_64", "arch=x86_64"),
    ],
)
def test_what_a_worker_lacks(said: str, lacking: str) -> None:
    assert text_of(W3.lacks(of_text(said))) == lacking
    assert text_of(Capabilities().lacks(of_text(said))) == said  # a classic worker tells nothing


ODD = Capabilities.of([("memory", "1e9"), ("cores", "٣"), ("arch", "\n"), ("label. ", "")])


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("memory>=64G", "memory>=16G"),
        ("cores>=9", "cores>=8"),
        ("sandbox=overlai", "sandbox=overlay"),
        ("kmv", "kvm"),
        ("gpus", "gpu"),
        ("big-disk", None),
        ("arch=arm64", None),
    ],
)
def test_what_comes_nearest_to_a_need_that_nobody_meets(said: str, found: str | None) -> None:
    (need,) = of_text(said)
    nearest = instead(need, [Capabilities(), W3])
    assert (nearest and str(nearest)) == found
    assert instead(need, [ODD]) is None
    assert instead(need, []) is None


def test_memory_is_said_as_people_write_it() -> None:
    (need,) = of_text("memory>=64G")
    assert str(instead(need, [Capabilities.of([("memory", str(16 * GIB + 4097))])])) == "memory>=16G"


def test_nonsense_of_a_worker_meets_nothing() -> None:
    odd = Capabilities.of([("cores", "many"), ("memory", "\N{SUPERSCRIPT TWO}"), ("kvm", "no"), ("gpu", "yes")])
    assert text_of(odd.lacks(of_text("cores>=1 gpu kvm memory>=1"))) == "cores>=1 gpu kvm memory>=1"


@given(st.lists(needs, max_size=6))
def test_who_has_what_is_needed_lacks_nothing(found: list[Need]) -> None:
    try:
        wanted = together(found)
    except InvalidOptions:
        return
    facts = [
        (need.name, str(need.least) if need.least is not None else need.value)
        if need.name in ("cores", "memory") or need.value is not None
        else (f"label.{need.name}", "")
        for need in wanted
    ]
    able = Capabilities.of((name, value or "") for name, value in facts)
    assert able.lacks(wanted) == ()
    for need in wanted:
        assert Capabilities(frozenset(pair for pair in able.facts if need.name not in pair[0])).lacks([need]) == (need,)


def test_what_a_script_needs() -> None:
    script = b"#!/bin/sh\n# builder: needs=kvm,memory>=2G timeout=1h\n\n#builder: needs=cores>=4\nmake\n# builder: needs=gpu\n"
    assert text_of(of_script(script).needs) == "cores>=4 kvm memory>=2G"


def test_mistakes_of_a_script_are_told_with_their_lines() -> None:
    found = of_script(b"# builder: needs=kvm,cores=4\n# builder: needs=\n")
    assert found.needs == (Need(name="kvm"),)
    assert found.mistakes == (
        "line 1 of the script: cores=4: write cores>=N, such as cores>=4",
        f"line 2 of the script: : {USAGE}",
    )


@given(st.binary(max_size=200))
def test_any_script_is_read(script: bytes) -> None:
    assert isinstance(of_script(b"# builder: needs=" + script), InScript)


def test_labels() -> None:
    assert check_label("big-disk") == "big-disk"
    for wrong, complaint in (("kvm", "choose another name"), ("a b", "write up to 50"), ("", "write up to 50")):
        with pytest.raises(InvalidOptions, match=complaint):
            check_label(wrong)
