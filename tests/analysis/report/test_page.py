from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
from PIL import Image
from report_parts import COMMANDS, Page, confirmed_table, example_run, specimens, written
from run_folder import CONFIG, RunFolder

IDS = ["baseline", "t0013", "t0002", "t0003"]
SECTIONS = ["choice", "front", "curves", "inside", "why", "measured"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(
        written(
            example_run(RunFolder(tmp_path_factory.mktemp("runs") / "demo")),
            specimens=specimens(IDS),
            confirmed=confirmed_table([("t0013", "search", 412.0, 400.0)]),
            wandb_urls={"t0013": "https://wandb.ai/team/vq/runs/abc"},
        )
    )


def test_the_headline_comes_first_and_the_sections_in_their_order(page: Page) -> None:
    body = [tag for tag, _ in page.elements].index("body")
    assert [tag for tag, _ in page.elements[body + 1 : body + 3]] == ["header", "h1"]
    assert "t0013 uses 508 of 512 codes where the plain VQ-VAE uses 21" in page.text
    ids = [attributes["id"] for attributes in page.all("section")]
    assert ids == ["choice", "front", "confirmed", *SECTIONS[2:]]
    assert [a["href"] for a in page.all("a")][: len(ids)] == [f"#{name}" for name in ids]


def test_the_commands_and_the_configs_are_there(page: Page) -> None:
    for line in (COMMANDS.confirm, COMMANDS.export, COMMANDS.retrain, COMMANDS.front):
        assert line in page.text
    assert "Config of No. 1: t0013" in page.text
    assert "beta: 2.0" in page.text
    assert "MemoryError: no room" in page.text  # why a trial was lost


def test_ids_are_unique_and_what_is_named_by_id_is_there(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "aria-describedby", "data-card"):
            assert set((attributes.get(name) or "").split()) <= set(ids)
        href = attributes.get("href") or ""
        assert not href.startswith("#") or href[1:] in ids
    assert page.open == []


def test_pictures_have_sizes_and_words_and_charts_have_titles(page: Page) -> None:
    assert len(page.all("img")) == 3 * 5
    for image in page.all("img"):
        assert image["alt"]
        assert int(image["width"] or 0) > 0 and int(image["height"] or 0) > 0
    roots = [a for a in page.all("svg") if a.get("role") in ("group", "img") and "data-x" not in a]
    assert len(roots) >= 8
    assert all(chart["aria-labelledby"] for chart in roots)
    assert len(page.all("title")) == len(roots) + 1  # and that of the page
    assert all(sound["aria-label"] and sound["preload"] == "none" for sound in page.all("audio"))


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            value = attributes.get(name)
            if value is not None and not value.startswith(("data:", "#")):
                assert tag == "a", (tag, value)
                assert value.startswith(("https://wandb.ai/", "report/"))
    assert not any(tag in ("iframe", "object", "embed") for tag, _ in page.elements)
    assert [a.get("src") for a in page.all("script")] == [None]


def test_names_from_files_stay_text(run_folder: RunFolder) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
    run_folder.spec(
        name=evil, data=evil, space={"description": evil, "search": {"sampler": evil}}, seed=evil
    )
    config = deepcopy(CONFIG)
    config["codebook"]["entropy"] = {"weight": evil, evil: 1}
    run_folder.complete("baseline", 20.0, 0.5, role="baseline")
    run_folder.complete("t1", 200.0, 0.4, config=config)
    folder = run_folder.trial(
        "t2", {"samples": 200, "done": True, "diverged": True, "reason": evil}
    )
    (folder / "params.json").write_text(
        (folder / "params.json").read_text().replace('"t2"', '"<b onclick=1>t2</b>"')
    )
    broken = run_folder.trial("t3")
    (broken / "params.json").write_text(evil)
    page = Page(written(run_folder, wandb_urls={"t1": f"javascript:{evil}"}))
    assert len(page.all("script")) == 1
    assert page.all("img") == [] and page.all("b") != []
    assert not any(name.startswith("on") for _, found in page.elements for name in found)
    assert "<script>alert(1)</script>" in page.text
    assert "<b onclick=1>t2</b>" in page.text
    assert not any((a["href"] or "").startswith("javascript") for a in page.all("a"))


def test_pictures_for_papers_have_their_sizes(run_folder: RunFolder) -> None:
    page = Page(
        written(
            example_run(run_folder),
            specimens=specimens(IDS),
            confirmed=confirmed_table([("t0013", "search", 412.0, 400.0)]),
        )
    )
    folder = run_folder.path / "report"
    sizes = {path.name: Image.open(path).size for path in folder.iterdir()}
    expected = {
        "front.png": (780, 540),
        "confirmed.png": (780, 540),
        "curves.png": (1080, 450),
        "usage.png": (780, 480),
        "projection.png": (1440, 405),
        "reconstructions.png": (810, 1050),
    }
    assert sizes.items() >= expected.items()
    assert {f"report/{name}" for name in sizes} == {
        a["href"] for a in page.all("a") if (a["href"] or "").startswith("report/")
    }
    for path in folder.iterdir():
        low, high = Image.open(path).convert("L").getextrema()
        assert (low, high) != (255, 255)


def test_a_report_replaces_an_earlier_one_whole(run_folder: RunFolder) -> None:
    run = example_run(run_folder)
    written(run, specimens=specimens(IDS))
    assert (run.path / "report/usage.png").exists()
    before = (run.path / "report.html").read_text()
    assert written(run) != before
    assert not (run.path / "report/usage.png").exists()
    assert not list(run.path.rglob("*.part"))


def test_writing_where_that_is_not_possible_is_one_line(run_folder: RunFolder) -> None:
    from analysis.errors import RunError

    (example_run(run_folder).path / "report").write_text("in the way")
    with pytest.raises(RunError, match=r"report.*cannot be written"):
        written(run_folder)


def test_the_table_of_records_is_linked_where_it_is_beside_the_page(run_folder: RunFolder) -> None:
    (example_run(run_folder).path / "records.csv").write_text("trial_id\n")
    assert "records.csv" in [a["href"] for a in Page(written(run_folder)).all("a")]


def test_the_pages_policy_names_its_only_script(run_folder: RunFolder, tmp_path: Path) -> None:
    import base64
    import hashlib

    html = written(example_run(run_folder))
    script = html.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    [policy] = [a["content"] for a in Page(html).all("meta") if "http-equiv" in a]
    assert policy is not None and f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_text_and_marks_stand_out_in_both_schemes() -> None:
    """WCAG 2.2, AA: 4.5 for text, 3 for graphics."""
    import re

    import analysis.report

    style = (Path(analysis.report.__file__).parent / "templates/style.css").read_text()
    light, dark = (
        dict(re.findall(r"--([a-z]+): (#[0-9a-f]+);", block))
        for block in (style.partition("@media")[0], style.split("@media")[1])
    )
    for colours in (light, dark):
        colours["on"] = {"#fff": "#ffffff"}.get(colours["on"], colours["on"])
        for ground in ("paper", "panel"):
            for name in ("ink", "soft", "baseline", "first", "second", "third"):
                assert _contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
        for name in ("baseline", "first", "second", "third"):
            assert _contrast(colours[name], colours["on"]) >= 4.5, name
        assert _contrast(colours["other"], colours["paper"]) >= 3


def _contrast(first: str, second: str) -> float:
    lights = []
    for colour in (first, second):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(lights) / min(lights)
