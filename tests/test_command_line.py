"""A typing error on the command line gets one sentence with its remedy, in every verb, and nothing of Hydra's own text."""

from __future__ import annotations

import re
import shlex
from functools import partial
from pathlib import Path

import pytest

from labelgen.command_line import check_settings
from labelgen.config import CONF, POSITIONAL, load_config, main, verbs
from labelgen.sweep import checked_words


def check(command: str) -> None:
    verb, *words = shlex.split(command)
    check_settings(checked_words(words), CONF, partial(load_config, verb))


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("convert output=x.jsonl -m", r"corpus is needed; give corpus=\.\.\., one of "),
        ("train seed=1,2 -m", r"corpus is needed; give corpus=\.\.\., one of "),
        ("train corpus=jsonl,foo -m", r"corpus=foo: no such option; one of atis, "),
        ("convert corpus=jsonll", r"corpus=jsonll: no such option \(did you mean jsonl\?\); one of atis, "),
        ("train corpus=jsonl trainer=null", r"trainer=null: null is no option; ~trainer leaves out what is chosen$"),
        ("convert corpus=", r"corpus=: no such option; one of "),
        ("train corpus=jsonl +tasks@tasks.satisfaction=foo", r"tasks=foo: no such option; one of defect, "),
        ("train corpus=jsonl tasks@tasks.user_act=user_act", r"tasks@tasks\.user_act: .* put \+ in front to add it$"),
        ("train corpus=jsonl ~tasks@tasks.foo", r"~tasks@tasks\.foo: this command has no such group$"),
        ("convert corpus=jsonl +corpus=table", r"corpus is chosen already; leave out the \+$"),
        ("convert corpus=jsonl corpus.pth=a", r"corpus\.pth: no such setting \(did you mean corpus\.path\?\)"),
        ("backfill export=e input=x output=y tasks.mine=my.Class", r"tasks\.mine: put \+ in front to add it$"),
        ("convert corpus=chat_messages corpus.roles.customer=user", r"corpus\.roles\.customer: put \+ in front to add it$"),
        ("convert corpus=jsonl cal=a", r"cal: no such setting; `--help`"),
        ("convert corpus=jsonl path=a", r"path: no such setting \(did you mean corpus\.path\?\)"),
        ("convert corpus=jsonl +corpus.path=a", r"\+corpus\.path: the setting exists; leave out the \+$"),
        ("train corpus=jsonl +ouput=x", r"\+ouput: no setting of this command \(did you mean output\?\)$"),
        ("convert corpus=jsonl ~corpus.splt", r"~corpus\.splt: there is no such setting \(did you mean corpus\.split\?\)$"),
        ("convert corpus", r"corpus: not a setting; write key=value"),
        ("convert a.jsonl", r"a\.jsonl: not a setting; write key=value"),
        ("convert --output x", r"--output: no such option; settings have no dashes: output=\.\.\.$"),
        ("convert corpus=jsonl -m output=x", r"output=x: settings stand together; put it before the options"),
        ("convert corpus=jsonl --cfg foo", r"argument --cfg/-c: invalid choice"),
        ("convert corpus=jsonl corpus.path=", r"corpus\.path=: it is empty \(a variable that is not set\?\)"),
        ("convert corpus=jsonl 'corpus.path=[a.jsonl,b.jsonl]'", r"corpus\.path=\[.*: give one path, or a pattern"),
        ("train corpus=jsonl lr=abc", r"lr=abc: give a number \(the default is 0\.001\)$"),
        ("train corpus=jsonl seed=true", r"seed=True: give a number \(the default is 0\)$"),
        ("train corpus=jsonl trainer.max_epochs=three", r"trainer\.max_epochs=three: give a number \(the default is null\)$"),
        ("convert corpus=table corpus.sort=no", r"corpus\.sort=no: give true or false$"),
    ],
)
def test_an_error_is_one_sentence(command: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}") as raised:
        check(command)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "command",
    [
        "train experiment=sgd_minilm corpus.root=x trainer.max_epochs=2 lr=1e-3,1e-4 -m",
        "train corpus=jsonl encoder.backbone=roberta trainer=gpu trainer.devices=auto trainer.deterministic=warn trainer.max_epochs=null",
        "train corpus=jsonl encoder=tiny encoder.backbone.hidden_size=32 ~tasks@tasks.slot +tasks@tasks.user_act=user_act",
        "train corpus=jsonl,table corpus.path=a.jsonl output=x -m",
        "train corpus=jsonl 'lr=${seed}' hydra.job.chdir=false",
        "convert corpus=table 'corpus.columns={dialogue: a, text: b}' corpus.columns.speaker=c 'corpus.speakers={user: [a], bot: [b]}'",
        "convert corpus=chat_messages +corpus.roles.customer=user +size=3 'output=x${size}.jsonl'",
        "evaluate export=e corpus=jsonl corpus@reference=sgd reference.root=x limit=3",
        "backfill export=e input=x output=y backfill=ray ray.address=auto +tasks.mine=my.Class",
        "convert corpus=jsonl ++corpus.own=1 --cfg job",
    ],
)
def test_what_is_right_passes(command: str) -> None:
    check(command)


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_says_it_in_a_sentence(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["corpus=simulated"] if "corpus: ???" in (CONF / f"{verb}.yaml").read_text("utf-8") else []
    for word in ("nonesuch=1", "+nonesuch=1", "--nonesuch", *([] if verb in POSITIONAL else ["~nonesuch"])):
        monkeypatch.setattr("sys.argv", ["labelgen", verb, *given, word])
        with pytest.raises(SystemExit) as ended:
            main()
        assert re.match(r"labelgen: \S*nonesuch: ", str(ended.value.code))


@pytest.mark.parametrize(
    ("word", "sentence"),
    [("+corpus.nonesuch=1", r"\+corpus\.nonesuch: there is no such setting"), ("output=${nonesuch}", "output: .*'nonesuch' not found$")],
)
def test_what_only_the_run_finds(word: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["labelgen", "convert", "corpus=simulated", *(["output=x.jsonl"] if word[0] == "+" else []), word])
    with pytest.raises(SystemExit) as ended:
        main()
    assert re.match(f"labelgen: {sentence}", str(ended.value.code))
