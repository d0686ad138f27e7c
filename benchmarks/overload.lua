-- The clients of benchmarks/shedding.py: each thinks for a while (exponential, THINK milliseconds on average), asks, and waits for the
-- answer, however long it takes. One line for each answer goes to the file RECORD: class, status, microseconds that it took, and when
-- it came, in microseconds.
local ffi = require("ffi")
ffi.cdef[[
typedef struct { long seconds; long nanoseconds; } moment;
int clock_gettime(int clock, moment *time);
]]
local moment = ffi.new("moment")

local function now()
  ffi.C.clock_gettime(1, moment)
  return tonumber(moment.seconds) * 1e6 + math.floor(tonumber(moment.nanoseconds) / 1e3)
end

local think = tonumber(os.getenv("THINK"))
local share = tonumber(os.getenv("CRITICAL"))
local first = tonumber(os.getenv("CLIENTS"))
local record

function init(args)
  math.randomseed(tonumber(os.getenv("SEED")))
  record = io.open(os.getenv("RECORD"), "w")
  record:setvbuf("line")
end

function delay()
  if first > 0 then
    -- A connection that is opened and says nothing holds a thread of gunicorn's.
    first = first - 1
    return 0
  end
  return math.floor(-math.log(1 - math.random()) * think + 0.5)
end

function request()
  local class = math.random() < share and "critical" or "sheddable"
  return wrk.format("GET", "/" .. class, {["Host"] = "localhost", ["X-Class"] = class, ["X-Sent"] = string.format("%.0f", now())})
end

function response(status, headers, body)
  local sent = headers["x-sent"] or headers["X-Sent"]
  local class = headers["x-class"] or headers["X-Class"]
  local arrived = now()
  if sent then
    record:write(string.format("%s %d %d %.0f\n", class, status, arrived - tonumber(sent), arrived))
  end
end
