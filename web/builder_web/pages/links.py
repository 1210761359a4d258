"""The addresses of builder-web, made in one place."""

from functools import lru_cache
from urllib.parse import quote

from attrs import frozen

_IN_PATH = "/!$&'()*+,;=:@"  # what the original leaves as it is in the path of an artifact


@lru_cache(maxsize=4096)  # a page has the same names again and again
def _quote(text: str, safe: str = "") -> str:
    return quote(text.encode("utf-8", "surrogateescape"), safe=safe)


def _query(**parameters: str | int | None) -> str:
    given = [f"{name}={_quote(str(value))}" for name, value in parameters.items() if value not in {None, ""}]
    return "?" + "&".join(given) if given else ""


@frozen(kw_only=True)
class Links:
    """Makes addresses; names and paths may hold anything, and each is percent-encoded once."""

    prefix: str = ""
    """The path below which a proxy has this program, such as "/builds", without a slash at its end."""
    origin: str = ""
    """Scheme and host, such as "https://builds.example.org": for feeds and link previews. Empty: not known."""

    def whole(self, address: str) -> str:
        """Return an address of this class with scheme and host, as far as they are known."""
        return self.origin + address

    def home(self) -> str:
        """The first page."""
        return f"{self.prefix}/"

    def all_builds(self) -> str:
        """All jobs."""
        return f"{self.prefix}/all-builds"

    def failed_builds(self, *, platform: str | None = None, start: int | None = None, count: int | None = None) -> str:
        """What failed."""
        return f"{self.prefix}/failed-builds" + _query(count=count, start=start, platform=platform)

    def job(
        self,
        name: str,
        *,
        platform: str | None = None,
        failed: bool = False,
        start: int | None = None,
        count: int | None = None,
    ) -> str:
        """The builds of a job; with ``failed`` the failed ones among them."""
        path = f"{self.prefix}/job/{_quote(name)}" + ("/failed" if failed else "")
        return path + _query(platform=platform, start=start, count=count)

    def build(self, job: str, uuid: str) -> str:
        """A build."""
        return f"{self.prefix}/job/{_quote(job)}/build/{_quote(uuid)}"

    def artifact(self, job: str, uuid: str, path: str) -> str:
        """A file of a build."""
        return f"{self.build(job, uuid)}/f/{_quote(path, _IN_PATH)}"

    def below(self, rest: str) -> str:
        """What follows the address of a build, given as it is when it is decoded."""
        return f"/{_quote(rest, _IN_PATH)}" if rest else ""

    def archive(self, job: str, uuid: str) -> str:
        """All files of a build as one."""
        return f"{self.build(job, uuid)}/all.tar.gz"

    def provenance(self, job: str, uuid: str) -> str:
        """What was signed of a build."""
        return f"{self.build(job, uuid)}/provenance"

    def console_text(self, job: str, uuid: str) -> str:
        """What a build wrote, as plain text."""
        return f"{self.build(job, uuid)}/console"

    def console(
        self, job: str, uuid: str, *, line: int | None = None, query: str = "", start: int | None = None
    ) -> str:
        """What a build wrote, as a page: its end, from a line on, or the lines from ``start`` on that hold a text."""
        return f"{self.build(job, uuid)}/console/view" + _query(line=line, q=query, start=start)

    def script_text(self, job: str, uuid: str) -> str:
        """The script of a build, as plain text."""
        return f"{self.build(job, uuid)}/script"

    def script(self, job: str, uuid: str) -> str:
        """The script of a build, as a page."""
        return f"{self.build(job, uuid)}/script/view"

    def graph(self, job: str, uuid: str) -> str:
        """The dependency graph as a document of its own."""
        return f"{self.build(job, uuid)}/vizdependencies"

    def treemap(self, job: str, uuid: str) -> str:
        """The treemap of the binary as a document of its own."""
        return f"{self.build(job, uuid)}/viztreemap"

    def compare(self, left: str, right: str) -> str:
        """The comparison of two builds, by their UUIDs."""
        return f"{self.prefix}/compare/{_quote(left)}/{_quote(right)}"

    def hash(self, sha256: str, *, start: int | None = None, count: int | None = None) -> str:
        """Every build that has an artifact with this content."""
        return f"{self.prefix}/hash/{_quote(sha256)}" + _query(start=start, count=count)

    def search(self, query: str = "") -> str:
        """The search."""
        return f"{self.prefix}/search" + _query(q=query)

    def feed(self, *, job: str | None = None, platform: str | None = None, failures: bool = False) -> str:
        """The Atom feed of all builds, of a job's, of a platform's, of both's, or of what failed among them."""
        base = f"{self.prefix}/job/{_quote(job)}" if job is not None else self.prefix
        return base + ("/failed.atom" if failures else "/builds.atom") + _query(platform=platform)

    def badge(self, job: str, kind: str, *, platform: str | None = None) -> str:
        """An SVG badge of a job; ``kind`` is "status" or "reproducibility"."""
        return f"{self.prefix}/job/{_quote(job)}/{_quote(kind)}.svg" + _query(platform=platform)

    def static(self, name: str, digest: str) -> str:
        """A file of the style; the digest changes with its content, so that it may be kept for ever."""
        return f"{self.prefix}/static/{_quote(name)}" + _query(v=digest)
