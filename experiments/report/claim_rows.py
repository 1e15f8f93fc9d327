"""What each claim's record says: its verdict and its measures, as rows of the table of claims."""

from collections.abc import Callable, Iterable, Mapping
from statistics import fmean, stdev
from typing import Any

from experiments import statistics
from experiments.figure2_sensitivity_maps import CLAIMED
from experiments.report import markup

NOT_MEASURED = "not measured"
RUNS = ("std", "adv")
Line = tuple[str, ...]
Read = Callable[[Mapping[str, Any]], tuple[str, list[Line]]]


def claim_1(found: Mapping[str, Any]) -> tuple[str, list[Line]]:
    """Of table1_robustness."""
    claim, measured = found["claim"], found["accuracies"]
    radius, attack = next(iter(found["attacks"].items()))
    steps, restarts = (_counted(attack[name], name[:-1]) for name in ("steps", "restarts"))
    pgd = f"accuracy under PGD, ε = {radius} (as in training), {steps}, {restarts}"
    lines = []
    for title, half, name, metric, difference, sign in (
        ("clean top-1", "clean", "clean", "top1", "std_minus_adv", "STD − ADV "),
        (pgd, "robust", radius, "robust_accuracy", "adv_minus_std", "ADV − STD "),
    ):
        sides = (_spread(measured[run][name][metric]["by_seed"]) for run in RUNS)
        change = claim[half][difference]
        lines.append((title + ", %", *sides, sign + _points(change), claim[half]["verdict"]))
    return claim["claim_1"], lines


def claim_2(found: Mapping[str, Any]) -> tuple[str, list[Line]]:
    """Of figure2_sensitivity_maps."""
    lines = []
    for name in CLAIMED:
        measures = found["methods"].get(name, {}).get("measures", {})
        for measure, title in (
            ("spectral_centroid", "spectral centroid of the map, cycles/pixel"),
            ("band_share", "share of the map's energy along the silhouette"),
        ):
            if measure in measures:
                one = measures[measure]
                sides = (_spread(one[f"{run}_by_seed"], 3) for run in RUNS)
                change = one["difference"]
                lines.append(
                    (f"{_words(name)}: {title}", *sides, _plain(change), change["verdict"])
                )
    return found["claim_2"], lines


def first_layer(measure: str, title: str) -> Read:
    """Of figure4_first_layer: what reads one of its measures."""

    def read(found: Mapping[str, Any]) -> tuple[str, list[Line]]:
        forms = found["forms"]
        decides = "folded" if "folded" in forms else "raw"
        lines = []
        for form in (decides, *(other for other in forms if other != decides)):
            if measure not in forms[form]["differences"]:
                continue
            change = forms[form]["differences"][measure]
            sides = (_spread([one[measure] for one in forms[form][run]], 3) for run in RUNS)
            how = {"folded": "BatchNorm folded in", "raw": "as they are"}[form]
            lines.append((f"{title}, {how}", *sides, _plain(change), change["claim"]))
        verdict = lines[0][-1] if lines else NOT_MEASURED
        # What is only stated beside it has no say.
        return verdict, lines[:1] + [(*line[:-1], "") for line in lines[1:]]

    return read


def claim_4(found: Mapping[str, Any]) -> tuple[str, list[Line]]:
    """Of figure3_layer_visualization."""
    verdicts, lines = [], []
    for style, title in (("paper", "plain images"), ("regularized", "regularised images")):
        deepest = found["styles"].get(style, {}).get("deepest_third", {"differences": {}})
        for measure, what in (
            ("spectral_centroid", "spectral centroid, cycles/pixel"),
            ("chroma_energy", "colour energy above half Nyquist"),
        ):
            if measure not in deepest["differences"]:
                continue
            change = deepest["differences"][measure]
            decides = style == "paper"
            verdicts += [change["adv_smaller"]] if decides else []
            convs = ", ".join(map(str, deepest["layers"]))
            lines.append(
                (
                    f"{title}, conv {convs}: {what}",
                    *(_spread(change[f"{run}_by_seed"], 4) for run in RUNS),
                    statistics.as_text(change),
                    change["adv_smaller"] if decides else "",
                )
            )
    if len(verdicts) < 2:
        return NOT_MEASURED, lines
    return statistics.all_hold(verdicts), lines


