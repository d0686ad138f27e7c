"""What failsoft costs, beside the packages that a user would pick instead: ``python -m benchmarks``.

Theory of operation.

- Each case (a framework, a package, a store, a number of limits) runs in a process of its own: `worker`. It builds its
  application and then serves requests by calling the WSGI or ASGI callable, as often as the parent asks: no server, no
  socket to a client.
- Cases that are compared run interleaved, a turn for each in every round, so that they share the machine's good and bad
  moments.
- The number that counts is the least CPU per request over blocks of about 2 ms. On a shared machine noise only adds;
  short blocks of equal length find the quiet moments of a dear case as easily as those of a cheap one.
- A tax is the difference to the bare framework. Round trips are the server's own count of read events.
- Counts are asserted. Times are reported, never asserted: `targets` says which of the project's targets they meet.
- Instructions under callgrind repeat to a fraction of a percent; they are what is tracked from one commit to the next.

The limits are never reached: what is measured is the price of asking, not of refusing.
"""
