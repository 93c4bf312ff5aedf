"""``demo``"""

HELP = "demo"


def add_arguments(parser):
    pass


def run(options, output):
    return 0
