"""Whatever changes a run changes its digest, and nothing else does."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import functools
import importlib
import io
import logging
import os
import random
import re
import subprocess
import sys
import threading
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("tqdm")

import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import sampleweights
from sampleweights import OHEM, ClassBalanced, CrossEntropyLoss, FocalLoss
from sampleweights.compare.training import origins
from sampleweights.compare.training.fingerprint import CannotTell, fingerprint

X = np.array([[0.0, 1.0], [1.0, 0.5], [2.0, 0.0], [3.0, 1.5]])
Y = np.array([0, 0, 1, 1])


def closure_over(value):
    return lambda: value


def scaler(features):
    return StandardScaler().fit(features)


def defined(source, name="own"):
    """What a piece of code defines under a name, as a module of one's own would."""
    namespace = {"nn": nn, "functools": functools, "__name__": "own"}
    exec(source, namespace)
    return namespace[name]


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Point:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


class Config:
    def __init__(self, **values):
        self.__dict__.update(values)


@dataclasses.dataclass
class Setting:
    rate: float


class Labelled(np.ndarray):
    """An array with an attribute."""

    def __new__(cls, values, label):
        array = np.asarray(values).view(cls)
        array.label = label
        return array


class Names(dict):
    """A dictionary with an attribute."""


class Survey(pd.DataFrame):
    """A table with an attribute, as those of geopandas are."""

    _metadata = ["rate"]  # noqa: RUF012


def survey(rate):
    made = Survey({"a": [1]})
    made.rate = rate
    return made


def surveyed(factor):
    """A table with a method."""
    return type("Own", (pd.DataFrame,), {"scaled": lambda self: self * factor})({"a": [1]})


def compressed(value, layout=torch.sparse_csr):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are new to torch
        return (torch.eye(2) * value).to_sparse(layout=layout)


def field(**options):
    return dataclasses.make_dataclass("Own", [("rate", float, dataclasses.field(**options))])


def names(label):
    made = Names(a=1)
    made.label = label
    return made


def frame(**options):
    return pd.DataFrame(X, columns=["a", "b"], **options)


def series(values, **options):
    return pd.Series(values, **options)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def tied(same):
    first = nn.Linear(2, 2)
    nn.init.ones_(first.weight), nn.init.zeros_(first.bias)
    return nn.Sequential(first, first if same else copy.deepcopy(first))


def parametrized(value):
    layer = nn.Linear(2, 2, bias=False)
    nn.init.constant_(layer.weight, value)
    return nn.utils.parametrizations.weight_norm(layer)


def frozen(*, requires_grad):
    return nn.Parameter(torch.ones(2), requires_grad=requires_grad)


def with_attribute(value):
    def function():
        return function.rate

    function.rate = value
    return function


def hooked(factor):
    layer = nn.Identity()
    layer.register_forward_hook(lambda module, inputs, output: output * factor)
    return layer


def tree(depth):
    return DecisionTreeClassifier(max_depth=depth, random_state=0).fit(X, Y)


@functools.lru_cache
def remembered(x):
    return x + 1


def remembers(body):
    return defined(f"@functools.lru_cache\ndef own(x):\n    return {body}")


class Base(nn.Module):
    scale = 1

    def forward(self, x):
        return x


def subclass(**members):
    return type("Own", (Base,), members)


def without_grad(factor):
    @torch.no_grad()
    def evaluate(x):
        return x * factor

    return evaluate


def deep(depth, end):
    value = end
    for _ in range(depth):
        value = [value]
    return value


