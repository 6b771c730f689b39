"""The application of the tests, with commands that change what is nested, and a bank."""

import random

from tests.support.app import COMMANDS, DATA, app, state

__all__ = ["app"]

NUMBERS = list(map(str, range(100)))
ACCOUNTS = state.dict("ACCOUNTS", initial=dict.fromkeys(NUMBERS, 100))
VAULT = state.counter("VAULT", initial=1000)
RESERVE = state.counter("RESERVE", initial=1000)


def append(first, count):
    """Each is the ``LOG.append`` of a user's module."""
    for number in range(first, first + count):
        DATA["log"].append(number)


@state.transactional(retries=1000)
def transfer(dice):
    """Move money from one account to another, and from the vault to the reserve."""
    source, target = dice.sample(NUMBERS, 2)
    amount = min(dice.randint(1, 50), ACCOUNTS[source])
    ACCOUNTS[source] -= amount
    ACCOUNTS[target] += amount
    VAULT.increment(-amount)
    RESERVE.set(RESERVE.value + amount)


@state.transactional(retries=1000)
def totals():
    """What a transaction sees, in several reads."""
    vault = VAULT.value
    accounts = sum(ACCOUNTS.values())
    return accounts, vault + RESERVE.value


def bank(seed, times):
    """Transfer, and look at the totals in between; all that was seen."""
    dice = random.Random(seed)
    seen = set()
    for number in range(times):
        transfer(dice)
        seen.add(("snapshot", sum(ACCOUNTS.snapshot().values())))
        if number % 5 == 0:
            seen.add(("transaction", *totals()))
    return sorted(seen)


COMMANDS.update(
    append=append,
    bank=bank,
    accounts=lambda: [len(ACCOUNTS), sum(ACCOUNTS.values()), min(ACCOUNTS.values())],
    reserves=lambda: [VAULT.value, RESERVE.value],
)
