"""Links of pages: only to the web where a manifest names them, only below the page's folder where a file does."""

from urllib.parse import unquote, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.html_page import relative_link, web_link

URL = "https://example.org/data"


@pytest.mark.parametrize(("url", "link"), [(URL, URL), ("javascript:alert(1)", ""), ("", ""), ("ftp://x", "")])
def test_only_web_addresses_become_links(url, link):
    assert web_link(url) == link


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1))
def test_a_browser_looks_for_a_file_of_any_name_below_the_page(name):
    link = relative_link(f"case/{name}.png")
    assert urlsplit(link) == ("", "", link, "", "")
    there = urlsplit(urljoin("https://host.example/out/page.html", link))
    assert (there.scheme, there.netloc, there.query, there.fragment) == ("https", "host.example", "", "")
    assert unquote(there.path) == f"/out/case/{name}.png"
