"""How the site lays out what pages write."""

import pytest

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'mmpt[docs]'")

from scripts.docs.site import on_page_content


def laid_out(html):
    return on_page_content(html, None, None, None)


def test_options_and_numbers_stay_on_one_line():
    assert laid_out("<code>mmpt train FILE --dryrun</code>") == (
        '<code>mmpt train FILE <span class="whole">--dryrun</span></code>'
    )
    assert laid_out("<td>1e-16</td>") == '<td><span class="whole">1e-16</span></td>'
    assert laid_out("<td>4.7 ± 1.2 / 6.1 ± 0.2</td>").count('<span class="whole">') == 2


def test_long_names_break_between_their_parts_and_blocks_of_code_are_left_alone():
    assert laid_out("<code>projects/toy/norton.yaml</code>") == (
        "<code>projects/<wbr>toy/<wbr>norton.<wbr>yaml</code>"
    )
    for same in ("<code>loss.compat=false</code>", "<pre><code>mmpt train FILE --dryrun\n</code></pre>"):
        assert laid_out(same) == same
