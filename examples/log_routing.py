"""Where the lines about stores go: a stream with times and processes, and a file of their own."""

# start: routing
import logging
import logging.config

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,  # or failsoft's, which are there already, fall silent
    "formatters": {"full": {"format": "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "full"},
        "outages": {"class": "logging.FileHandler", "formatter": "full", "filename": "outages.log", "delay": True},
    },
    "loggers": {
        "failsoft.stores": {"handlers": ["outages"]},  # besides what the loggers above it do
    },
    "root": {"handlers": ["stderr"], "level": "WARNING"},
}
logging.config.dictConfig(LOGGING)  # in Django, the setting LOGGING is enough
# end: routing
