"""Nothing about stores in this process's log."""

# start: silence
import logging

logging.getLogger("failsoft.stores").setLevel(logging.CRITICAL)
# end: silence
