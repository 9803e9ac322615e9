"""The library with its annotations checked at run time: shapes and types of arguments and results, by beartype.

`install()` has to come before the library is imported. Imports that are for type checkers alone are made, too, and
each function is decorated with `jaxtyping.jaxtyped`.
"""

import ast
import contextlib
import importlib.machinery
import sys
from importlib.abc import MetaPathFinder

from beartype import BeartypeConf, beartype
from jaxtyping import config, jaxtyped

_CHECK = ast.parse("__import__('checked').check").body[0].value
# A whole number is a float, too.
_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))
# The module and the qualified name of each function that is checked.
CHECKED = set()


def check(function):
    """The function, its arguments and results checked in each call."""
    CHECKED.add((function.__module__, function.__qualname__))
    return jaxtyped(typechecker=_beartype)(function)


def names_self(function):
    """Whether a function's annotations have `Self`, which beartype knows only within classes that it decorates."""
    arguments = (each for each in ast.walk(function.args) if isinstance(each, ast.arg))
    hints = (function.returns, *(each.annotation for each in arguments))
    return any(hint is not None and "Self" in ast.unparse(hint) for hint in hints)


class _Decorate(ast.NodeTransformer):
    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        if not names_self(node):
            # The last decorator is the first to see the function.
            node.decorator_list.append(ast.copy_location(_CHECK, node))
        return node

    def visit_If(self, node):
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node.body
        return self.generic_visit(node)


class _Loader(importlib.machinery.SourceFileLoader):
    def source_to_code(self, data, path, *, _optimize=-1):
        tree = ast.fix_missing_locations(_Decorate().visit(ast.parse(data)))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def path_stats(self, path):
        # Without these, Python keeps no compiled file, which an unchecked process would find.
        raise OSError


class _Finder(MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        # The package's own file has names for type checkers that it imports later.
        if not fullname.startswith("cvae_jax."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install():
    """Check what is imported from now on."""
    sys.meta_path.insert(0, _Finder())


@contextlib.contextmanager
def unchecked():
    """Leave arguments to the library's own checks, which refuse them in its own words."""
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", False)
