"""Every page, also of hostile and of very many things: well-formed HTML with nothing inline, and the texts that must be there."""

import re
import time
from collections.abc import Iterator
from itertools import pairwise
from xml.etree import ElementTree as ET

import examples
import html5lib
import pytest
from attrs import evolve

from builder.model import Instant
from builder_web.pages import models, render, render_feed
from builder_web.pages.links import Links
from builder_web.pages.parts import Paging
from builder_web.pages.statics import STATIC_FILES

PAGES = examples.ordinary() | examples.hostile()
LINKS = Links(prefix="/builds", origin="https://builds.example.org")


def parsed(html: str) -> ET.Element:
    """Return the document; raises at the first thing that is not well-formed."""
    parser = html5lib.HTMLParser(tree=html5lib.getTreeBuilder("etree"), strict=True, namespaceHTMLElements=False)
    return parser.parse(html)  # type: ignore[no-any-return]


def shown(element: ET.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def links(element: ET.Element) -> list[str]:
    return [anchor.attrib["href"] for anchor in element.iter("a")]


def page(name: str) -> ET.Element:
    return parsed(render(PAGES[name], links=Links()))


@pytest.fixture(scope="module", params=PAGES)
def document(request: pytest.FixtureRequest) -> ET.Element:
    html = render(PAGES[request.param], links=LINKS)
    html.encode()  # no lone surrogates are left
    return parsed(html)


def test_nothing_is_inline_and_nothing_from_elsewhere(document: ET.Element) -> None:
    for element in document.iter():
        assert "style" not in element.attrib
        assert not [name for name in element.attrib if name.startswith("on")]
        if element.tag == "script":
            assert not shown(element)
            assert element.attrib["src"].startswith("/builds/static/")
        assert element.tag not in {"style", "img", "object", "embed"}
        for name in ("src", "href", "action"):
            address = element.attrib.get(name, "/builds/")
            assert address.startswith(
                ("/builds/", "#", "https://builds.example.org/builds/", "https://docs.example.org/")
            ), address


def test_headings_and_landmarks_come_in_order(document: ET.Element) -> None:
    levels = [int(element.tag[1]) for element in document.iter() if re.fullmatch("h[1-6]", str(element.tag))]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    assert [len(list(document.iter(tag))) for tag in ("main", "header", "footer")] == [1, 1, 1]


def test_ids_are_there_once_and_anchors_lead_to_them(document: ET.Element) -> None:
    ids = [element.attrib["id"] for element in document.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    assert {address[1:] for address in links(document) if address.startswith("#")} <= set(ids)
    for element in document.iter():
        if "aria-labelledby" in element.attrib:
            assert element.attrib["aria-labelledby"] in ids


def test_a_page_says_what_it_is(document: ET.Element) -> None:
    title = document.find("head/title")
    assert title is not None
    assert shown(title)
    meta = {
        element.attrib.get("name") or element.attrib.get("property"): element.attrib.get("content")
        for element in document.iter("meta")
    }
    assert " ".join((meta["og:title"] or "").split()) == shown(title)
    assert meta["description"] == meta["og:description"]
    assert document.attrib["lang"] == "en"


def test_crawlers_are_kept_from_comparisons(document: ET.Element) -> None:
    for anchor in document.iter("a"):
        if anchor.attrib["href"].startswith("/builds/compare/") and "aria-current" not in anchor.attrib:
            assert anchor.attrib.get("rel") == "nofollow"


@pytest.mark.parametrize(
    ("name", "title", "crumbs"),
    [
        ("main", "Reproducible OPAM builds", ["/"]),
        ("all-builds", "Reproducible OPAM builds", ["/"]),
        ("failed-builds", "Failed builds", ["/"]),
        ("job", "Job hello-hvt ", ["/", "/job/hello-hvt", "/job/hello-hvt"]),
        (
            "build",
            "Job hello-hvt 2026-11-26 12:00:00Z",
            [
                "/",
                "/job/hello-hvt",
                "/job/hello-hvt?platform=debian-12",
                "/job/hello-hvt/build/9c1ca7b4-3f43-56d3-96d4-03ae65d4c1d6",
            ],
        ),
    ],
)
def test_titles_and_breadcrumbs_are_those_of_the_original(name: str, title: str, crumbs: list[str]) -> None:
    html = render(PAGES[name], links=Links())
    assert f"<title>{title}</title>" in html
    [trail] = [nav for nav in parsed(html).iter("nav") if nav.attrib.get("aria-label") == "Breadcrumb"]
    assert [re.sub("[0-9a-f-]{36}", "U", address) for address in links(trail)] == [
        re.sub("[0-9a-f-]{36}", "U", address) for address in crumbs
    ]


def test_the_first_page_leads_to_jobs_builds_and_files() -> None:
    document = page("main")
    [main] = document.iter("main")
    state = examples.sections()[0].jobs[0].platforms[0]
    assert state.newest is not None
    build = f"/job/dns-primary/build/{state.newest.uuid}"
    found = links(main)
    start = found.index("/job/dns-primary/")
    assert found[start : start + 4] == [
        "/job/dns-primary/",
        "/job/dns-primary?platform=debian-12",
        build,
        f"{build}/f/bin/dns-primary.hvt",
    ]
    assert found[-2:] == ["/failed-builds", "/all-builds"]
    assert "Failed lately" in shown(main)
    assert "execution aborted: timeout after 2 h without output" in shown(main)


def test_a_job_without_a_successful_build_is_shown_as_such() -> None:
    failed = examples.build(output=None)
    state = models.JobOnPlatform(platform="debian-12", newest=None, failed=failed)
    section = models.JobSection(name="Packages", jobs=(models.JobState(name="x", synopsis=None, platforms=(state,)),))
    assert "never succeeded" in render(models.AllBuildsPage(sections=(section,)), links=Links())


def test_paging_keeps_platform_and_failed_builds() -> None:
    paging = Paging(start=20, count=20, total=99, more=True)
    job = evolve(examples.job_page(), platform="a b&c", paging=paging)
    found = links(parsed(render(job, links=Links())))
    assert "/job/hello-hvt/failed?platform=a%20b%26c&start=40&count=20" in found
    assert "/job/hello-hvt/failed?platform=a%20b%26c&start=0&count=20" in found
    failed = models.FailedBuildsPage(
        builds=examples.failures(), platform="freebsd-14", paging=Paging(start=0, count=3, more=True)
    )
    assert "/failed-builds?count=3&start=3&platform=freebsd-14" in links(parsed(render(failed, links=Links())))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("build", "Reproduced. Built 14 times, by 3 different inputs, always the same output."),
        ("build", "Reproduced by 13 builds"),
        ("build", "solo5 hvt, ABI 2: block device “storage”, net device “service”"),
        ("build-once", "Built once. No other build confirms this output, and none contradicts it."),
        (
            "build-different",
            "Not reproducible: the same input gave a different output in 2 builds. 14 builds have the output of this one.",
        ),
        ("build-different", "Same input, different output (not reproducible!)"),
        ("build-failed", "Failed: exited 2. No main binary came out of it."),
        ("comparison", "Different output from different inputs."),
        ("comparison", "First difference at byte 4\u202f182 (0x1056)."),
        ("comparison", "86 opam packages are the same on both sides."),
        ("comparison", "1 opam file with changes that do not matter for the build"),
        ("comparison-equal", "Same output from the same input."),
        ("failed-builds-none", "No failed builds to list"),
        ("search-nothing", "Nothing matches."),
        ("console-empty", "It wrote nothing."),
        ("error-404", "There is no job named “hallo”."),
    ],
)
def test_what_a_page_says_in_words(name: str, words: str) -> None:
    assert " ".join(words.split()) in shown(page(name))


