"""Programs with variable scopes, which TensorFlow and localconv must answer alike: make_layers_golden.py records what
TensorFlow says.

A program is a function of a namespace, with what both have under the same names (variable_scope, get_variable_scope,
AUTO_REUSE, global_variables, trainable_variables, get_regularization_losses) and, beside that: `conv1d(name)`, of two
filters unless told, on an input of ones; `constant(value)`, an initializer; `total(factor)`, a regularizer, the sum of
the weight's elements times the factor; `plus(a, b)`, the sum of two variables or arrays; `say(...)`, which records;
`refused(call, ...)`, which calls and records the error's type. At its end the variables are recorded too, with the
value that all elements have (None for random ones), and the penalties.

A refused call is given a name or comes last: TensorFlow counts refused calls where it numbers layers. No layer with an
activity_regularizer is called twice: TensorFlow lists the penalties of both outputs.
"""

NAMES = (
    "a",
    "a/b",
    "a//b",
    "x/",
    "B.1-2_",
    "0",
    ".x",
    "_x",
    "-x",
    "/x",
    "a b",
    "a:0",
    "ä",
    "a\n\n",
    3,
    b"a",
    ["a"],
    2.5,
    True,
)
# Names of scopes only: TensorFlow refuses to run operations with such names.
ODD_NAMES = ("a>\\b", ">x", "\\x", "", None)


def scope_object_as_name(t):
    with t.variable_scope("test1") as scope:
        t.conv1d(name=scope)
    with t.variable_scope("test1", reuse=True) as scope:
        t.conv1d(name=scope)
    t.conv1d(name=scope)
    with t.variable_scope("test2") as scope:
        t.conv1d(name=scope)
        t.refused(t.conv1d, name=scope)
        t.conv1d(name=scope, reuse=True)
        t.conv1d(name=scope, reuse=t.AUTO_REUSE)
        t.conv1d()


def scope_object_used_elsewhere(t):
    with t.variable_scope("a", initializer=t.constant(0.25), regularizer=t.total(1)) as a:
        pass
    with t.variable_scope("b", initializer=t.constant(0.5), reuse=t.AUTO_REUSE):
        t.conv1d(name=a)
        t.refused(t.conv1d, name=a)
        with t.variable_scope(a) as again:
            t.say(again.name, again.reuse, again is a)
            t.conv1d()
        with t.variable_scope(a, initializer=t.constant(0.75), regularizer=t.total(10), reuse=True) as changed:
            t.say(changed.name, changed.reuse)
            t.refused(t.conv1d, name="new")
            t.conv1d(name="new", reuse=t.AUTO_REUSE)
        t.say(a.reuse)
        t.conv1d()


def scopes_opened_again(t):
    with t.variable_scope("a") as a:
        t.conv1d()
        t.conv1d()
    with t.variable_scope(a, reuse=True) as reusing:
        t.say(reusing.name, reusing.reuse)
        t.conv1d()
        t.conv1d()
        t.refused(t.conv1d, name="conv1d_2")
    with t.variable_scope(a, reuse=False) as plain:
        t.say(plain.reuse)
        t.refused(t.conv1d, name="conv1d")
        with t.variable_scope("in") as inner:
            t.conv1d()
    with t.variable_scope(reusing, reuse=False) as still:
        t.say(still.reuse)
        t.conv1d(name="conv1d")
        with t.variable_scope(inner) as plain:
            t.say(plain.name, plain.reuse)


def automatic_names_in_scopes_opened_again(t):
    with t.variable_scope("a") as a:
        t.conv1d()
        with t.variable_scope(a):
            t.conv1d()
            t.conv1d(name="c")
        with t.variable_scope(a, reuse=True):
            t.conv1d()
        with t.variable_scope(t.get_variable_scope()):
            t.conv1d(name="d")
    with t.variable_scope(a, reuse=t.AUTO_REUSE):
        t.conv1d()
        t.conv1d()
        t.conv1d()
    outermost = t.get_variable_scope()
    t.conv1d()
    with t.variable_scope("b"):
        t.conv1d()
        with t.variable_scope(outermost):
            t.conv1d()
            with t.variable_scope("b"):
                t.conv1d()
            with t.variable_scope("b"):
                t.conv1d(name="e")
        t.conv1d(reuse=t.AUTO_REUSE)
    t.conv1d(name="f")
    t.conv1d(reuse=t.AUTO_REUSE)