DIFFERENT = {
    # containers: lengths and ends
    "where a mapping ends": (
        {"head": {"dropout": 0.5}, "x": 1}, {"head": {}, "dropout": 0.5, "x": 1},
    ),
    "where a list ends": ([[1], 2], [[1, 2]]),
    "where a set ends": ([{"a"}, {"b"}], [{"a", "b"}, set()]),
    "how strings are parted": (["ab", "c"], ["a", "bc"]),
    "a set's strings": ({"a', 'b"}, {"a", "b"}),
    "the type of a number": ([1], [True]),
    "a list or a tuple": ([1, 2], (1, 2)),
    "the order of layers": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "the sets in a set": ({frozenset({1}), frozenset({2})}, {frozenset({1, 2})}),
    "a table's attribute": (survey(1), survey(2)),
    "a table's method": (surveyed(1), surveyed(2)),
    "what a class says of a field": (field(metadata={"a": 1}), field(metadata={"a": 2})),
    "a compressed tensor": (compressed(1), compressed(2)),
    "rows or columns": (compressed(1), compressed(1, torch.sparse_csc)),
    "where a part ends": (
        torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged),
        torch.nested.nested_tensor([torch.ones(2), torch.ones(1)], layout=torch.jagged),
    ),
    "a mapping's attribute": (names("one"), names("two")),
    "the end of a long deque": (
        collections.deque(range(5000)), collections.deque([*range(4999), 0]),
    ),
    "the limit of a deque": (collections.deque([1], 2), collections.deque([1], 3)),
    "the default of a defaultdict": (collections.defaultdict(int), collections.defaultdict(float)),
    # tables and arrays
    "a table's index": (frame(), frame(index=[3, 2, 1, 0])),
    "a table's columns": (frame(), frame().rename(columns={"b": "c"})),
    "a table's types": (frame(), frame().astype({"b": np.float32})),
    "one value of a table": (frame(), frame().replace(1.5, 1.25)),
    "the order of a table's types": (
        pd.DataFrame({"a": [1], "b": [2.0]}), pd.DataFrame({"a": [1.0], "b": [2]}),
    ),
    "the name of a column": (series([1, 2], name="a"), series([1, 2], name="b")),
    "unused categories": (
        series(["a"], dtype=pd.CategoricalDtype(["a"])),
        series(["a"], dtype=pd.CategoricalDtype(["a", "b"])),
    ),
    "a missing value": (series([1, None], dtype="Int64"), series([1, 0], dtype="Int64")),
    "the time zone": (
        pd.DatetimeIndex(["2026-01-01"], tz="UTC"),
        pd.DatetimeIndex(["2026-01-01"], tz="Asia/Tokyo"),
    ),
    "what a mask hides": (np.ma.array(X, mask=X > 1), np.ma.array(X, mask=X > 2)),
    "an array's attribute": (Labelled(X, "one"), Labelled(X, "two")),
    "the last object of an array": (np.array(["a", None], object), np.array(["a", 1], object)),
    "a field of records": (
        np.array([(1, 2.0)], dtype=[("a", "i1"), ("b", "f8")]),
        np.array([(1, 2.0)], dtype=[("a", "i1"), ("c", "f8")]),
    ),
    "whether a parameter learns": (frozen(requires_grad=True), frozen(requires_grad=False)),
    "tied weights": (tied(True), tied(False)),
    # other objects
    "a fitted scaler": (scaler(X), scaler(2 * X)),
    "a fitted tree": (tree(1), tree(2)),
    "a fitted regression": (
        LogisticRegression(C=1).fit(X, Y), LogisticRegression(C=2).fit(X, Y),
    ),
    "the end of a long pattern": (re.compile("a" * 5000), re.compile("a" * 4999 + "b")),
    "the flags of a pattern": (re.compile("a"), re.compile("a", re.I)),
    "numpy's generator": (np.random.default_rng(0), np.random.default_rng(1)),
    "how far a generator went": (np.random.RandomState(0), advanced := np.random.RandomState(0)),
    "Python's generator": (random.Random(0), random.Random(1)),
    "torch's generator": (generator(0), generator(1)),
    "the generator of a method": (np.random.default_rng(0).normal, np.random.default_rng(1).normal),
    "a decimal": (decimal.Decimal("0.1"), decimal.Decimal("0.10")),
    "a member of an enum": (Color.RED, Color.BLUE),
    "slots": (Point(1), Point(2)),
    "a data class": (Setting(0.1), Setting(0.2)),
    "the fields of a named tuple": (
        collections.namedtuple("Own", "a b")(1, 2), collections.namedtuple("Own", "b a")(1, 2),
    ),
    "a path": (Path("a") / "b", Path("a") / "c"),
    "a date": (datetime.date(2026, 1, 2), datetime.date(2026, 2, 1)),
    "a hook": (hooked(1), hooked(2)),
    # code
    "a closure": (closure_over(1), closure_over(2)),
    "which closure is empty": (closure_over(None), closure_over(())),
    "a default": (defined("def own(x=1): return x"), defined("def own(x=2): return x")),
    "a keyword": (defined("def own(*, x=1): return x"), defined("def own(*, x=2): return x")),
    "a constant": (lambda x: x + 1, lambda x: x + 2),
    "an operator": (lambda x: x + 1, lambda x: x * 1),
    "an attribute that is named": (lambda x: x.mean, lambda x: x.sum),
    "how arguments are given": (defined("def own(x): return 1"), defined("def own(*x): return 1")),
    "what is caught": (
        defined("def own(x):\n    try: f(x); g(x)\n    except KeyError: pass"),
        defined("def own(x):\n    try: f(x)\n    except KeyError: pass\n    g(x)"),
    ),
    "a function's attribute": (with_attribute(1), with_attribute(2)),
    "what is remembered": (remembers("x"), remembers("x + 1")),
    "beneath a decorator": (without_grad(1), without_grad(2)),
    "a partial": (functools.partial(scaler, 1), functools.partial(scaler, 2)),
    "a partial's keyword": (functools.partial(scaler, a=1), functools.partial(scaler, b=1)),
    "a class's constant": (subclass(scale=1), subclass(scale=2)),
    "a class's method": (subclass(forward=lambda s, x: x), subclass(forward=lambda s, x: -x)),
    "a class's property": (subclass(p=property(lambda s: 1)), subclass(p=property(lambda s: 2))),
    "a class's base": (
        types.new_class("Own", (subclass(scale=1),)), types.new_class("Own", (subclass(scale=2),)),
    ),
    "the object of a method": (Setting(1).__eq__, Setting(2).__eq__),
    "beneath torch.compile": (torch.compile(closure_over(1)), torch.compile(closure_over(2))),
    "beneath a parametrization": (parametrized(1), parametrized(2)),
    "training or not": (nn.Dropout(), nn.Dropout().eval()),
    "which package's function": (np.mean, np.median),
}  # fmt: skip
advanced.random()


