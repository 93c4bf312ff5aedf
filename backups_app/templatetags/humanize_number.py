"""Template filters for numbers, and for texts in the middle of a sentence."""

from django import template
from django.utils.formats import number_format

from ..models.shown import shown

register = template.Library()


@register.filter
def grouped(number: int) -> str:
    """A number with its thousands apart, in the reader's locale."""
    return number_format(number, force_grouping=True)


@register.filter
def shown_text(text: object) -> str:
    """A text of somebody's own, so that it cannot turn round what follows it."""
    return shown(str(text))