def test_a_build_that_was_not_reproduced_leads_to_the_comparison() -> None:
    model = PAGES["build-different"]
    assert isinstance(model, models.BuildPage)
    assert model.reproduction is not None
    [verdict] = [
        element for element in page("build-different").iter("div") if "verdict" in element.attrib.get("class", "")
    ]
    assert links(verdict) == [f"/compare/{model.reproduction.different[0].uuid}/{model.build.uuid}"]


def test_a_job_leads_from_each_output_to_what_changed() -> None:
    job = PAGES["job"]
    assert isinstance(job, models.JobPage)
    debian = [entry.build.uuid for entry in job.entries if entry.build.platform == "debian-12"]
    assert [address for address in links(page("job")) if "/compare/" in address] == [
        f"/compare/{debian[1]}/{debian[0]}"
    ]


def test_the_anchors_of_a_comparison_are_those_of_the_original() -> None:
    found = [address for address in links(page("comparison")) if address.startswith("#")]
    assert [address for address in found if address not in {"#content", "#artifacts"}] == [
        "#opam-packages-removed",
        "#opam-packages-installede",
        "#opam-packages-version-diff",
        "#duniverse-dirs-content-diff",
        "#opam-packages-opam-diff",
        "#env-removed",
        "#env-added",
        "#env-changed",
    ]


def test_ten_thousand_builds_make_a_page_in_time() -> None:
    entries = tuple(models.JobEntry(build=examples.build(hours=hours)) for hours in range(10_000))
    job = evolve(examples.job_page(), entries=entries)
    start = time.process_time()
    html = render(job, links=LINKS)
    assert time.process_time() - start < 5
    assert html.count("<time ") == 10_000


def feeds() -> Iterator[models.Feed]:
    for job, platform in ((None, None), ("hello-hvt", None), (examples.NASTY, "debian-12")):
        for failures in (False, True):
            builds = (examples.build(job or "x"), *examples.failures())
            yield models.Feed(
                job=job, platform=platform, failures=failures, updated=Instant(examples.NOW), builds=builds
            )


@pytest.mark.parametrize("feed", list(feeds()))
def test_a_feed_is_atom_with_whole_addresses(feed: models.Feed) -> None:
    root = ET.fromstring(render_feed(feed, links=LINKS).encode())
    atom = "{http://www.w3.org/2005/Atom}"
    assert root.tag == f"{atom}feed"
    assert all(
        link.attrib["href"].startswith("https://builds.example.org/builds/") for link in root.iter(f"{atom}link")
    )
    assert [root.findtext(f"{atom}{name}") is not None for name in ("title", "id", "updated")] == [True] * 3
    entries = root.findall(f"{atom}entry")
    assert len(entries) == 4
    assert all(entry.findtext(f"{atom}id", "").startswith("urn:uuid:") for entry in entries)


def test_static_files_have_addresses_that_change_with_them() -> None:
    html = render(PAGES["main"], links=LINKS)
    for name, file in STATIC_FILES.items():
        assert f"/builds/static/{name}?v={file.digest}" in html
        assert file.content