@pytest.mark.parametrize("what", DIFFERENT)
def test_one_difference_changes_the_digest(what):
    one, other = DIFFERENT[what]
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(closure_over(one)) != fingerprint(closure_over(other))


def wide():
    return np.arange(24.0).reshape(4, 6)


def cycle():
    loop: list = [1]
    loop.append({"self": loop})
    return loop


def called(function, times):
    for number in range(times):
        function(number)
    return function


def reset_attributes():
    config = Config(a=0, b=2)
    del config.a
    config.a = 1
    return config


class Family:
    """Classes and functions that name each other."""

    def child(self):
        return Family(), helper


def helper():
    return Family.child, helper


SAME = {
    "a rebuilt mapping": ({"a": [1, 2]}, {"a": [1, 2]}),
    "the order of a set": ({"a", "b", "c"}, {"c", "b", "a"}),
    "the order of a set of tuples": ({(1, "a"), (2, "b")}, {(2, "b"), (1, "a")}),
    "the order of attributes": (Config(a=1, b=2), reset_attributes()),
    "an array in Fortran's order": (wide(), np.asfortranarray(wide())),
    "a view": (wide()[::2, 1:3], wide()[::2, 1:3].copy()),
    "a tensor that is transposed": (torch.from_numpy(wide().T), torch.from_numpy(wide().T.copy())),
    "channels last": (
        torch.ones(1, 2, 3, 3), torch.ones(1, 2, 3, 3).to(memory_format=torch.channels_last),
    ),
    "a table in other blocks": (frame(), pd.concat([frame()[["a"]], frame()[["b"]]], axis=1)),
    "a range as an index": (frame(), frame(index=np.arange(4))),
    "a shared index": (
        [table := frame(index=list("abcd")), table.copy()],
        [frame(index=list("abcd")), frame(index=list("abcd"))],
    ),
    "rebuilt strings": (series(["a", None], dtype="string"), series(["a", None], dtype="string")),
    "rebuilt categories": (
        series(["b", "a"], dtype="category"), series(["b", "a"], dtype="category"),
    ),
    "a table's copy": (frame(), copy.deepcopy(frame())),
    "records with something between the fields": (
        padded := np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True)), padded.copy(),
    ),
    "a fitted scaler": (scaler(X), scaler(X)),
    "a fitted tree": (tree(2), tree(2)),
    "a deque": (collections.deque([1, 2]), collections.deque([1, 2])),
    "a pattern": (re.compile("a+"), copy.copy(re.compile("a+"))),
    "numpy's generator": (np.random.default_rng(3), np.random.default_rng(3)),
    "Python's generator": (random.Random(3), random.Random(3)),
    "torch's generator": (generator(3), generator(3)),
    "a criterion": (FocalLoss(2), FocalLoss(2)),
    "weighters": (
        CrossEntropyLoss(weighter=[ClassBalanced([3, 1]), OHEM(4)]),
        CrossEntropyLoss(weighter=[ClassBalanced([3, 1]), OHEM(4)]),
    ),
    "the keys of hooks": (hooked(1), hooked(1)),
    "equal data classes": (Setting(0.1), Setting(0.1)),
    "locks": (threading.Lock(), threading.Lock()),
    "streams that are written": (sys.__stdout__, sys.__stderr__),
    "a rebuilt closure": (closure_over([1]), closure_over([1])),
    "a rebuilt function": (
        defined("def own(x):\n    return x + 1"),
        defined("# a comment\n\ndef own( x ) : return x+1"),
    ),
    "a function's name": (
        defined("def own(x): return x"), defined("def other(x): return x", "other"),
    ),
    "a rebuilt class": (
        defined("class own(nn.Module):\n    def forward(self, x): return x"),
        defined("class own(nn.Module):\n    def forward(self, x):\n        return x"),
    ),
    "a function that ran hot": (
        defined("def own(x): return x + 1"), called(defined("def own(x): return x + 1"), 5000),
    ),
    "what a function remembers": (remembers("x"), called(remembers("x"), 3)),
    "a decorated function": (without_grad(2), without_grad(2)),
    "a cycle": (cycle(), cycle()),
    "classes that name each other": (helper, copy.copy(helper)),
    "a named tuple": (
        collections.namedtuple("Own", "a b")(1, 2), collections.namedtuple("Own", "a b")(1, 2),
    ),
    "constants that the compiler merged": ([(1, 2), (1, 2)], [pair := (1, 2), pair]),
    "a compiled function": (torch.compile(closure_over(1)), torch.compile(closure_over(1))),
    "a parametrized layer": (parametrized(1), parametrized(1)),
    "enums": ([Color.RED, Color], [Color(1), Color]),
}  # fmt: skip


