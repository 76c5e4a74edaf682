"""Where compiled code is kept and looked for, and what its name tells apart."""

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numba import config
from test_cache import half, kept, make_power, misses

from twolayer.kernels.compiler import jit, settings

pytestmark = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is compiled")

# Folders


@pytest.fixture
def homes(tmp_path, monkeypatch):
    """Places for compiled code: that of NUMBA_CACHE_DIR, beside a package, a user's."""
    (tmp_path / "package").mkdir()
    (tmp_path / "user").mkdir()
    monkeypatch.setattr(jit, "folder_of", lambda package: tmp_path / "package")
    monkeypatch.setattr(jit.platformdirs, "user_cache_path", lambda name: tmp_path / "user")
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    for cached in (jit.cache_folders, jit._tell):
        cached.cache_clear()
    yield tmp_path
    for cached in (jit.cache_folders, jit._tell):
        cached.cache_clear()


def test_a_folder_that_may_not_be_listed_is_used(homes, monkeypatch):
    def refuse(path):
        raise PermissionError(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert jit.cache_folder().parent == homes / "cache" / "twolayer"


def test_where_nobody_knows_a_home_no_folder_is_named_after_it(homes, monkeypatch):
    monkeypatch.chdir(homes)
    monkeypatch.setattr(jit.platformdirs, "user_cache_path", lambda name: Path("~") / "any")
    monkeypatch.setattr(jit, "folder_of", lambda package: homes / "user" / "file")
    monkeypatch.setattr(config, "CACHE_DIR", "")
    (homes / "user" / "file").touch()
    assert jit.cache_folder() is None
    assert jit.cache_folders().why.endswith("nobody knows a home folder")
    assert not (homes / "~").exists()


def unwritable(monkeypatch, *places):
    """Another user's: nobody can make a file there, not even root."""
    make = tempfile.TemporaryFile

    def refuse(dir):
        if any(Path(dir).is_relative_to(place) for place in places):
            raise PermissionError(13, "Permission denied", str(dir))
        return make(dir=dir)

    monkeypatch.setattr(jit.tempfile, "TemporaryFile", refuse)


def compiled(sentence=None):
    """Whether `half` was compiled, and not loaded; with that warning or none."""
    jit.cache_folders.cache_clear()
    kernel = jit.jit("homes")(half)
    with pytest.warns(RuntimeWarning, match=sentence) if sentence else contextlib.nullcontext():
        kernel(np.ones(3))
    return bool(misses(kernel))


def test_code_goes_elsewhere_if_the_folder_is_another_users(homes, monkeypatch):
    unwritable(monkeypatch, homes / "cache")
    assert compiled("compiled code is kept in .*package.*, not in NUMBA_CACHE_DIR: .*denied")
    assert not compiled()
    unwritable(monkeypatch, homes / "package")
    monkeypatch.setattr(config, "CACHE_DIR", "")
    assert not compiled()  # what lies beside the package is read
    for path in kept(homes):
        path.unlink()
    assert compiled()  # and nobody is bothered who named no folder
    assert [path.is_relative_to(homes / "user") for path in kept(homes)] == [True]
    assert not compiled()


def test_code_of_others_is_read_where_none_can_be_kept(homes, monkeypatch):
    assert compiled()
    unwritable(monkeypatch, homes)
    assert not compiled()
    (code,) = kept(homes)
    code.unlink()
    assert compiled("compiled code is not kept: .*denied")


def test_nobody_knows_a_home_folder(homes, monkeypatch):
    def homeless(name):
        raise RuntimeError("no home")

    monkeypatch.setattr(jit.platformdirs, "user_cache_path", homeless)
    assert compiled()
    unwritable(monkeypatch, homes)
    jit.cache_folders.cache_clear()
    assert jit.cache_folders().why.endswith("no home")


def test_unfinished_code_lies_under_a_name_that_nobody_knows(homes, monkeypatch):
    seen = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda new, to: seen.append(new) or replace(new, to))
    for number in (2, 3):
        jit.jit("names")(make_power(number))(1.0)
    assert len({path.stem for path in seen}) == 2
    assert {path for path in homes.rglob("*") if path.is_file()} == {*kept(homes)}


# Settings


@pytest.fixture
def name(homes):
    """The name of a kernel's code as Numba is set now."""
    kernel = jit.jit("settings")(half)
    kernel(np.ones(3))
    (signature,) = kernel.signatures
    codegen = kernel.targetdescr.target_context.codegen()
    return lambda codegen=codegen: kernel._cache._name(signature, codegen)


SETTINGS = [name for name in vars(config) if name.isupper()]
COMPILES = [name for name in SETTINGS if settings._COMPILES.match(name)]
# What code for a CPU does not depend on, or what tells one processor from another.
NOT = """
_HAVE_YAML ALWAYS_WARN_UNINIT_VAR ANNOTATE CACHE_DIR CACHE_LOCATOR_CLASSES CAPTURED_ERRORS
CHROME_TRACE COLOR_SCHEME CPU_FEATURES CPU_NAME DEVELOPER_MODE DIFF_IR DISABLE_CUDA DISABLE_JIT
DISABLE_PERFORMANCE_WARNINGS DISABLE_TYPEINFER_FAIL_CACHE ENABLE_CUDASIM ENABLE_SYS_MONITORING
FORCE_CUDA_CC FULL_TRACEBACKS FUNCTION_CACHE_SIZE GDB_BINARY HIGHLIGHT_DUMPS HTML IS_32BITS IS_OSX
IS_WIN32 JIT_COVERAGE LLVM_PASS_TIMINGS MACHINE_BITS NUMBA_DEFAULT_NUM_THREADS NUMBA_NUM_THREADS
PARALLEL_DIAGNOSTICS PYVERSION RUNNING_UNDER_PROFILER SHOW_HELP THREADING_LAYER
THREADING_LAYER_PRIORITY TRACE USE_LEGACY_TYPE_SYSTEM USE_LLVMLITE_MEMORY_MANAGER
"""


def test_every_setting_of_numba_is_known():
    """For a new one: does the code for a CPU depend on it?"""
    others = set(SETTINGS) - set(COMPILES) - set(NOT.split())
    assert [name for name in others if not name.startswith(("CUDA_", "DUMP_"))] == []
    assert set(COMPILES) > {"OPT", "BOUNDSCHECK", "DEBUG_JIT", "DEBUGINFO_DEFAULT", "ENABLE_AVX"}


def test_code_is_named_after_what_it_depends_on(name, monkeypatch):
    before, known = name(), set()
    for setting in set(SETTINGS) - {"CPU_NAME", "CPU_FEATURES"}:  # see below
        with monkeypatch.context() as patch:
            patch.setattr(config, setting, 7)
            found = name()
        assert (found != before) is (setting in COMPILES), setting
        known.add(found)
    assert len(known) == len(COMPILES) + 1
    assert name() == before


def test_code_is_named_after_the_processor(name):
    codegen = type("", (), {"magic_tuple": lambda self: ("triple", "a core", "+a feature")})()
    assert name(codegen) != name()


def test_the_levels_of_optimization_are_told_apart(name, monkeypatch):
    found = set()
    for text in ("0", "3", "max"):
        monkeypatch.setattr(config, "OPT", config._process_opt_level(text))
        found.add(name())
    assert len(found) == 3