def automatic_names(t):
    t.conv1d()
    t.conv1d(name="conv1d_1")
    t.conv1d(name="s/conv1d")
    t.conv1d()
    with t.variable_scope("conv1d_3"):
        t.conv1d()
    t.conv1d()
    with t.variable_scope("s"):
        t.conv1d()
        with t.variable_scope("conv1d_2"):
            t.conv1d()
        t.conv1d()
    with t.variable_scope("s", reuse=t.AUTO_REUSE):
        t.conv1d()
        t.conv1d()
    t.conv1d(reuse=True)
    t.conv1d(reuse=t.AUTO_REUSE)
    t.conv1d(reuse=False)
    t.conv1d(name="")


def reuse(t):
    values = (None, False, True, t.AUTO_REUSE)
    with t.variable_scope("a"), t.variable_scope("b"):
        t.conv1d(name="c")
    for outer in values:
        for inner in values:
            with t.variable_scope("a", reuse=outer) as a, t.variable_scope("b", reuse=inner) as b:
                t.say(a.reuse, b.reuse)
                for layer in values:
                    t.refused(t.conv1d, name="c", reuse=layer)
                    name = "_".join(getattr(value, "name", str(value)) for value in ("new", outer, inner, layer))
                    t.refused(t.conv1d, name=name, reuse=layer)
    for wrong in (0, 1, "yes", "", 2.0, [True]):
        t.refused(t.conv1d, name="c", reuse=wrong)
        t.refused(opened, t, "a", reuse=wrong)


def reuse_variables(t):
    with t.variable_scope("a") as a:
        t.conv1d(name="c")
        with t.variable_scope("early") as early:
            t.conv1d(name="c")
            a.reuse_variables()
            t.say(a.reuse, early.reuse)
            t.refused(t.conv1d, name="c")
        t.conv1d(name="c")
        with t.variable_scope("early") as late:
            t.say(late.reuse)
            t.conv1d(name="c")
    with t.variable_scope("a") as a:
        t.refused(t.conv1d, name="c")
        t.get_variable_scope().reuse_variables()
        t.say(a.reuse)
    outermost = t.get_variable_scope()
    t.say(outermost.name, outermost.reuse)
    outermost.reuse_variables()
    t.conv1d(name="a/c")
    t.refused(t.conv1d, name="new")
    with t.variable_scope("a"):
        t.conv1d(name="c")


def outermost_scope(t):
    outermost = t.get_variable_scope()
    with t.variable_scope("a"):
        with t.variable_scope(outermost) as again:
            t.say(again.name, again.reuse, t.get_variable_scope().name)
            t.conv1d(name="c")
        with t.variable_scope(outermost, reuse=True):
            t.conv1d(name="c")
        t.conv1d(name=outermost)
        t.say(t.get_variable_scope().name)
    with t.variable_scope(t.get_variable_scope(), reuse=t.AUTO_REUSE):
        t.conv1d()
        t.conv1d(name="c")
    t.refused(t.conv1d)


def initializers(t):
    with t.variable_scope("a", initializer=t.constant(0.25)) as a:
        t.conv1d()
        t.conv1d(kernel_initializer=t.constant(2), bias_initializer=t.constant(3))
        t.conv1d(bias_initializer=None)
        with t.variable_scope("in"):
            t.conv1d(bias_initializer=None)
        with t.variable_scope("other", initializer=t.constant(0.75)) as other:
            t.conv1d()
            other.set_initializer(t.constant(5))
            t.conv1d()
            other.set_initializer(None)
            t.conv1d()
        t.conv1d()
    with t.variable_scope(a):
        t.conv1d(name="again")
    t.conv1d(name="none", bias_initializer=None)
    t.conv1d(name="zero", kernel_initializer="zeros")


def regularizers(t):
    ones = t.constant(1)
    with t.variable_scope("a", initializer=ones, regularizer=t.total(1)) as a:
        t.conv1d()
        t.conv1d(
            kernel_regularizer=t.total(10),
            bias_regularizer=t.total(100),
            activity_regularizer=t.total(1000),
            bias_initializer=ones,
        )
        t.conv1d(use_bias=False)
        with t.variable_scope("in"):
            t.conv1d()
        with t.variable_scope("other", regularizer=t.total(2)) as other:
            t.conv1d()
            other.set_regularizer(t.total(3))
            t.conv1d()
        with t.variable_scope("none", regularizer=lambda weight: None):
            t.conv1d()
            t.conv1d(kernel_regularizer=lambda weight: None)
    with t.variable_scope(a, reuse=True):
        t.conv1d(kernel_regularizer=t.total(5), bias_regularizer=t.total(5))
    with t.variable_scope(a, reuse=t.AUTO_REUSE, regularizer=t.total(7)):
        t.conv1d(name="conv1d_2", bias_initializer=t.constant(0.5))
    t.conv1d(name="outside", kernel_initializer=ones)


