"""What does the run look like? A self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from streams.testbed.demo import plots
from streams.testbed.demo.html import DASH, Html, count, known, megabytes, milliseconds, of_ten, seconds, share, tag
from streams.testbed.demo.outcome import DemoOutcome
from streams.testbed.demo.page import section, swatch, write_page
from streams.testbed.demo.precision import CUTS, ENOUGH_LISTENERS
from streams.testbed.demo.swap_measurement import LIMIT_MS, SwapFigures

# arm -> its name in a plot, its name in a table, what it means.
_ARMS = {
    "coldstart": ("coldstart", "coldstart", "The people whom the system pushed, best score first."),
    "evidence": (
        "similar, ranked",
        "heard similar songs, ranked",
        "People who heard the most of the retrieved similar songs: the plain rival.",
    ),
    "i2i2u": (
        "similar, unranked",
        "heard similar songs, unranked",
        "Anyone who heard at least one of the retrieved similar songs, in no order.",
    ),
    "random": ("anybody", "anybody", "People drawn from everybody by chance."),
}
_PHASES = {
    "data": "read or generate the data",
    "broker": "start Apache Kafka",
    "training": "train the encoder",
    "chances": "learn who answers",
    "publish": "publish model and warm songs",
    "workers": "start the workers",
    "history": "replay the listens",
    "uploads": "upload the cold songs",
    "answers": "wait for the last answers",
    "judging": "compare with the hidden listeners",
    "swap": "upload on while models are swapped",
}
_SWAP_PHASES = {"swap": "while the second model is published", "rollback": "while the first is published again"}
_PROCESSES = {
    "total": "all together, at one time",
    "demo": "the demo itself, training included",
    "java": "Apache Kafka",
    "songs": "songs worker",
    "python": "other Python processes",
}


def write_report(outcome: DemoOutcome, path: Path, command: str = "coldstart demo") -> None:
    """Write the page: one file that loads nothing.

    Args:
        command: how the run was started, shown for repeating it.
    """
    sections = (_flow, _people, _latency, _example, _cost)
    body = [
        _head(outcome),
        tag(
            "main",
            *(each(outcome) for each in sections),
            *([_swap(outcome.swapped)] if outcome.swapped else []),
            _repeat(command),
        ),
        tag("footer", tag("p", outcome.citation)) if outcome.citation else "",
    ]
    write_page(path, f"Coldstart demo: {outcome.dataset}", body)


def _head(outcome: DemoOutcome) -> Html:
    best, anybody = (known(outcome.judgement.precision.get(arm, {}).get(100)) for arm in ("coldstart", "random"))
    times = "" if not best or not anybody else f", {_times(best / anybody)} times fewer"
    first = _milliseconds(outcome, "first")
    doubled = "none of them twice" if not outcome.pushes_doubled else f"{count(outcome.pushes_doubled)} of them twice"
    tiles = (
        (
            f"{of_ten(best)} of 10",
            f"people pushed really listen (the best 100 of a song). Anybody: {of_ten(anybody)} of 10{times}.",
        ),
        (
            milliseconds(_percentile(first, 50)),
            f"from upload to the first push, for half of the songs; 99 of 100 within "
            f"{milliseconds(_percentile(first, 99))}.",
        ),
        (count(outcome.push_targets), f"pushes to {count(outcome.users)} people, {doubled}."),
        (
            f"{count(outcome.answered)} of {count(outcome.uploads)}",
            f"songs answered by all {count(outcome.partitions)} audience partitions.",
        ),
    )
    return tag(
        "header",
        tag("p", f"Coldstart demo · {outcome.dataset}", class_="eyebrow"),
        tag("h1", f"{count(outcome.uploads)} songs nobody had heard, and the people who will listen"),
        tag(
            "p",
            "Each song was uploaded as an event to Apache Kafka. From its content alone the system found similar "
            "songs and pushed it to the people most likely to listen. Who really listens was hidden until the end.",
            class_="lead",
        ),
        _state(outcome),
        tag(
            "div",
            *(
                tag("div", tag("strong", value), tag("span", words), class_="card first" if not at else "card")
                for at, (value, words) in enumerate(tiles)
            ),
            class_="tiles",
        ),
    )


def _state(outcome: DemoOutcome) -> Html:
    if outcome.complete:
        return tag(
            "p",
            "✓ Every upload answered by every partition, every malformed one kept as a dead letter, nothing twice.",
            class_="state good",
        )
    wrong = []
    if outcome.answered != outcome.uploads:
        wrong.append(f"{count(outcome.answered)} of {count(outcome.uploads)} uploads answered by every partition")
    if not outcome.dead_letters_identical:
        wrong.append("the dead letters are not exactly the malformed uploads")
    if outcome.pushes_doubled:
        wrong.append(f"pushes that came twice: {count(outcome.pushes_doubled)}")
    if outcome.swapped and outcome.swapped.verdict:
        wrong.append(f"swap of models: {outcome.swapped.verdict}")
    return tag("p", f"✗ Not as it must be: {'; '.join(wrong)}.", class_="state bad")


def _flow(outcome: DemoOutcome) -> Html:
    seen = plots.Flow(
        partitions=outcome.partitions,
        uploads=outcome.uploads,
        answered=outcome.answered,
        dead_letters=outcome.dead_letters,
        pushes=outcome.push_targets,
        listens=outcome.listens,
        warm_songs=outcome.warm_songs,
        users=outcome.users,
    )
    words = (
        f"Flow: {count(outcome.uploads)} song-uploads go to the songs role, which finds similar songs among "
        f"{count(outcome.warm_songs)} warm-songs and sends match-requests to {count(outcome.partitions)} audience "
        f"partitions; these know {count(outcome.listens)} listens and write {count(outcome.push_targets)} "
        f"push-targets and their campaign-reports. {count(outcome.dead_letters)} records went to dead-letters."
    )
    happened = (
        ("people", count(outcome.users)),
        ("warm songs: have listeners, trained on, retrieved", count(outcome.warm_songs)),
        ("listens replayed", count(outcome.listens)),
        ("cold songs uploaded", count(outcome.uploads)),
        ("cold songs without content: nothing to upload", count(outcome.songs_without_content)),
        (f"of the uploaded, answered by all {count(outcome.partitions)} partitions", count(outcome.answered)),
        ("push targets", count(outcome.push_targets)),
        ("push targets that came twice", count(outcome.pushes_doubled)),
        ("dead letters", count(outcome.dead_letters)),
        ("dead letters are the malformed uploads, byte by byte", "yes" if outcome.dead_letters_identical else "no"),
    )
    reasons = sorted(outcome.dead_letter_reasons.items(), key=lambda each: -each[1])
    cards = [_card(tag("h3", "What happened"), _table(("", "number"), happened))]
    if reasons:
        rows = [(_reason(reason), _meter(number, reasons[0][1]), count(number)) for reason, number in reasons]
        cards.append(_card(tag("h3", "Dead letters"), _table(("what was wrong", "", "records"), rows)))
    return section(
        "The way of a song",
        "Rounded: topics of Kafka. Square: the workers. Each partition decides for its own people, at once.",
        _card(tag("figure", plots.flow(seen, words))),
        *([_pairwise(*cards)] if reasons else cards),
    )


def _reason(reason: str) -> Html:
    """The class of an error and, smaller, the field it is about."""
    error, _, field = reason.partition(": ")
    return Html(tag("span", error) + tag("small", field))


def _people(outcome: DemoOutcome) -> Html:
    judged = outcome.judgement
    arms = [arm for arm in _ARMS if arm in judged.precision]
    at_100 = {arm: known(judged.precision[arm].get(100)) for arm in arms}
    rows = []
    for arm in arms:
        _, name, meaning = _ARMS[arm]
        ten = f"{of_ten(at_100[arm])} of 10"
        rows.append(
            tag(
                "div",
                tag("div", tag("h3", name), tag("p", meaning)),
                plots.people(at_100[arm], arm, f"{name}: {ten} people really listen"),
                tag("div", tag("strong", of_ten(at_100[arm])), tag("small", "of 10 listen")),
                class_="people",
            )
        )
    lines = [plots.Series(_ARMS[arm][0], arm, [known(judged.precision[arm].get(cut)) for cut in CUTS]) for arm in arms]
    of_lines = "; ".join(
        f"{each.name}: {', '.join(f'{share(value)} of {cut}' for cut, value in zip(CUTS, each.values, strict=True))}"
        for each in lines
    )
    precision = tag(
        "figure",
        tag("figcaption", "How many of the first 50, 100, 200 people pushed really listen?"),
        plots.lines([str(cut) for cut in CUTS], "people pushed, best first", lines, f"Precision by arm. {of_lines}."),
        _table(
            ("who was pushed", *(f"of {cut}" for cut in CUTS), "found in 200"),
            [
                (
                    swatch(arm, _ARMS[arm][0]),
                    *(share(judged.precision[arm].get(cut)) for cut in CUTS),
                    share(judged.recall_200.get(arm)),
                )
                for arm in arms
            ],
        ),
    )
    return section(
        "Who was pushed?",
        f"Means over the {count(judged.songs)} uploaded songs that have at least {ENOUGH_LISTENERS} listeners among "
        f"the {count(outcome.users)} people. Of a song's 100 best people, so many of ten listen:",
        _card(*rows),
        _pairwise(
            _card(tag("h3", "The further down, the fewer"), precision),
            _card(tag("h3", "Small audiences and large ones"), _sizes(judged.r_precision)),
        ),
        *([_card(tag("h3", "Would they like it?"), _liking(judged.liking))] if judged.liking else []),
    )


def _liking(liking: Mapping[str, Mapping[int, float]]) -> Html:
    """What only made data know: the chance behind the listens."""
    arms = [arm for arm in _ARMS if arm in liking]
    return tag(
        "figure",
        tag(
            "figcaption",
            "The data are made, so the chance that a pushed person likes the song is known. A listen above needs more: "
            "that the person came across the song, and who plays much comes across more.",
        ),
        _table(
            ("who was pushed", *(f"of {cut}" for cut in CUTS)),
            [(swatch(arm, _ARMS[arm][0]), *(share(liking[arm].get(cut)) for cut in CUTS)) for arm in arms],
        ),
    )


def _sizes(by_size: Mapping[str, Mapping[str, float]]) -> Html:
    names = [
        bucket.replace("-", "–").replace(">=", "") + ("+" if bucket.startswith(">=") else "") for bucket in by_size
    ]
    both = [
        plots.Series(arm, arm, [known(values.get(arm)) for values in by_size.values()])
        for arm in ("coldstart", "evidence")
    ]
    words = "; ".join(
        f"{name} listeners: coldstart {share(values.get('coldstart'))}, evidence {share(values.get('evidence'))}"
        for name, values in zip(names, by_size.values(), strict=True)
    )
    return tag(
        "figure",
        tag(
            "figcaption",
            "R-precision: of as many people as the song has listeners, how many listen? A song with 30 listeners "
            "cannot have more than 30 right of 100; this measure is fair to it.",
        ),
        plots.bars(
            [
                (name, f"{count(values.get('songs'))} songs")
                for name, values in zip(names, by_size.values(), strict=True)
            ],
            both,
            f"R-precision by audience size, in percent. {words}.",
        ),
        _table(
            ("listeners of the song", "songs", swatch("coldstart", "coldstart"), swatch("evidence", "ranked rival")),
            [
                (name, count(values.get("songs")), share(values.get("coldstart")), share(values.get("evidence")))
                for name, values in zip(names, by_size.values(), strict=True)
            ],
        ),
    )


def _latency(outcome: DemoOutcome) -> Html:
    first, last = _milliseconds(outcome, "first"), _milliseconds(outcome, "last")
    if not first or not last:
        return section("How fast?", "No song was pushed: there is nothing to time.")
    span = plots.rounded_span([*first, *last])
    figures = []
    for which, values, words in (
        ("first", first, "Upload to the first push"),
        ("last", last, "Upload to the last push"),
    ):
        label = (
            f"{words}: half within {milliseconds(_percentile(values, 50))}, 99 of 100 within "
            f"{milliseconds(_percentile(values, 99))}, the slowest {milliseconds(max(values))}."
        )
        plot = plots.histogram(values, span, which, label)
        figures.append(_card(tag("h3", swatch(which, words)), tag("figure", plot)))
    # A few stragglers would flatten all others.
    cut = _percentile(last, 99) or 1.0
    wave = tag(
        "figure",
        plots.waveform(first, last, cut, "Time to the first and the last push of each song, in order of upload."),
        tag(
            "figcaption",
            "The run as a waveform: songs in order of upload, the height is the time until the first push (",
            swatch("first", "inner"),
            ") and the last (",
            swatch("last", "outer"),
            f"); cut at {milliseconds(cut)}.",
        ),
    )
    quantiles = (("half within", 50), ("9 of 10 within", 90), ("99 of 100 within", 99), ("the slowest", 100))
    table = _table(
        ("", "first push", "last push"),
        [(words, milliseconds(_percentile(first, at)), milliseconds(_percentile(last, at))) for words, at in quantiles],
    )
    return section(
        "How fast?",
        f"From the sending of the upload to its pushes as a reader of committed records sees them, over "
        f"{count(len(first))} songs after a warm-up. Equal steps along the axis multiply the time.",
        _pairwise(*figures),
        _card(wave, table),
    )


def _example(outcome: DemoOutcome) -> Html:
    example = outcome.example
    if not example:
        return section("One song, closely", "No song was pushed: there is nothing to show.")
    neighbours: Sequence[tuple[str, float]] = example.get("neighbours", ())
    return section(
        "One song, closely",
        "The song with the best score of all, and the warm songs that its content led to. "
        "Their listeners were asked first.",
        _card(
            tag("p", example.get("title") or DASH, class_="song"),
            tag("ul", *(tag("li", str(each)) for each in example.get("tags", ())), class_="tags", aria_label="tags"),
            tag(
                "p",
                f"{count(example.get('pushes'))} people pushed; the best score is {_score(example.get('best_score'))}.",
                class_="note",
            ),
            _table(
                ("retrieved warm song", "", "similarity"),
                [(title or DASH, _meter(known(near) or 0.0, 1.0), _score(near)) for title, near in neighbours],
            )
            if neighbours
            else tag("p", "Nothing was retrieved for it.", class_="note"),
        ),
    )


def _cost(outcome: DemoOutcome) -> Html:
    total = sum(known(value) or 0.0 for value in outcome.seconds.values())
    rows, start = [], 0.0
    for phase, value in outcome.seconds.items():
        rows.append((_PHASES.get(phase, phase), _meter(known(value) or 0.0, total, start), seconds(value)))
        start += known(value) or 0.0
    peaks = sorted(outcome.memory_mb.items(), key=lambda each: -(known(each[1]) or 0.0))
    highest = max((known(value) or 0.0 for value in outcome.memory_mb.values()), default=0.0)
    return section(
        "What did it take?",
        "Time and memory of the whole run on this machine.",
        _pairwise(
            _card(
                tag("h3", "Where the time went"),
                _table(("one after the other", "", seconds(total)), rows),
            ),
            _card(
                tag("h3", "Peak memory"),
                _table(
                    ("process", "", "at most"),
                    [
                        (
                            _PROCESSES.get(name, name.replace("audience-", "audience worker ")),
                            _meter(known(value) or 0.0, highest),
                            megabytes(value),
                        )
                        for name, value in peaks
                    ],
                ),
            ),
        ),
    )


def _swap(seen: SwapFigures) -> Html:
    """How long uploads waited beside a swap of models and its rollback."""
    figures = seen.as_json()
    start = min(seen.starts.values())
    points = [(seen.sent[song].at - start, wait) for song, wait in seen.waits.items()]
    begins = [each - start for each in seen.starts.values()]
    ends = dict(zip(seen.starts, [*begins[1:], seen.ended - start], strict=True))
    marks = [(seen.starts[phase] - start, ends[phase]) for phase in _SWAP_PHASES if phase in ends]
    rows, by = [], []
    for phase, each in figures["phases"].items():
        name, spaces = _SWAP_PHASES.get(phase, phase), each["spaces"]
        waits = (milliseconds(each[key]) for key in ("p50_ms", "p99_ms", "longest_ms"))
        rows.append((name, count(each["uploads"]), count(each["failed"]), *waits))
        by.append((name, *(count(spaces[which]) for which in ("first", "second", "both", "no push"))))
    words = (
        f"{count(len(seen.sent))} uploads, {count(len(seen.failed))} of them failed; the longest wait before any swap "
        f"was {milliseconds(seen.longest('before'))}, during the swap {milliseconds(seen.longest('swap'))}, during "
        f"the rollback {milliseconds(seen.longest('rollback'))}."
    )
    said = seen.verdict or f"None failed, and none waited more than {milliseconds(LIMIT_MS)} for a swap."
    return section(
        "Another model, while songs come in",
        "A second model was published while songs were uploaded, and then the first again. Each dot is an upload: the "
        "time until its last partition's pushes. Shaded: from the publishing until every partition decided with it.",
        _pairwise(
            _card(tag("figure", plots.timeline(points, marks, LIMIT_MS, words), tag("figcaption", words))),
            _card(
                _table(("uploads sent", "", "failed", "half within", "99 of 100 within", "longest"), rows),
                _table(("decided by", "first model", "second", "both", "nobody pushed"), by),
                tag("p", said, class_="note"),
            ),
        ),
    )


def _repeat(command: str) -> Html:
    return section(
        "Do it again",
        "The same seed gives the same data, split and training; times differ from machine to machine.",
        _card(
            tag("pre", tag("code", command)),
            tag("p", "With --json FILE the figures of this page are written for a program to read; "
                     "--help explains the rest.", class_="note"),
        ),
    )  # fmt: skip


def _card(*children: str) -> Html:
    return tag("div", *children, class_="card")


def _pairwise(*cards: Html) -> Html:
    return tag("div", *cards, class_="pair")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """The first column names the row; other columns hold numbers to the right, or meters, or words."""
    numeric = [at > 0 and all(_is_number(row[at]) for row in rows) for at in range(len(heads))]
    head = [tag("th", each, scope="col", class_="number" if numeric[at] else None) for at, each in enumerate(heads)]
    body = []
    for row in rows:
        cells = [tag("th", row[0], scope="row")]
        for at, cell in enumerate(row[1:], 1):
            kind = "bar" if isinstance(cell, Html) else "number" if numeric[at] else None
            cells.append(tag("td", cell, class_=kind))
        body.append(tag("tr", *cells))
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body))
    return tag("div", table, class_="wide")


def _is_number(cell: str) -> bool:
    return not isinstance(cell, Html) and (cell in (DASH, "yes", "no") or cell.lstrip("-")[:1].isdigit())


def _meter(value: float, of: float, start: float = 0.0) -> Html:
    """A bar beside a number that says the same in text."""
    width, left = (100 * max(0.0, each) / of if of > 0 else 0.0 for each in (value, start))
    return tag("span", class_="meter", style=f"width:{width:.1f}%;margin-left:{left:.1f}%", aria_hidden="true")


def _times(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 3 else f"{ratio:.1f}"


def _score(value: float | None) -> str:
    return DASH if value is None or known(value) is None else f"{value:.2f}"


def _milliseconds(outcome: DemoOutcome, which: str) -> list[float]:
    return [value for value in outcome.latencies.get(which, []) if known(value) is not None]


def _percentile(values: Sequence[float], which: float) -> float | None:
    return float(np.percentile(values, which)) if values else None
