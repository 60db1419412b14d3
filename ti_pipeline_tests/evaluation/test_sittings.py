import itertools
from collections import Counter
from pathlib import Path

import pandas as pd
from upath import UPath

from ti_pipeline.evaluation.sittings import Question, Sitting, contenders, pair_questions, sheet_questions
from ti_pipeline.evaluation.votes import VoteBook, gathered_votes

NAMES = ["a-2", "b-2", "c-2"]


def images() -> pd.DataFrame:
    rows = itertools.product("abc", (1, 2), ("wolf", "lion", "bear"), (6, 7))
    return pd.DataFrame(
        [
            {
                "cell": f"{variant}{step}{value}{seed}",
                "variant": variant,
                "checkpoint": f"{variant}-{step}",
                "step": step,
                "axis": "species",
                "value": value,
                "seed": seed,
                "sampler": "DDIM",
                "steps": 20,
                "cfg": 7.0,
                "size": 64,
                "path": "x.png",
                "prompt": f"my-{variant}, {value}",
                "token": f"my-{variant}",
            }
            for variant, step, value, seed in rows
        ]
    )


def questions(rater: str = "kim", count: int = 12):
    return pair_questions(images(), NAMES, seed=3, rater=rater, count=count)


def sitting(place: Path, asked, rater: str = "kim") -> Sitting:
    folder = UPath(place)
    votes = gathered_votes(folder)
    return Sitting(asked, VoteBook(folder, rater), votes[votes.rater == rater])


def test_pairs_are_of_one_prompt_and_seed_and_every_two_checkpoints_meet_as_often() -> None:
    found = questions()
    for question in found:
        left, right = question.pictures
        assert (left.value, left.seed) == (right.value, right.seed)
        assert left.checkpoint != right.checkpoint
    meetings = Counter(frozenset(one.checkpoint for one in question.pictures) for question in found)
    assert sorted(meetings.values()) == [4, 4, 4]
    assert len({question.cells for question in found}) == 12
    assert len(questions(count=100)) == 3 * 6, "no question twice"


def test_raters_get_the_same_questions_in_an_order_and_with_sides_of_their_own() -> None:
    kim, again, sam = questions(), questions(), questions("sam")
    assert kim == again
    assert {question.cells for question in kim} == {question.cells for question in sam}
    assert [question.cells for question in kim] != [question.cells for question in sam]
    sides = [{question.cells: question.pictures[0].cell for question in found} for found in (kim, sam)]
    assert any(sides[0][cells] != sides[1][cells] for cells in sides[0])
    assert 0 < sum(question.pictures[0].checkpoint == "a-2" for question in kim) < 8, "no checkpoint keeps one side"


def test_a_sheet_has_all_pictures_of_one_checkpoint_and_axis() -> None:
    sheets = sheet_questions(images(), NAMES, seed=3, rater="kim")
    assert len(sheets) == 3
    for sheet in sheets:
        assert len({one.checkpoint for one in sheet.pictures}) == 1
        assert len(sheet.pictures) == 6


def test_the_best_of_each_variant_meet_and_the_last_ones_while_nobody_knows() -> None:
    board = pd.DataFrame(
        {"axis": "overall", "variant": [*"abca"], "checkpoint": ["a-1", "b-2", "c-9", "a-2"], "rank": [1, 2, 3, 4]}
    )
    assert contenders(images(), board) == ["a-1", "b-2", "c-2"]
    assert contenders(images(), None) == NAMES
    one = images().query("variant == 'a'")
    assert contenders(one, board) == ["a-1", "a-2"]


def answer(one: Sitting, said: object) -> None:
    one.answer(said, asked=one.current.name if one.current else "")


def test_answers_are_kept_undone_put_off_and_gone_on_with(tmp_path: Path) -> None:
    asked = questions()
    first = sitting(tmp_path, asked)
    assert first.current == asked[0]
    answer(first, "first")
    first.skip()
    assert first.current == asked[2]
    answer(first, "tie")
    answer(first, "second")
    first.undo()
    assert first.current == asked[3]
    assert first.progress == (2, 12)
    # As after a kill: nothing but the files.
    again = sitting(tmp_path, asked)
    assert again.progress == (2, 12)
    assert again.current == asked[1]
    again.undo()
    again.undo()
    again.undo()
    assert again.progress == (0, 12)
    assert gathered_votes(UPath(tmp_path)).empty
    for _ in asked:
        answer(again, "first")
    assert again.current is None
    answer(again, "first")
    table = gathered_votes(UPath(tmp_path))
    shown = {tuple(one.cell for one in question.pictures) for question in asked}
    assert len(table) == 12
    assert set(zip(table.first_cell, table.second_cell, strict=True)) == shown


def test_a_sheets_ticks_are_mismatches_and_one_that_was_drawn_anew_is_asked_again(tmp_path: Path) -> None:
    sheets = sheet_questions(images(), NAMES, seed=3, rater="kim")
    one = sitting(tmp_path, sheets)
    wrong = {sheets[0].pictures[1].cell, sheets[0].pictures[4].cell}
    answer(one, wrong)
    table = gathered_votes(UPath(tmp_path)).set_index("first_cell")
    assert set(table.index[table.choice == "mismatch"]) == wrong
    assert len(table) == 6
    assert sitting(tmp_path, sheets).progress == (1, 3)
    cell = sheets[0].pictures[0].cell
    anew = images().assign(cell=lambda frame: frame.cell.where(frame.cell != cell, "new"))
    assert sitting(tmp_path, sheet_questions(anew, NAMES, seed=3, rater="kim")).progress == (0, 3)


def test_pairs_and_sheets_do_not_count_for_each_other(tmp_path: Path) -> None:
    sheets = sheet_questions(images(), NAMES, seed=3, rater="kim")
    answer(sitting(tmp_path, sheets), ())
    assert sitting(tmp_path, questions()).progress == (0, 12)
    assert sitting(tmp_path, sheets, "sam").progress == (0, 3)


def test_an_answer_to_a_question_that_is_not_in_sight_any_more_counts_for_none(tmp_path: Path) -> None:
    asked = questions()
    one = sitting(tmp_path, asked)
    seen = one.current.name
    one.answer("first", asked=seen)
    one.answer("second", asked=seen)
    assert one.progress == (1, 12)
    assert gathered_votes(UPath(tmp_path)).choice.tolist() == ["first"]
    assert len({question.name for question in asked}) == 12
    other = Question(asked[0].kind, asked[0].pictures[::-1])
    assert other.name == asked[0].name, "the same question, whichever picture is on the left"
