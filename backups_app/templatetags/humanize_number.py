"""Template filters for numbers."""

from django import template
from django.utils.formats import number_format

register = template.Library()


@register.filter
def grouped(number: int) -> str:
    """A number with its thousands apart, in the reader's locale."""
    return number_format(number, force_grouping=True)
