"""Whether the quickstart's results are what the README promises of it, as figures of this run."""

import json
import sys


def main() -> None:
    with open(sys.argv[1]) as file:
        results = {entry["run"]: entry for entry in json.load(file)}
    std, adv = results["std"], results["adv"]
    promised = {
        "STD, clean, at least 97": std["clean"]["top1"] >= 97,
        "STD, defended, at most 5": std["attacks"][0]["defense_success_rate"] <= 5,
        "STD, by texture, at least 60": std["cue_conflict"]["texture"] >= 60,
        "ADV, clean, at least 80": adv["clean"]["top1"] >= 80,
        "ADV, defended, at least 50": adv["attacks"][0]["defense_success_rate"] >= 50,
        "ADV, by shape, at least 70": adv["cue_conflict"]["shape"] >= 70,
    }
    for promise, kept in promised.items():
        print(f"{'ok    ' if kept else 'BROKEN'} {promise}")
    sys.exit(0 if all(promised.values()) else 1)


if __name__ == "__main__":
    main()
