"""The cost of labelling many dialogues in hours and money, from a measured rate and from prices that you give.

python experiments/extrapolation/extrapolate.py --dialogues 1e9 --rate 8.5 --core-hour 0.0425

hours of cores  = dialogues / rate / 3600                  money = hours x price of a core's hour
time            = hours / cores                            (cores share nothing but the files: twice as many, half the time)
a judge         = dialogues x (tokens in x price + tokens out x price)
annotators      = dialogues x annotators x minutes / 60 x wage
"""

from __future__ import annotations

import argparse


def options() -> argparse.Namespace:
    """The command line. The prices are examples (README.md says from when), the rates are measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=float, default=1e9)
    parser.add_argument("--rate", type=float, required=True, help="dialogues a second of one core: `labelgen backfill` reports yours")
    parser.add_argument("--rate-int8", type=float, help="the same with precision=int8")
    parser.add_argument("--cores", type=int, default=1000)
    parser.add_argument("--core-hour", type=float, default=0.0425, help="dollars; on demand")
    parser.add_argument("--spot-core-hour", type=float, default=0.0226, help="dollars; a spot instance: the run resumes")
    parser.add_argument("--tokens", type=float, default=253, help="of a dialogue")
    parser.add_argument(
        "--judge-instructions", type=float, default=500, help="tokens of instructions and label definitions, in each request"
    )
    parser.add_argument("--judge-output", type=float, default=300, help="tokens of labels, for all tasks")
    parser.add_argument("--judge-price", type=float, nargs=2, default=[0.125, 1.0], help="dollars a million tokens: in, out")
    parser.add_argument("--minutes", type=float, default=3, help="of one annotator, for all tasks of a dialogue")
    parser.add_argument("--annotators", type=int, default=3)
    parser.add_argument("--wage", type=float, default=20, help="dollars an hour, all included")
    return parser.parse_args()


def main() -> None:
    given = options()
    count = given.dialogues
    print(f"{count:,.0f} dialogues of {given.tokens:.0f} tokens\n")
    print("| who labels | hours | time | dollars | dollars a million dialogues |\n|---|---|---|---|---|")

    def row(who: str, hours: str, time: str, dollars: float) -> None:
        print(f"| {who} | {hours} | {time} | {dollars:,.0f} | {dollars / count * 1e6:,.2f} |")

    for name, rate in (("labelgen, fp32", given.rate), ("labelgen, int8 (where accepted)", given.rate_int8)):
        if rate:
            hours = count / rate / 3600
            time = f"{hours / given.cores:,.0f} hours on {given.cores:,} cores"
            row(f"{name}, {rate:g} dialogues/s a core, on demand", f"{hours:,.0f} of a core", time, hours * given.core_hour)
            row(f"{name}, on cores that may be taken away", f"{hours:,.0f} of a core", time, hours * given.spot_core_hour)
    read, wrote = (given.judge_instructions + given.tokens) * count, given.judge_output * count
    judge = f"a language model's judgement, {given.judge_price[0]:g} and {given.judge_price[1]:g} dollars a million tokens"
    row(
        judge,
        "",
        f"{read / 1e9:,.0f} + {wrote / 1e9:,.0f} thousand million tokens",
        (read * given.judge_price[0] + wrote * given.judge_price[1]) / 1e6,
    )
    hours = count * given.annotators * given.minutes / 60
    time = f"{hours / 1700:,.0f} years of a person"
    row(
        f"{given.annotators} annotators, {given.minutes:g} minutes each at {given.wage:g} dollars an hour",
        f"{hours:,.0f}",
        time,
        hours * given.wage,
    )


if __name__ == "__main__":
    main()