@pytest.mark.parametrize("what", SAME)
def test_what_means_the_same_has_one_digest(what):
    one, other = SAME[what]
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(closure_over(one)) == fingerprint(closure_over(other))


def test_there_are_no_collisions_among_kinds():
    criteria = [
        CrossEntropyLoss(),
        CrossEntropyLoss(label_smoothing=0.1),
        FocalLoss(1),
        FocalLoss(2),
        CrossEntropyLoss(weighter=ClassBalanced([1, 2])),
        CrossEntropyLoss(weighter=ClassBalanced([1, 3])),
        CrossEntropyLoss(weighter=OHEM(4)),
        CrossEntropyLoss(weighter=OHEM(5)),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0])),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0])),
    ]
    values = [
        np.zeros(2), np.zeros((2, 1)), np.zeros(2, np.float32), torch.zeros(2), [0.0, 0.0],
        (0.0, 0.0), 0, "0", b"0", 0.0, False, None, [], {}, set(), "", [None], [[]],
    ]  # fmt: skip
    everything = [*criteria, *values]
    assert len({fingerprint(what) for what in everything}) == len(everything)


FEATURES = np.zeros(3)


def reads_a_global():
    return FEATURES.sum()


def test_the_globals_that_a_function_names_are_read(monkeypatch):
    before = fingerprint(reads_a_global)
    monkeypatch.setitem(globals(), "FEATURES", np.ones(3))
    assert fingerprint(reads_a_global) != before


def test_data_nested_too_deeply_are_refused():
    with pytest.raises(CannotTell, match="RecursionError"):
        fingerprint(deep(100_000, 1))


def test_a_long_chain_of_functions_is_read():
    source = "def f0(): return 1\n" + "".join(
        f"def f{i}(): return f{i - 1}()\n" for i in range(1, 1200)
    )
    one, other = (
        defined(source, "f1199"),
        defined(source.replace("return 1\n", "return 2\n"), "f1199"),
    )
    assert fingerprint(one) != fingerprint(other)


# --------------------------------------------------------------------------------------------
# Modules of one's own
# --------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A package of one's own, written anew and imported: fingerprint of what it is asked for."""
    monkeypatch.syspath_prepend(tmp_path)

    def written(what, **files):
        for name in [name for name in sys.modules if name.partition(".")[0] == "own_package"]:
            del sys.modules[name]
        for name, source in {"__init__": "", **files}.items():
            path = tmp_path / "own_package" / f"{name.replace('__in__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        importlib.invalidate_caches()
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            return fingerprint(defined(what, "fit"))
        finally:
            sys.dont_write_bytecode = before

    yield written
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_package"]:
        del sys.modules[name]


NET = "import own_package.net as net\ndef fit(): return net.build()"