def claim_5(found: Mapping[str, Any]) -> tuple[str, list[Line]]:
    """Of figure6_smoothing."""
    blur, median = found["blur"], found["median"]
    lines = []
    counted = [level for level in blur["levels"] if level["counts"] and level["sigma"] > 0]
    if counted:
        level = max(counted, key=lambda one: abs(one["change"]["mean"]))
        lines.append(
            (
                f"top-1 under blur, %; of σ ≤ {blur['counted_up_to']:g}, where both are above "
                f"{found['chance'] + 10:g} %, the one with the largest change: σ = "
                f"{level['sigma']:g}",
                *(_spread(level[run]["by_seed"]) for run in RUNS),
                f"STD − ADV has changed by {_points(level['change'])}",
                blur["verdict"],
            )
        )
    last = median["levels"][-1]
    lines.append(
        (
            f"top-1 after {last['times']} median filters, %",
            *(_spread(last[run]["by_seed"]) for run in RUNS),
            f"ADV − STD {_points(median['adv_minus_std_at_the_end'])}",
            median["verdict"],
        )
    )
    return found["claim_5"], lines


def claim_6(found: Mapping[str, Any]) -> tuple[str, list[Line]]:
    """Of table2_variants."""
    claim = found["claim"]
    half = claim["reversed"]
    lines: list[Line] = [
        (
            "points of top-1 lost by reversed colours",
            *(_spread(half["lost"][run]) for run in RUNS),
            f"STD loses more by {_points(half['std_loses_more_by'])}",
            half["verdict"],
        )
    ]
    for name, title in (
        ("cue_conflict", "cue conflicts, by shape"),
        ("stylized", "stylised pictures"),
    ):
        if name in claim:
            sides = (_spread(found["accuracies"][run][name]["top1"]["by_seed"]) for run in RUNS)
            change = claim[name]["adv_minus_std"]
            lines.append(
                (
                    f"top-1 on {title}, %",
                    *sides,
                    f"ADV − STD {_points(change)}",
                    claim[name]["verdict"],
                )
            )
    return claim["claim_6"], lines


def claim_7(found: Mapping[str, Any]) -> tuple[str, list[Line]]:
    """Of figure7_late_fusion."""
    lines = []
    for title, one in found["datasets"].items():
        for part, text in (
            ("above_single", "against the better of STD and ADV"),
            ("near_best", "against the best of the other four, more than −1"),
        ):
            decided = one["decided"][part]
            best = decided["best_by_seed"].values()
            names = " or ".join(dict.fromkeys(each["setting"] for each in best))
            other = f"{names} {_spread([each['top1'] for each in best])}" if best else "–"
            sides = (_setting(one, "STD+ADV"), other)
            lines.append((f"{title}: {text}", *sides, _points(decided), decided["verdict"]))
        decided = one["decided"]["by_resolution"]
        text = f"{title}: ADV+ADV against STD+STD, {one['resolution']} resolution"
        sides = (_setting(one, "ADV+ADV"), _setting(one, "STD+STD"))
        lines.append((text, *sides, _points(decided), decided["verdict"]))
    return found["claim"]["claim_7"], lines


def _setting(one: Mapping[str, Any], setting: str) -> str:
    values = one["top1"].get(setting, {}).get("by_seed", {}).values()
    return f"{setting} {_spread(list(values))}" if values else "–"


def claim_8(found: Mapping[str, Any]) -> tuple[str, list[Line]]:
    """Of figure8_sanity_checks."""
    names = {"random": "random", "std": "STD", "adv": "ADV"}
    method = found["methods"].get("guided_backprop")
    if method is None:
        return NOT_MEASURED, []
    lines: list[Line] = []
    for similarity, title in (("ssim", "SSIM"), ("rank_correlation", "rank correlation")):
        measured = method["similarities"][similarity]
        for pair, against in (measured["differences"] or {}).items():
            settings = " and ".join(names[run] for run in pair.split("-"))
            for run, change in against.items():
                lines.append(
                    (
                        f"{title}: {settings}, against two seeds of {names[run]}",
                        _spread(measured["between_settings"][pair]["by_seed"], 3),
                        _spread(measured["between_seeds"][run]["by_seed"], 3),
                        _plain(change),
                        change["verdict"],
                    )
                )
    return method["claim_8"], lines


def _spread(values: Iterable[float | None], digits: int = 1) -> str:
    """Mean ± standard deviation (n - 1) over seeds; the value alone of one."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean = markup.number(fmean(known), digits)
    return mean if len(known) == 1 else f"{mean} ± {markup.number(stdev(known), digits)}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _points(change: Mapping[str, Any]) -> str:
    return statistics.as_text(dict(change), digits=1)


def _plain(change: Mapping[str, Any]) -> str:
    return statistics.as_text(dict(change), digits=3)


def _words(name: str) -> str:
    return name.replace("_", " ")
