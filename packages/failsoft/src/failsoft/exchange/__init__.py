"""One request's dealings with the store: facts, plan, one flight, verdict, settlement."""

from failsoft.exchange.applications import unattached
from failsoft.exchange.concern import Answers, Bound, Concern, Confirming, Engine, Participant, Screening
from failsoft.exchange.exchange import SUBJECT, Exchange
from failsoft.exchange.facts import FORMS, METHODS, NOT_YET, Facts, NotYet, Question, json_field, submitted_field
from failsoft.exchange.flight import Flight
from failsoft.exchange.operations import Argument, Divisible, Operation, Script
from failsoft.exchange.policy import Declaration, Policy, collect, current, declarations
from failsoft.exchange.route import DEFAULT, Route, RoutePlan, RoutePlans
from failsoft.exchange.table import Table
from failsoft.exchange.waits import QUICK, Waits

__all__ = [
    "DEFAULT",
    "FORMS",
    "METHODS",
    "NOT_YET",
    "QUICK",
    "SUBJECT",
    "Answers",
    "Argument",
    "Bound",
    "Concern",
    "Confirming",
    "Declaration",
    "Divisible",
    "Engine",
    "Exchange",
    "Facts",
    "Flight",
    "NotYet",
    "Operation",
    "Participant",
    "Policy",
    "Question",
    "Route",
    "RoutePlan",
    "RoutePlans",
    "Screening",
    "Script",
    "Table",
    "Waits",
    "collect",
    "current",
    "declarations",
    "json_field",
    "submitted_field",
    "unattached",
]
