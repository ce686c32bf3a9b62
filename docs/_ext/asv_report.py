"""Publishes the committed asv results into the site, as ``benchmarks/`` beside its pages, to work without a network.

asv's own page loads its scripts from other hosts; here they come from ``_static/vendor/asv``. Revisions are taken from the
results themselves, ordered by date, so that a build needs neither git nor the commits that were measured.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

EXTENSION = Path(__file__).parent
ROOT = EXTENSION.parent.parent
VENDORED = Path("_static", "vendor", "asv")
# The names of these files in asv's page, if they differ from their names here.
RENAMED = {f"jquery.flot{part}.min.js": f"jquery.flot{part}.js" for part in ("", ".time", ".selection", ".categories")}

logger = logging.getLogger(__name__)


def setup(app):
    app.add_config_value("asv_report_config", str(ROOT / "asv.conf.json"), "html", str)
    app.add_directive("asv-report", ReportDirective)
    app.connect("builder-inited", publish)
    app.connect("env-get-outdated", lambda app, env, added, changed, removed: env.found_docs & {"benchmarks"})
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def publish(app):
    """Write the report into the site, or remember why there is none."""
    report = Path(app.outdir, "benchmarks")
    shutil.rmtree(report, ignore_errors=True)
    app.asv_report_missing = "this is not HTML"
    if app.builder.format == "html":
        app.asv_report_missing = _publish(Path(app.config.asv_report_config), report)
    if app.asv_report_missing:
        shutil.rmtree(report, ignore_errors=True)
        logger.info("no benchmark report: %s", app.asv_report_missing)


def _publish(configuration: Path, report: Path) -> str:
    """Publish, and return an empty string or the reason why that is impossible."""
    if find_spec("asv") is None:
        return "asv is not installed"
    if not configuration.is_file():
        return f"there is no {configuration.name}"
    # Only now, since asv may be missing.
    from asv.util import load_json

    config = load_json(str(configuration), js_comments=True)
    results = configuration.parent / config["results_dir"]
    if not (results / "benchmarks.json").is_file():
        return f"there are no results in {config['results_dir']}"
    config |= {
        "repo": str(results),
        "dvcs": "results",
        "branches": ["main"],
        "benchmark_dir": str(configuration.parent / config["benchmark_dir"]),
        "results_dir": str(results),
        "html_dir": str(report),
        "project_url": "../benchmarks.html",
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "asv.conf.json").write_text(json.dumps(config), encoding="utf-8")
        code = f"import sys; sys.path.insert(0, {str(EXTENSION)!r}); import asv_recorded; "
        code += "from asv.main import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "--config", "asv.conf.json", "publish", "--no-pull"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode or not (report / "index.json").is_file():
        logger.warning("asv publish failed:\n%s%s", done.stdout[-2000:], done.stderr[-2000:])
        return "asv could not publish the results"
    drop_unmeasured(report)
    make_local(report)
    return ""


def drop_unmeasured(report: Path) -> None:
    """Remove benchmarks without results from the report, because its page would request them in vain."""
    index = json.loads((report / "index.json").read_text(encoding="utf-8"))
    graphs = report / "graphs" / "summary"
    index["benchmarks"] = {
        name: benchmark for name, benchmark in index["benchmarks"].items() if (graphs / f"{name}.json").is_file()
    }
    (report / "index.json").write_text(json.dumps(index), encoding="utf-8")


def make_local(report: Path) -> None:
    """Make asv's page load everything from the site."""
    page = report / "index.html"
    text = page.read_text(encoding="utf-8")

    def localise(match: re.Match[str]) -> str:
        tag = match[0]
        address = re.search(r'(src|href)="(https?:)?//[^"]*/([^"/]+)"', tag)
        if address is None:
            return tag
        name = RENAMED.get(address[3], address[3])
        if not (EXTENSION.parent / VENDORED / name).is_file():
            logger.warning("asv's page asks for %s, which is not in %s", address[0], VENDORED)
        tag = tag.replace(address[0], f'{address[1]}="../{(VENDORED / name).as_posix()}"')
        return re.sub(r'\s(integrity|crossorigin|referrerpolicy)="[^"]*"', "", tag)

    text = re.sub(r"<(script|link)\b[^>]*>", localise, text)
    own = '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
    own += '    <link href="../_static/asv.css" rel="stylesheet" type="text/css"/>\n  </head>'
    text = text.replace("</head>", own, 1)
    additions = '<script src="../_static/asv.js"></script>'
    text = re.sub(r'<script[^>]*src="asv\.js">\s*</script>', rf"\g<0>\n    {additions}", text, count=1)
    back = '<li><a href="../benchmarks.html">Back to the site</a></li>'
    text = re.sub(r'(<li id="nav-li-" )', rf"{back}\1", text, count=1)
    page.write_text(text, encoding="utf-8")


class ReportDirective(SphinxDirective):
    """A link to the report, with the machines that it covers, or a note that there is none."""

    def run(self):
        missing = self.env.app.asv_report_missing
        if missing:
            text = f"This copy of the site was built without the report: {missing}."
            return [nodes.note("", nodes.paragraph("", text))]
        index = json.loads(Path(self.env.app.outdir, "benchmarks", "index.json").read_text(encoding="utf-8"))
        commits = sorted(
            (time, index["revision_to_hash"][number]) for number, time in index["revision_to_date"].items()
        )
        measured = [f"{commit[:8]} of {datetime.fromtimestamp(time / 1000, UTC):%d %B %Y}" for time, commit in commits]
        rows = [("suite", f"{len(index['benchmarks'])} benchmarks"), ("commits", ", ".join(measured[-5:]))]
        for machine in index["machines"].values():
            memory = f"{int(machine['ram']) / 2**30:.0f} GiB" if machine["ram"].isdigit() else machine["ram"]
            cores = f"{machine['num_cpu']} × {machine['cpu']}"
            rows.append(("machine", f"{cores}, {memory} of memory, {machine['os']}"))
        fields = nodes.field_list()
        for name, text in rows:
            body = nodes.field_body("", nodes.paragraph("", text))
            fields += nodes.field("", nodes.field_name("", name), body)
        link = '<p><a class="sd-btn sd-btn-primary" href="benchmarks/index.html">Open the report</a></p>'
        return [fields, nodes.raw("", link, format="html")]
