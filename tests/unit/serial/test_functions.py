"""Functions and classes: exported by hash, by value where needed, with clear errors."""

from __future__ import annotations

import json
import pickle
import threading
from typing import Any

import pytest

from shoal._core.serial import functions
from shoal._core.serial.functions import KEY_BYTES, export, load


def in_main(source: str) -> dict[str, Any]:
    """Run code as if it were the user's script."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(source, space)
    return space


def importable(x: int) -> int:
    return x + 1


class TestExport:
    def test_an_importable_function_travels_by_name(self) -> None:
        key, pickled = export(importable)
        assert load(pickled) is importable
        assert len(key) == KEY_BYTES
        assert len(pickled) < 200

    def test_closures_lambdas_and_classes_travel_by_value(self) -> None:
        offset = 5

        class Counter:
            def add(self, x: int) -> int:
                return x + offset

        assert load(export(lambda x: x * offset)[1])(2) == 10
        assert load(export(Counter)[1])().add(1) == 6

    def test_functions_of_main_take_the_globals_they_read(self) -> None:
        space = in_main(
            "import json\nbase = 3\ndef f(x): return json.dumps(x + base)\n"
        )
        pickled = export(space["f"])[1]
        space["base"] = 100
        assert load(pickled)(1) == json.dumps(4)

    def test_functions_may_refer_to_each_other_and_to_themselves(self) -> None:
        space = in_main(
            "def even(n): return True if n == 0 else odd(n - 1)\n"
            "def odd(n): return False if n == 0 else even(n - 1)\n"
        )
        assert load(export(space["even"])[1])(10)

    def test_the_key_tells_different_code_apart(self) -> None:
        first = in_main("def f(): return 1")["f"]
        second = in_main("def f(): return 2")["f"]
        assert export(first)[0] == export(first)[0]
        assert export(first)[0] != export(second)[0]


class Model:
    def __init__(self) -> None:
        self.writer = Writer()

    def run(self) -> Any:
        return lambda: self.writer


class Writer:
    def __init__(self) -> None:
        self._lock = threading.Lock()


class TestRefused:
    def test_the_path_to_what_a_closure_holds_is_named(self) -> None:
        with pytest.raises(TypeError) as caught:
            export(Model().run())
        text = str(caught.value)
        assert text.startswith("Could not serialize the function ")
        assert "Model.run.<locals>.<lambda>: cannot pickle '_thread.lock'" in text
        assert "function.__closure__['self'].writer._lock, of type _thread.lock" in text

    def test_a_global_is_named(self) -> None:
        space = in_main(
            "import threading\n"
            "lock = threading.Lock()\n"
            "def f():\n"
            "    def g(): return lock\n"
            "    return g\n"
        )
        with pytest.raises(TypeError, match=r"f\.__globals__\['lock'\], of type"):
            export(space["f"])

    def test_defaults_are_named(self) -> None:
        space = in_main(
            "import threading\n"
            "def f(a=threading.Lock()): pass\n"
            "def g(*, a=[threading.Lock()]): pass\n"
        )
        with pytest.raises(TypeError, match=r"f\.__defaults__\[0\], of"):
            export(space["f"])
        with pytest.raises(TypeError, match=r"g\.__kwdefaults__\['a'\]\[0\], of"):
            export(space["g"])

    def test_a_class_is_called_one(self) -> None:
        space = in_main("import threading\nclass A:\n    lock = threading.Lock()\n")
        with pytest.raises(
            TypeError, match=r"the actor class __main__\.A:(.|\n)*A\.lock, of"
        ):
            export(space["A"])


class TestSize:
    def test_a_large_one_is_sent_with_a_warning(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(functions, "SIZE_WARNING_BYTES", 10_000)
        table = bytes(20_000)
        with pytest.warns(UserWarning, match=r"MiB when pickled(.|\n)*put\(\)"):
            export(lambda: table)

    def test_one_that_is_too_large_is_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(functions, "SIZE_WARNING_BYTES", 10_000)
        monkeypatch.setattr(functions, "SIZE_MAX_BYTES", 15_000)
        table = bytes(20_000)
        with pytest.raises(ValueError, match="at most"):
            export(lambda: table)


class TestLoad:
    def test_a_missing_module_is_raised_with_advice(self) -> None:
        pickled = pickle.dumps(importable).replace(b"test_functions", b"no_such_module")
        with pytest.raises(ModuleNotFoundError) as caught:
            load(pickled)
        assert "runtime_env" in caught.value.__notes__[0]