@pytest.mark.parametrize(
    ("fit", "files", "changed"),
    [
        (NET, {"net": "def build(): return 1"}, {"net": "def build(): return 2"}),
        (  # what a module imports
            NET,
            {
                "net": "from own_package.parts import RATE\ndef build(): return RATE",
                "parts": "RATE = 1",
            },
            {"parts": "RATE = 2"},
        ),
        (  # relatively, and further on
            NET,
            {
                "net": "from . import parts\ndef build(): return parts.make()",
                "parts": "from .deep import make",
                "deep": "def make(): return 1",
            },
            {"deep": "def make(): return 2"},
        ),
        (  # only when it is called
            NET,
            {
                "net": "def build():\n    from .lazy import make\n    return make()",
                "lazy": "def make(): return 1",
            },
            {"lazy": "def make(): return 2"},
        ),
        (  # in fit alone
            "def fit():\n    import own_package.lazy\n    return own_package.lazy.make()",
            {"lazy": "def make(): return 1"},
            {"lazy": "def make(): return 2"},
        ),
        (  # what is taken from a module is a value
            "from own_package.parts import RATE\ndef fit(): return RATE",
            {"parts": "RATE = 1"},
            {"parts": "RATE = 2"},
        ),
        (  # a class whose base is elsewhere
            "from own_package.net import Net\ndef fit(): return Net()",
            {
                "net": "from .parts import Base\nclass Net(Base): pass",
                "parts": "class Base: rate = 1",
            },
            {"parts": "class Base: rate = 2"},
        ),
        (  # a package that imports its modules when it is asked for them
            "import own_package\ndef fit(): return own_package.net.build()",
            {
                "__init__": "import importlib\n"
                "def __getattr__(name): return importlib.import_module(f'.{name}', __name__)",
                "net": "def build(): return 1",
            },
            {"net": "def build(): return 2"},
        ),
        (
            "from importlib import import_module\n"
            "def fit(): return import_module('own_package.net').build()",
            {"net": "def build(): return 1"},
            {"net": "def build(): return 2"},
        ),
        (
            "def fit(): return __import__('own_package.net').net.build()",
            {"net": "def build(): return 1"},
            {"net": "def build(): return 2"},
        ),
        (  # folders that are packages without a file that says so
            "def fit():\n    from own_package.parts.deep.net import build\n    return build()",
            {"parts__in__deep__in__net": "def build(): return 1"},
            {"parts__in__deep__in__net": "def build(): return 2"},
        ),
        (  # a package of which only the name is known
            "import own_package, own_package.net\ndef fit(): return own_package.net.build()",
            {"net": "def build(): return 1"},
            {"net": "def build(): return 2"},
        ),
    ],
)  # fmt: skip
def test_modules_of_ones_own_are_read_as_far_as_they_reach(own, fit, files, changed):
    before = own(fit, **files)
    assert own(fit, **files) == before
    if "__getattr__" not in files.get("__init__", ""):
        assert own(fit, **files, unrelated="RATE = 1") == before
    assert (
        own(fit, **{name: f"# a comment\n{source}\n" for name, source in files.items()}) == before
    )
    assert own(fit, **{**files, **changed}) != before


def test_a_setting_of_a_module_counts_as_it_is(own):
    fit = "import own_package.config as config\n{}def fit(): return config.rate"
    files = {"config": "rate = 1"}
    assert own(fit.format(""), **files) != own(fit.format("config.rate = 2\n"), **files)


def test_installed_packages_count_by_their_version(monkeypatch):
    assert origins.version_of("joblib.parallel").startswith("joblib ")
    assert origins.version_of("PIL.Image" if "PIL" in sys.modules else "matplotlib").count(" ") == 1
    assert origins.version_of("collections.abc").startswith("Python ")
    assert origins.version_of("torch.nn") == f"torch {torch.__version__}"
    assert origins.version_of(__name__) is None
    assert origins.version_of("__main__") is None
    joblib = importlib.import_module("joblib")
    found = [
        fingerprint(joblib),
        fingerprint(joblib.dump),
        fingerprint(closure_over(joblib.Memory)),
        fingerprint(defined("def own():\n    import joblib.numpy_pickle")),
    ]
    monkeypatch.setattr(origins, "distributions", lambda top: [(top, "0.0", Path("/"))])
    again = [
        fingerprint(joblib),
        fingerprint(joblib.dump),
        fingerprint(closure_over(joblib.Memory)),
        fingerprint(defined("def own():\n    import joblib.numpy_pickle")),
    ]
    assert not set(found) & set(again)


