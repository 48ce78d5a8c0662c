"""One environment variable: how it is declared, read, and described. The variables themselves are in config.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from collector import akto_names
from collector.config_values import FORMS
from collector.errors import ConfigError

if TYPE_CHECKING:
    from collector.config import Config

T = TypeVar("T")

ACTS, NO_EFFECT, NOT_YET = "acts", akto_names.NO_EFFECT, akto_names.NOT_YET


class Setting(Generic[T]):
    """One variable, an attribute of Config: of the class, the declaration; of an object, the value in force.

    ``default`` is the parsed value; ``low``/``high`` bound numbers; ``effect`` is ACTS, NO_EFFECT or NOT_YET. The variable
    has the name of the attribute. ``aliases`` are further names; the later wins, but none may contradict a name of ours.
    """

    def __init__(
        self,
        parse: Callable[[str], T],
        default: T,
        section: str,
        description: str,
        unit: str = "",
        low: float | None = None,
        high: float | None = None,
        *,
        aliases: tuple[str, ...] = (),
        effect: str = ACTS,
        shown_default: str = "",
        secret: bool = False,
    ) -> None:
        self.name = ""
        self.parse = parse
        self.default = default
        self.section = section
        self.description = description
        self.unit = unit
        self.low = low
        self.high = high
        self.aliases = aliases
        self.effect = effect
        self.shown_default = shown_default
        self.secret = secret

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, config: None, owner: type) -> Setting[T]: ...

    @overload
    def __get__(self, config: Config, owner: type) -> T: ...

    def __get__(self, config: Config | None, owner: type) -> Setting[T] | T:
        if config is None:
            return self
        value: T = config.values[self.name].value
        return value

    def __set__(self, config: Config, value: T) -> None:
        raise AttributeError(f"{self.name} is read once, at the start")

    @property
    def ours(self) -> bool:
        """Is it a variable of this collector, not of Akto's?"""
        return self.name.startswith("COLLECTOR_")

    @property
    def type(self) -> str:
        """The kind of value, as documentation calls it."""
        return FORMS[self.parse][0]

    @property
    def form(self) -> str:
        """The expected form, as errors call it."""
        form = FORMS[self.parse][1]
        if self.low is not None and self.high is not None:
            form += f", from {self.low:g} to {self.high:g}"
        elif self.low is not None:
            form += f", at least {self.low:g}"
        return form

    def read(self, name: str, text: str) -> T:
        """The value of ``text``; raises ConfigError."""
        try:
            value = self.parse(text)
            if isinstance(value, (int, float)) and (
                self.low is not None and value < self.low or self.high is not None and value > self.high
            ):
                raise ValueError
        except ValueError:
            shown = "(hidden)" if self.secret else repr(text)
            raise ConfigError(f"{name}={shown}: expected {self.form}") from None
        return value
