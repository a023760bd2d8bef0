"""Which text of a file is in the prompt, and in which order."""

from __future__ import annotations

import dataclasses

from c2l_lsp.engine.completion import prompt


def test_a_fim_prompt_has_both_sides_in_the_order_of_the_model(tiny):
    built = prompt.build(tiny, "a = 1\n", "b = 2\n", 200, 64)
    assert built.fim
    fim = tiny.fim
    assert built.ids == [fim.prefix, *tiny.encode("a = 1\n"), fim.suffix, *tiny.encode("b = 2\n"), fim.middle]


def test_with_a_blank_suffix_the_model_continues_the_prefix(tiny):
    built = prompt.build(tiny, "a = 1\n", "  \n", 200, 64)
    assert not built.fim
    assert built.ids == [tiny.start_id, *tiny.encode("a = 1\n")]


def test_a_model_without_fim_continues_the_prefix(tiny):
    plain = dataclasses.replace(tiny, fim=None)
    built = prompt.build(plain, "a = 1\n", "b = 2\n", 200, 64)
    assert built.ids == [tiny.start_id, *tiny.encode("a = 1\n")]


def test_the_prompt_stays_within_its_limit_and_keeps_the_text_nearest_to_the_cursor(tiny, sources):
    text = "\n".join(sources)
    for budget in (32, 100, 500):
        built = prompt.build(tiny, text[:50_000], text[50_000:90_000], budget, 64)
        assert len(built.ids) <= budget
        before = tiny.decode(built.ids[: built.ids.index(tiny.fim.suffix)]) + built.forced_prefix
        assert before.endswith(text[50_000 - budget // 16 : 50_000])


def test_the_suffix_stays_the_same_while_the_prefix_grows(tiny, sources):
    """If the suffix comes first, a change of its length would invalidate the KV cache of everything after it."""
    fim = dataclasses.replace(tiny.fim, order="joined")
    model = dataclasses.replace(tiny, fim=fim)
    before, after = "x = 1\n" * 60, "\n".join(sources)[:20_000]
    typed = "y = some_call(a, b, other_call(c)[0])"
    prompts = [prompt.build(model, before + typed[:size], after, 500, 64).ids for size in range(len(typed))]
    assert len({tuple(ids[: ids.index(fim.middle)]) for ids in prompts}) <= 2
    assert prompts[0][:2] == [fim.prefix, fim.suffix]


def test_a_prompt_does_not_end_inside_a_word(tiny):
    built = prompt.build(tiny, "value = other\nreturn val", "", 200, 64)
    assert (tiny.decode(built.ids[1:]), built.forced_prefix) == ("value = other\nreturn", " val")
    assert prompt.build(tiny, "return val", "", 200, 64, heal=False).forced_prefix == ""


def test_the_prompt_stays_within_the_context_of_the_model(tiny, sources):
    text = "\n".join(sources)
    built = prompt.build(tiny, text[:50_000], "", 10**6, 100)
    assert len(built.ids) <= tiny.max_context - 100


def test_typing_does_not_move_the_start_of_a_clipped_prompt(tiny, sources):
    text = "\n".join(sources)[:40_000]
    first = prompt.build(tiny, text, "", 300, 64).ids
    second = prompt.build(tiny, text + "abc", "", 300, 64).ids
    same = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
    assert same > len(first) * 0.9


def test_the_suffix_is_tokenised_once_while_the_user_types(tiny, monkeypatch):
    encoded: list[str] = []
    real = type(tiny).encode
    monkeypatch.setattr(type(tiny), "encode", lambda self, text: (encoded.append(text), real(self, text))[1])
    after = "\n\ndef last_of_all(x):\n    return x\n"
    prompts = [prompt.build(tiny, f"def first(a):\n    {typed}", after, 200, 16) for typed in ("re", "ret", "retu")]
    assert encoded.count(after) == 1
    assert all(tiny.decode(built.ids).find("last_of_all") > 0 for built in prompts)
    prompts[0].ids.clear()
    assert prompt.build(tiny, "x = ", after, 200, 16).ids  # the cached ids are not shared with the caller
