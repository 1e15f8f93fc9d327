"""`python -m jaxrobust` is the command `jaxrobust`."""

from jaxrobust.main import command

if __name__ == "__main__":
    command()
