"""How the site is built: ``sphinx-build -W --keep-going -b html docs docs/_build/html``."""

import hashlib
import inspect
import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx_gallery.sorting import ExplicitOrder

DOCS = Path(__file__).parent
ROOT = DOCS.parent

sys.path.insert(0, str(DOCS / "_ext"))

# One style for the figures of notebooks and gallery; notebook kernels inherit it. A backend from the shell's environment
# would keep the kernels from showing figures.
os.environ["MATPLOTLIBRC"] = str(DOCS / "matplotlibrc")
os.environ.pop("MPLBACKEND", None)

project = "convmat"
author = "convmat developers"
project_copyright = "2026, convmat developers"
release = installed_version("convmat")
version = release

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "myst_nb",
    "asv_report",
]
exclude_patterns = [
    "_build",
    "_templates",
    "gallery",
    "jupyter_execute",
    "**.ipynb_checkpoints",
    "auto_examples/*.ipynb",
]
templates_path = ["_templates"]
nitpicky = False

# Executed pages depend on these files besides their own source. A change of one of them executes all pages again.
executed_with = hashlib.sha256(sys.version.encode())
for pattern in (
    "convmat/**/*.py",
    "benchmarks/**/*.py",
    "benchmarks/**/*.json",
    "docs/matplotlibrc",
    "docs/*/[a-z]*.py",
):
    for path in sorted(ROOT.glob(pattern)):
        if path.parent.name not in ("gallery", "auto_examples"):  # which sphinx-gallery looks after
            executed_with.update(path.read_bytes())
digest = executed_with.hexdigest()[:16]

# --- Notebooks (MyST Markdown)
myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300  # seconds for a cell
nb_merge_streams = True
nb_output_stderr = "warn"
nb_render_markdown_format = "myst"

# --- Gallery
ran_with = DOCS / "auto_examples" / ".executed_with"
gallery_order = [
    "spy",
    "padding_modes",
    "blur_and_its_adjoint",
    "bilinear_upsampling",
    "checkerboard",
    "batch_and_channels",
    "one_axis",
    "three_axes",
    "receptive_field",
    "spectrum",
    "deblurring",
    "borders",
    "scikit_image",
    "super_resolution",
    "semi_blind",
    "pylops",
    "total_variation",
    "direct_factorisation",
    "network",
    "interval_bounds",
]
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "download_all_examples": False,
    "min_reported_time": 1e9,
    "plot_gallery": "True",
    "remove_config_comments": True,
    "reset_modules": ("site_style.reset",),
    "run_stale_examples": not ran_with.is_file() or ran_with.read_text(encoding="utf-8") != digest,
    "show_memory": False,
    "show_signature": False,
    "within_subsection_order": ExplicitOrder([*(f"plot_{name}.py" for name in gallery_order), "*"]),
    "write_computation_times": False,
}

# --- Reference
autodoc_typehints = "none"
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"
autosummary_generate = True
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# --- Formulas: MathJax in one file, from this site
mathjax_path = "vendor/mathjax/tex-svg-full.js"

# --- Pages
html_theme = "pydata_sphinx_theme"
html_title = "convmat"
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_context = {"default_mode": "auto"}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_use_index = False
html_show_sourcelink = False
html_sidebars = {page: [] for page in ("index", "start", "explorer", "benchmarks")}  # no pages below these
html_theme_options = {
    "header_links_before_dropdown": 9,
    "logo": {"text": "convmat", "alt_text": "convmat, home"},
    "navbar_align": "left",
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}


def setup(app):
    """Connect what has no option of its own."""

    def place_cache(app, config):
        """Keep the executed notebooks beside the output folder, in a folder named after the state of their sources."""
        if not config.nb_execution_cache_path:
            config.nb_execution_cache_path = str(Path(app.outdir).parent / ".jupyter_cache" / digest)

    def escape_shapes(app, what, name, thing, options, lines):
        """Escape the star of a shape (..., *input_shape), which would begin an emphasis."""
        lines[:] = [line.replace("(..., *", r"(..., \*") for line in lines]

    def sign_classes(app, what, name, thing, options, signature, returns):
        """Return the signature of a class's own constructor, which a base class of SciPy hides."""
        if what != "class" or not signature or "*args" not in signature:
            return None
        _, *parameters = inspect.signature(thing.__init__).parameters.values()
        bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
        return str(inspect.Signature(bare)), returns

    def note_examples(app, exception):
        """Remember the state of the sources with which the gallery's examples were executed."""
        if exception is None and ran_with.parent.is_dir() and str(app.config.plot_gallery) in ("True", "1"):
            ran_with.write_text(digest, encoding="utf-8")

    app.connect("build-finished", note_examples)
    app.connect("config-inited", place_cache)
    app.connect("autodoc-process-docstring", escape_shapes, priority=100)  # before numpydoc reads it
    app.connect("autodoc-process-signature", sign_classes)
