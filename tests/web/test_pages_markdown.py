"""READMEs: what stays of them, and that the rest can do no harm."""

import time

import html5lib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder_web.pages.markdown import to_html


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# One\n## Two", "<h3>One</h3>\n<h4>Two</h4>\n"),
        ("### Deep\n# High\n###### Low", "<h3>Deep</h3>\n<h3>High</h3>\n<h4>Low</h4>\n"),
        ("[x](https://a.example.org/)", '<p><a href="https://a.example.org/" rel="nofollow noopener">x</a></p>\n'),
        ("<a@example.org>", '<p><a href="mailto:a@example.org" rel="nofollow noopener">a@example.org</a></p>\n'),
        ("[x](javascript:alert(1))", "<p>x</p>\n"),
        ("[x](JaVaScRiPt:alert(1))", "<p>x</p>\n"),
        ("[x](data:text/html,hi) [y](../other) [z](#a) [w](//a.example.org)", "<p>x y z w</p>\n"),
        ("<b onclick=x>hi</b>", "<p>&lt;b onclick=x&gt;hi&lt;/b&gt;</p>\n"),
        ("<script>\nalert(1)\n</script>", "<p>&lt;script&gt;\nalert(1)\n&lt;/script&gt;</p>\n"),
        (
            "![alt *text*](https://a.example.org/i.png)",
            '<p><a href="https://a.example.org/i.png" rel="nofollow noopener">alt text</a></p>\n',
        ),
        ("![](local.png)", "<p>local.png</p>\n"),
        (
            "[![badge](https://a.example.org/b.svg)](https://a.example.org/)",
            '<p><a href="https://a.example.org/" rel="nofollow noopener">badge</a></p>\n',
        ),
        ("[x](http://[bad)", None),
        ("a\r\nb", "<p>a\nb</p>\n"),
        ("\u202eturned \udcff", "<p>\\u202eturned \\xff</p>\n"),
        ("| a |\n| - |\n| b |", None),
    ],
)
def test_a_readme_becomes_html(text: str, expected: str | None) -> None:
    html = to_html(text)
    html.encode()
    html5lib.HTMLParser(strict=True).parseFragment(html)
    if expected is not None:
        assert html == expected


@given(st.text(alphabet="[]()<>!*_`#|&:\"'\\\n -ax", max_size=200))
def test_no_text_makes_other_elements(text: str) -> None:
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parseFragment(to_html(text))
    for element in tree.iter():
        assert element.tag not in {"script", "style", "img", "iframe", "input", "h1", "h2"}
        assert set(element.attrib) <= {"href", "rel", "class", "title"}


@pytest.mark.parametrize("text", ["[", "![", "*a ", "> ", "- ", "`", "<a", "|a", "a\n\n", "[a](", "**_", "&#", "\\"])
def test_a_hostile_readme_takes_no_time(text: str) -> None:
    start = time.process_time()
    html = to_html(text * 1_000_000)
    assert time.process_time() - start < 10
    assert len(html) < 5_000_000