def test_an_editable_package_is_ones_own(tmp_path, monkeypatch):
    """Its distribution lies in another folder than its files, or beside them without a list."""
    (tmp_path / "edited.py").write_text("rate = 1")
    metadata = tmp_path / "edited.egg-info"
    metadata.mkdir()
    (metadata / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: edited\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    origins.distributions.cache_clear()
    assert origins.version_of("edited") is None


def test_the_librarys_own_files_are_digested(tmp_path, monkeypatch):
    before = origins.own_sources()
    assert origins.own_sources() == before
    for path in Path(sampleweights.__file__).parent.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(sampleweights, "__file__", str(tmp_path / "__init__.py"))
    copied = origins.own_sources()
    (tmp_path / "reduction.py").write_text("# changed")
    assert len({before, copied, origins.own_sources()}) == 3


# --------------------------------------------------------------------------------------------
# Other processes; what cannot be told
# --------------------------------------------------------------------------------------------

SCRIPT = """
import collections, re
import numpy as np, pandas as pd, torch
from sklearn.linear_model import LogisticRegression
from sampleweights.compare import default_entries
from sampleweights.compare.training.fingerprint import fingerprint
import own_net
TABLE = {"a": (1, 2), "b": {3, 4}, "c": {"x", "y", "z"}, "d": frozenset({("p", 1), ("q", 2)})}
FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": pd.Categorical(["u", "v"])})
DAYS = pd.date_range("2026-01-01", periods=2, tz="UTC")
TIMES = pd.DataFrame({"t": DAYS, "n": pd.array([1, None])})
MODEL = LogisticRegression().fit([[0], [1]], [0, 1])
class Own(torch.nn.Module):
    names = {"one", "two", "three"}
    def forward(self, x): return own_net.build(x), self.names
def fit(criterion, train, validation, sampler=None, seed=0):
    "Docs."
    if seed in {"u", "v", "w"}:
        return FRAME, TIMES, MODEL, collections.deque("ab"), re.compile("a+"), np.random
    return TABLE, Own, [x for x in (1, 2)], torch.zeros(3)
parts = [TABLE, FRAME, TIMES, MODEL, Own(), fit, np.random.default_rng(0)]
entries = [build(torch.tensor([5, 3]), 4) for build in default_entries().values()]
print(*map(fingerprint, [*parts, *entries]))
"""


def test_another_process_finds_the_same_digests(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "own_net.py").write_text("KINDS = {'a', 'b', 'c'}\ndef build(x): return x in KINDS")
    source = str(Path(sampleweights.__file__).parents[1])
    running = [
        subprocess.Popen(
            [sys.executable, "script.py"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": source, "PYTHONHASHSEED": seed},
        )
        for seed in "12"
    ]
    one, other = [process.communicate()[0].split() for process in running]
    assert one == other
    assert len(set(one)) == len(one) == 18


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (lambda: (number for number in range(3)), "generator"),
        (lambda: io.TextIOWrapper(io.BytesIO(b"text")), "TextIOWrapper"),
        (lambda: threading.Thread(), "Thread"),
        (lambda: torch.empty(2, device="meta"), "Tensor"),
        (lambda: np.frompyfunc(lambda x: x + 1, 1, 1), "ufunc"),  # has no name of its own
        (lambda: Config(inner=[iter(zip([1], [2], strict=True)), sys._getframe()]), "frame"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused(made, named):
    with pytest.raises(CannotTell, match=named):
        fingerprint(closure_over(made()))


def test_a_refusal_says_where():
    config = Config(reader=(number for number in range(3)))

    def fit():
        return config.reader

    with pytest.raises(CannotTell, match=r"fit\.config\.reader holds, of type builtins\.generator"):
        fingerprint(fit)


def test_a_logger_counts_by_its_name():
    logger = logging.getLogger("of the test")
    before = fingerprint(logger)
    logger.isEnabledFor(10)
    assert fingerprint(logger) == before
    assert fingerprint(logging.getLogger("another")) != before


def test_the_defaults_of_pydantic_count():
    pydantic = pytest.importorskip("pydantic")

    def settings(rate):
        return pydantic.create_model("Own", rate=(float, rate))

    assert fingerprint(settings(0.1)) == fingerprint(settings(0.1))
    assert fingerprint(settings(0.1)) != fingerprint(settings(0.2))


def test_a_function_of_an_extension_is_found_wherever_it_is():
    special = pytest.importorskip("scipy.special")
    assert fingerprint(special.expit) != fingerprint(special.logit)