def default_names(t):
    for count in range(3):
        with t.variable_scope(None, default_name="d") as scope:
            t.say(scope.name, scope.reuse)
            t.conv1d()
            with t.variable_scope(None, "e", [count]) as inner:
                t.say(inner.name)
    with t.variable_scope("given", "d") as scope:
        t.say(scope.name)
    with t.variable_scope("a") as a:
        for _ in range(2):
            with t.variable_scope(None, "d") as scope:
                t.say(scope.name)
        t.conv1d(name="d_2")
        with t.variable_scope(None, "d") as scope:
            t.say(scope.name)
    with t.variable_scope(a, reuse=True), t.variable_scope(None, "d") as scope:
        t.say(scope.name, scope.reuse)
    with t.variable_scope(None, "d", initializer=t.constant(0.5), regularizer=t.total(1)):
        t.conv1d()
    for wrong in (True, t.AUTO_REUSE, "yes"):
        t.refused(opened, t, None, "d", reuse=wrong)
    for wrong in (3, "a b", "_x", b"a"):
        t.refused(opened, t, None, wrong)
    t.refused(opened, t, None)


def names(t):
    for name in (*NAMES, *ODD_NAMES):
        t.refused(opened, t, name)
        with t.variable_scope("outer"):
            t.refused(opened, t, name)
    for name in NAMES:
        t.refused(t.conv1d, name=name)


def empty_names(t):
    t.conv1d()
    with t.variable_scope("") as empty:
        t.say(empty.name)
        t.conv1d()
    with t.variable_scope("", reuse=t.AUTO_REUSE):
        t.conv1d()
    with t.variable_scope("a"), t.variable_scope("") as empty:
        t.say(empty.name)
        t.conv1d()


def lists(t):
    with t.variable_scope("gen") as gen:
        t.conv1d(kernel_initializer=t.constant(1), kernel_regularizer=t.total(1))
        t.conv1d(trainable=False)
    with t.variable_scope("generic"):
        t.conv1d(kernel_initializer=t.constant(2), activity_regularizer=t.total(1), bias_regularizer=t.total(1))
    for scope in (None, "", "gen", "gen/", "en", ".*kernel", "generic/conv1d", "gen|x"):
        t.say([v.name for v in t.global_variables(scope)], [v.name for v in t.trainable_variables(scope)])
        t.say(t.losses(scope))
    t.say([v.name for v in gen.global_variables()], [v.name for v in gen.trainable_variables()])
    t.say([v.name for v in t.get_variable_scope().global_variables()])


def refusals(t):
    t.conv1d(name="c", use_bias=False)
    for again in (True, t.AUTO_REUSE):
        t.refused(t.conv1d, name="c", filters=3, reuse=again)
        t.refused(t.conv1d, name="c", dtype="float64", reuse=again)
        t.refused(t.conv1d, name="c", kernel_initializer="foo", reuse=again)
    t.refused(t.conv1d, name="c", reuse=True)
    t.conv1d(name="c", reuse=t.AUTO_REUSE)
    t.conv1d(name="c", trainable=False, reuse=True)
    t.refused(t.conv1d, name="wide", dtype="float64")
    t.refused(t.conv1d, name="d/c", filters=0)


def errors_close_scopes(t):
    def fails():
        with t.variable_scope("a"), t.variable_scope("b"):
            t.conv1d()
            raise KeyError

    t.refused(fails)
    t.say(t.get_variable_scope().name)
    with t.variable_scope("a"), t.variable_scope("b"):
        t.refused(t.conv1d, name="conv1d")


def custom_getters(t):
    def telling(getter, name, *args, **kwargs):
        t.say(name, [int(size) for size in kwargs["shape"]], kwargs["dtype"], kwargs["reuse"], kwargs["trainable"])
        t.say(kwargs["regularizer"] is None, kwargs["constraint"] is None, not args)
        return getter(name, *args, **kwargs)

    with t.variable_scope("a", custom_getter=telling, regularizer=t.total(1), initializer=t.constant(0.5)) as a:
        t.conv1d(kernel_regularizer=t.total(10))
        t.conv1d(name="fixed", trainable=False, kernel_constraint=abs, use_bias=False)
        with t.variable_scope("in"):
            t.conv1d()
    with t.variable_scope("a", reuse=True):
        t.conv1d()
    with t.variable_scope(a, reuse=True):
        t.conv1d()
    t.conv1d(name=a)
    t.conv1d()


