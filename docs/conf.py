"""Sphinx configuration; warnings are errors in .ci/run."""

import importlib
import re
from pathlib import Path
from typing import Any

import matplotlib
from sphinx.application import Sphinx
from sphinx.ext.autodoc.mock import mock
from sphinx.util import inspect, logging

import sampleweights

project = "sampleweights"
author = "The sampleweights authors"
copyright = author
release = version = sampleweights.__version__
extensions = [
    "matplotlib.sphinxext.plot_directive",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates", "gallery/*.py", "gallery_sources", "results"]
nitpicky = True
html_theme = "furo"
html_title = f"sampleweights {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]

autodoc_typehints = "none"  # the text gives types and ranges
autodoc_member_order = "bysource"
autodoc_mock_imports = [
    "joblib",
    "lightning",
    "pandas",
    "pytorch_lightning",
    "torchmetrics",
    "tqdm",
    "transformers",
]
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Shape"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
copybutton_prompt_text = ">>> "
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

# the names of others that the pages link to stand in inventories/ too, for builds without network
intersphinx_timeout = 3
intersphinx_mapping = {
    name: (url, (None, f"inventories/{name}.inv"))
    for name, url in {
        "python": "https://docs.python.org/3",
        "torch": "https://docs.pytorch.org/docs/stable",
        "torchmetrics": "https://lightning.ai/docs/torchmetrics/stable",
    }.items()
}

plot_html_show_source_link = False
plot_html_show_formats = False
plot_formats = [("svg", 100)]
plot_rcparams = {
    "figure.figsize": (6.4, 3.2),
    "font.size": 11,
    "figure.constrained_layout.use": True,
}
plot_apply_rcparams = True
# the gallery's figures: they fill a page, and their words can be read in a thumbnail
matplotlib.rcParams.update(
    {"figure.dpi": 130, "figure.figsize": (6.4, 3.6), "font.size": 12, "legend.fontsize": 11}
)
sphinx_gallery_conf = {
    "examples_dirs": "gallery_sources",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("matplotlib",),
    "reset_modules": (),  # they would set the figures back
    "thumbnail_size": (720, 405),
    "min_reported_time": 1e6,  # the time is that of a machine which no reader has
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "capture_repr": (),
    "write_computation_times": False,
    "download_all_examples": False,
    "abort_on_example_error": True,
    "reference_url": {"sampleweights": None},
    "doc_module": ("sampleweights",),
    "backreferences_dir": "gallery/used_by",
}

# Where a name is explained: the cards of the methods, as methods/index.md has them (a link, and the
# class first in the text), and other pages. The API's pages link there, and the cards back.
METHODS = Path(__file__).parent / "methods"
CARDS = {
    name: f"methods/{card}"
    for card, name in re.findall(
        r"^:link: (\S+)\n(?:(?!:::).)*?`(\w+)`",
        (METHODS / "index.md").read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
}
EXPLAINED_IN = {
    **CARDS,
    "Comparison": "comparing",
    "LabelComparison": "comparing",
    "LossHistory": "samples",
    "Margin": "extending",
    "PriorEstimate": "methods/estimate-prior",
    "Taxonomy": "methods/hierarchical",
    "Weighter": "extending",
    "WeightingCallback": "integrations",
    "WeightingMetric": "integrations",
    "WeightingTrainer": "integrations",
    "WithIndex": "samples",
    "compare": "comparing",
    "default_entries": "comparing",
    "default_label_entries": "comparing",
    "selective_loss": "training",
    "write_page": "samples",
}
autosummary_context = {"explained_in": EXPLAINED_IN}

PUBLIC_MODULES = [
    "sampleweights",
    "sampleweights.compare",
    "sampleweights.decisions",
    "sampleweights.functional",
    "sampleweights.history",
    "sampleweights.reduction",
    "sampleweights.schedules",
    "sampleweights.selection",
    "sampleweights.integrations.lightning",
    "sampleweights.integrations.torchmetrics",
    "sampleweights.integrations.transformers",
]


def check_public_names(app: Sphinx, env: Any) -> None:
    """Warn, and so fail the build, of a public name without a page and a card without its class."""
    for path in METHODS.glob("*.md"):
        if path.stem != "index" and f"methods/{path.stem}" not in CARDS.values():
            logging.getLogger(__name__).warning("methods/index.md has no class for %s", path.stem)
    domain = env.get_domain("py")
    described = {*domain.objects, *PUBLIC_MODULES}
    with mock(autodoc_mock_imports):
        for module in PUBLIC_MODULES:
            for name in importlib.import_module(module).__all__:
                # what users import from the top has its page there
                if not {f"{module}.{name}", f"sampleweights.{name}"} & described:
                    logging.getLogger(__name__).warning("%s.%s has no page", module, name)


def sign_as_init(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str, None] | None:
    """A class on a mocked base has the signature of its own ``__init__``."""
    if what != "class" or signature != "(*args, **kwargs)":
        return None
    of_init = inspect.signature(obj.__init__, bound_method=True)
    return inspect.stringify_signature(of_init, show_annotation=False), None


def drop_last_empty_line(app: Sphinx, page: str, source: list[str]) -> None:
    """Doctest needs one at the end of a block; a reader does not."""
    source[0] = re.sub(r"(```pycon\n.*?)\n\n```", r"\1\n```", source[0], flags=re.DOTALL)


def link_card(app: Sphinx, page: str, source: list[str]) -> None:
    """A method's card begins with links to its classes and ends with examples that use them."""
    names = [name for name, card in CARDS.items() if page == card]
    if names:
        title, _, text = source[0].partition("\n")
        links = ", ".join(f"{{py:obj}}`sampleweights.{name}`" for name in names)
        source[0] = (
            f"{title}\n\nAPI: {links}\n{text}\n```{{eval-rst}}\n"
            f".. minigallery:: {' '.join(f'sampleweights.{name}' for name in names)}\n"
            f"   :add-heading: Examples with {' and '.join(names)}\n```\n"
        )


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-signature", sign_as_init)
    app.connect("source-read", drop_last_empty_line)
    app.connect("source-read", link_card)
    app.connect("env-check-consistency", check_public_names)
