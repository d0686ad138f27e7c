"""One request's dealings with the store: facts, plan, one flight, verdict, settlement."""

from failsoft.exchange.exchange import Answers, Bound, Concern, Engine, Exchange, Participant, Route, RoutePlan
from failsoft.exchange.facts import METHODS, NOT_YET, Facts, NotYet, Question
from failsoft.exchange.operations import Argument, Operation, Script
from failsoft.exchange.policy import Declaration, Policy, collect, current, declarations, unattached
from failsoft.exchange.table import Table

__all__ = [
    "METHODS",
    "NOT_YET",
    "Answers",
    "Argument",
    "Bound",
    "Concern",
    "Declaration",
    "Engine",
    "Exchange",
    "Facts",
    "NotYet",
    "Operation",
    "Participant",
    "Policy",
    "Question",
    "Route",
    "RoutePlan",
    "Script",
    "Table",
    "collect",
    "current",
    "declarations",
    "unattached",
]
