# SPDX-License-Identifier: Apache-2.0
"""Formulas become MathML while the site is built: no script and no network to read them."""

import html
import re
import unicodedata

from latex2mathml.converter import convert

FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\s*'
    r"(?:\\\((?P<inline>.*?)\\\)|\\\[(?P<block>.*?)\\\])\s*</(?P=tag)>",
    re.DOTALL,
)
STYLED = re.compile(r'<mi mathvariant="(?P<style>script|double-struck|bold)">(?P<letter>\w)</mi>')
BAR = '<mo stretchy="false">&#x0007C;</mo>'


def on_page_content(content, **_):
    """The page with every formula as MathML; a formula that cannot be read stops the build."""
    return FORMULA.sub(_mathml, content)


def _mathml(found):
    block = found["block"] is not None
    source = html.unescape(found["block"] if block else found["inline"]).strip()
    formula = convert(source, display="block" if block else "inline")
    formula = STYLED.sub(_letter, formula)
    # A bar is a norm's fence here; browsers take it for a relation and set it apart.
    formula = formula.replace(BAR, BAR.replace("<mo ", '<mo form="prefix" lspace="0" rspace="0" '))
    return f'<div class="formula">{formula}</div>' if block else formula


def _letter(found):
    """Browsers know no styles of letters but have the letters themselves."""
    letter, style = found["letter"], found["style"].upper()
    name = f"{style} {'CAPITAL' if letter.isupper() else 'SMALL'} {letter.upper()}"
    for candidate in (f"MATHEMATICAL {name}", name):
        try:
            return f'<mi mathvariant="normal">{unicodedata.lookup(candidate)}</mi>'
        except KeyError:
            continue
    return found[0]
