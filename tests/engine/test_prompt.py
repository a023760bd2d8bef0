"""What of a file goes into the prompt."""

from __future__ import annotations

import dataclasses

from c2l_lsp.engine import prompt


def test_both_sides_in_the_models_order(tiny):
    built = prompt.build(tiny, "a = 1\n", "b = 2\n", 200, 64)
    assert built.fim
    fim = tiny.fim
    assert built.ids == [fim.prefix, *tiny.encode("a = 1\n"), fim.suffix, *tiny.encode("b = 2\n"), fim.middle]


def test_nothing_behind_the_cursor_is_plain_continuation(tiny):
    built = prompt.build(tiny, "a = 1\n", "  \n", 200, 64)
    assert not built.fim
    assert built.ids == [tiny.start, *tiny.encode("a = 1\n")]


def test_a_model_without_fim_gets_the_prefix(tiny):
    plain = dataclasses.replace(tiny, fim=None)
    built = prompt.build(plain, "a = 1\n", "b = 2\n", 200, 64)
    assert built.ids == [tiny.start, *tiny.encode("a = 1\n")]


def test_the_budget_holds_and_the_nearest_text_stays(tiny, sources):
    text = "\n".join(sources)
    for budget in (32, 100, 500):
        built = prompt.build(tiny, text[:50_000], text[50_000:90_000], budget, 64)
        assert len(built.ids) <= budget
        assert tiny.decode(built.ids[: built.ids.index(tiny.fim.suffix)]).endswith(text[49_990:50_000])


def test_the_models_own_limit_holds(tiny, sources):
    text = "\n".join(sources)
    built = prompt.build(tiny, text[:50_000], "", 10**6, 100)
    assert len(built.ids) <= tiny.max_context - 100


def test_typing_keeps_the_beginning_of_a_clipped_prompt(tiny, sources):
    text = "\n".join(sources)[:40_000]
    first = prompt.build(tiny, text, "", 300, 64).ids
    second = prompt.build(tiny, text + "abc", "", 300, 64).ids
    same = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
    assert same > len(first) * 0.9