def custom_getters_inside_each_other(t):
    def named(word):
        def getter_of_scope(getter, name, *args, **kwargs):
            t.say(word, name)
            return getter(f"{name}_{word}", *args, **kwargs)

        return getter_of_scope

    with t.variable_scope("a", custom_getter=named("outer")) as a:
        with t.variable_scope("b", custom_getter=named("middle")), t.variable_scope("c", custom_getter=named("inner")):
            t.conv1d()
        t.conv1d()
    with t.variable_scope(a, custom_getter=named("again")) as again:
        t.conv1d(name="d")
    with t.variable_scope("e", custom_getter=named("around")):
        t.conv1d(name=again, use_bias=False)
        with t.variable_scope(a):
            t.conv1d(name="f")
    with t.variable_scope("g", custom_getter=named("first")) as g:
        with t.variable_scope("early"):
            g.set_custom_getter(named("second"))
            t.conv1d()
        t.conv1d()
        g.set_custom_getter(None)
        t.conv1d()
        t.say(g.custom_getter is None)


def custom_getters_that_change_variables(t):
    def of_two(getter, name, *args, **kwargs):
        return t.plus(getter(f"{name}/0", *args, **kwargs), getter(f"{name}/1", *args, **kwargs))

    with t.variable_scope("a", custom_getter=of_two, initializer=t.constant(0.5), regularizer=t.total(1)) as a:
        t.conv1d(kernel_regularizer=t.total(10))
    with t.variable_scope(a, reuse=True):
        t.conv1d()
        t.refused(t.conv1d, name="new")

    def frozen(getter, name, *args, **kwargs):
        return getter(name, *args, **kwargs | {"trainable": False, "regularizer": None})

    with t.variable_scope("b", custom_getter=frozen, regularizer=t.total(1), initializer=t.constant(1)):
        t.conv1d(bias_regularizer=t.total(3), bias_initializer=t.constant(2))

    kept = {}

    def shared(getter, name, *args, **kwargs):
        kind = name.split("/")[-1]
        kept.setdefault(kind, getter(name, *args, **kwargs) if kind not in kept else None)
        return kept[kind]

    with t.variable_scope("c", custom_getter=shared, initializer=t.constant(1)):
        t.conv1d(kernel_regularizer=t.total(1))
        t.conv1d(kernel_regularizer=t.total(100))
    t.conv1d(name="free", kernel_initializer=t.constant(0.25))


def getters_called_otherwise(t):
    with t.variable_scope("a"):
        t.conv1d(name="c", kernel_initializer=t.constant(0.5), use_bias=False)

    def existing(getter, name, shape=None, **kwargs):
        return getter("a/c/kernel")

    def wrong_shape(getter, name, **kwargs):
        return getter("a/c/kernel", shape=[3, 3, 4])

    def no_shape(getter, name, **kwargs):
        return getter(f"{name}_new")

    def not_new(getter, name, **kwargs):
        return getter("a/c/kernel", [3, 3, 2], reuse=False)

    def positional(getter, name, shape, dtype, initializer, **kwargs):
        return getter(name, shape, dtype, initializer, None, False, False)

    for getter in (existing, wrong_shape, no_shape, not_new, positional):
        with t.variable_scope("b", custom_getter=getter):
            t.refused(t.conv1d, name=getter.__name__, use_bias=False)


def opened(t, *arguments, **options):
    with t.variable_scope(*arguments, **options) as scope:
        t.say(scope.name)


PROGRAMS = {
    program.__name__: program
    for program in (
        scope_object_as_name,
        scope_object_used_elsewhere,
        scopes_opened_again,
        automatic_names_in_scopes_opened_again,
        automatic_names,
        reuse,
        reuse_variables,
        outermost_scope,
        initializers,
        regularizers,
        default_names,
        names,
        empty_names,
        lists,
        refusals,
        errors_close_scopes,
        custom_getters,
        custom_getters_inside_each_other,
        custom_getters_that_change_variables,
        getters_called_otherwise,
    )
}


class Record:
    """What a program says."""

    def __init__(self):
        self.said = []

    def say(self, *values):
        self.said.append([value if isinstance(value, (bool, float, str, list)) else value.name for value in values])

    def refused(self, call, *arguments, **options):
        try:
            call(*arguments, **options)
        except Exception as error:
            self.said.append(type(error).__name__)
        else:
            self.said.append("accepted")
