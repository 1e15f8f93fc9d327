"""Numbers within the sentences of experiments."""


def counted(count: int, what: str) -> str:
    """So many of something.

    Example:
      >>> counted(1, "seed"), counted(3, "seed")
      ('1 seed', '3 seeds')
    """
    return f"{count} {what}" + ("" if count == 1 else "s")


def spread_over(count: int, what: str) -> str:
    """What values "a ± b" are; of one there is no deviation.

    Example:
      >>> spread_over(3, "seed"), spread_over(1, "seed")
      ('mean ± standard deviation over 3 seeds', 'of 1 seed')
    """
    return ("mean ± standard deviation over " if count > 1 else "of ") + counted(count, what)


def per_cent(value: float) -> str:
    """A share in per cent to three digits.

    Example:
      >>> per_cent(100 / 3), per_cent(10.0), per_cent(0.1)
      ('33.3 %', '10 %', '0.1 %')
    """
    return f"{value:.3g} %"
