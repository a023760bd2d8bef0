"""Which text of a file is in the prompt, and in which order."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

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
        before = tiny.decode(tiny.fim.text_before(built.ids)) + built.forced_prefix
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


def typed_one_by_one(model, before: str, typed: str, after: str, budget: int = 500) -> list[prompt.Prompt]:
    anchors = prompt.Anchors()
    texts = [before + typed[:size] for size in range(len(typed) + 1)]
    return [prompt.build(model, text, after, budget, 64, anchors=anchors, document="a.py") for text in texts]


TYPED = "    total = first(a)\n    if total > 3:\n        return total\n\n    return second(b, c)\n"


LINES = 108


def tokens_a_key(tiny, order, lines):
    """The tokens that each key of TYPED costs behind so many lines of a long document."""
    model = dataclasses.replace(tiny, fim=dataclasses.replace(tiny.fim, order=order))
    before, after = ("".join(f"{name}_{n} = {name}({n})\n" for n in range(lines)) for name in ("first", "second"))
    prompts = typed_one_by_one(model, before + "\ndef f(a, b, c):\n", TYPED, after)
    keys = []
    for last, built in itertools.pairwise(prompts):
        assert built.fim
        shared = next((i for i, (a, b) in enumerate(zip(last.ids, built.ids, strict=False)) if a != b), len(last.ids))
        keys.append(len(built.ids) - min(shared, len(built.ids) - 1))
    assert 300 <= len(built.ids) <= 500, "the prompt is clipped"
    return keys


@pytest.mark.parametrize("order", ["psm", "spm", "joined"])
def test_a_key_appends_to_the_prompt_in_every_order(tiny, order):
    """Lines that are typed stay behind the anchor: no prompt reads the suffix, or a line before, again."""
    assert sum(tokens_a_key(tiny, order, LINES)) <= 1.5 * len(TYPED)  # the last token is always computed


@pytest.mark.parametrize("order", ["psm", "spm", "joined"])
def test_the_start_of_a_clipped_prompt_moves_seldom(tiny, order):
    """With an anchor it never moves while the user types, else in blocks: then a key reads the prompt again."""
    moved = [cost > 20 for more in range(16) for cost in tokens_a_key(tiny, order, LINES + more)]
    assert sum(moved) <= (0 if order == "psm" else 0.02 * len(moved)), sum(moved) / len(moved)


@pytest.mark.parametrize("size", [0, 7, 20, 21, 50, len(TYPED)])
def test_an_anchored_prompt_holds_the_text_before_the_cursor(tiny, size):
    before, after = "import a\n\n\ndef f(a, b, c):\n", "\n\ndef g():\n    return 1\n"
    built = typed_one_by_one(tiny, before, TYPED[:size], after)[-1]
    assert tiny.decode(tiny.fim.text_before(built.ids)) + built.forced_prefix == before + TYPED[:size]
    ids = built.ids
    assert tiny.decode(ids[ids.index(tiny.fim.suffix) + 1 : ids.index(tiny.fim.middle)]) == after


@pytest.mark.parametrize("edit", ["before", "after", "budget", "document"])
def test_an_edit_elsewhere_moves_the_anchor(tiny, edit):
    """What a prompt holds is always the document as it is."""
    anchors, before, after, budget, document = prompt.Anchors(), "import a\n\nx = 1\n", "\ny = 2\n", 500, "a.py"
    prompt.build(tiny, before + "one\ntwo", after, budget, 64, anchors=anchors, document=document)
    if edit == "before":
        before = "import abc\n\nx = 1\n"
    elif edit == "after":
        after = "\ny = 3\n"
    elif edit == "budget":
        budget = 100
    else:
        document = "b.py"
    built = prompt.build(tiny, before + "one\ntwo", after, budget, 64, anchors=anchors, document=document)
    assert built == prompt.build(tiny, before + "one\ntwo", after, budget, 64)
    assert len(built.ids) <= budget


def test_a_long_typed_text_moves_the_anchor(tiny):
    prompts = typed_one_by_one(tiny, "x = 1\n", "y = 22\n" * 60, "\nz = 3\n", 200)
    middles = [len(built.ids) - built.ids.index(tiny.fim.middle) - 1 for built in prompts]
    assert max(middles) <= 196 // 5
    assert sum(a > b for a, b in itertools.pairwise(middles)) < 30  # not at every line
    assert all(len(built.ids) <= 200 for built in prompts)


def test_a_line_without_end_is_read_before_the_suffix(tiny):
    built = prompt.build(tiny, "x = [" + "1, 2, " * 200, "\ny = 3\n", 300, 64)
    assert built.ids[-1] == tiny.fim.middle
    assert len(built.ids) <= 300


def test_documents_are_forgotten_in_the_order_of_their_anchors(tiny):
    anchors = prompt.Anchors()
    for number in range(40):
        prompt.build(tiny, f"x = {number}\n", "\ny = 2\n", 100, 64, anchors=anchors, document=str(number))
    assert anchors.get("0") is None
    assert anchors.get("39") is not None
