"""The scripts that change a store's records and logs. Each runs as one step on the server, and so is atomic.

A record is a hash: `v` its value, `n` its version, `x` when it expires, in milliseconds since 1970 by the server's
clock. A group has two more keys: `index`, a sorted set of the records' names by expiry, which `add`
counts; and `clock`, the last version. All of them share one hash tag, so that a Cluster keeps them in one slot.

A version is the server's time in microseconds, or one more than the last version if that is later. So versions increase
even if a failover has lost the last one. A counter would issue it a second time, and two holders would have the same
fencing number.

A server whose memory is full refuses a script at its first write, if that write needs memory, and does not refuse it
later. So every script begins with a write that needs memory: it is executed completely or not at all.

Every script reports the server's replication id and refuses to run on a replica: a demoted primary would answer from an
old copy. Redis replicates the effects of a script, so a script may read the time (Redis 5 and later).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

CLOCK_KEPT = 7 * 24 * 3600 * 1000
"""Milliseconds for which a group's last version is kept. A server's clock is assumed never to go back by a week."""

_COMMON = """
local info = redis.call('INFO', 'replication')
if not string.find(info, 'role:master', 1, true) then return redis.error_reply('READONLY this is a replica') end
local replid = string.match(info, 'master_replid:(%w+)')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[1])
local function keep(key, ttl)
  if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
end
"""

_RECORD = """
local ends = redis.call('HGET', KEYS[1], 'x')
local live = ends and tonumber(ends) > now
local function write(value, ttl)
  local version = time[1] * 1000000 + time[2]
  local last = tonumber(redis.call('GET', KEYS[3]) or '0')
  if version <= last then version = last + 1 end
  version = string.format('%.0f', version)
  redis.call('HSET', KEYS[1], 'v', value, 'n', version, 'x', string.format('%.0f', now + ttl))
  redis.call('PEXPIRE', KEYS[1], ttl)
  redis.call('ZADD', KEYS[2], string.format('%.0f', now + ttl), ARGV[2])
  keep(KEYS[2], ttl)
  redis.call('SET', KEYS[3], version, 'PX', math.max(ttl, CLOCK_KEPT))
  return version
end
""".replace("CLOCK_KEPT", str(CLOCK_KEPT))


@dataclass(frozen=True)
class Script:
    """A script and its SHA-1, by which a server that has loaded it can run it."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


# KEYS of a record: the record, the group's index, the group's clock. ARGV: milliseconds to add to the server's time
# (for tests), the record's name, and the arguments named at each script.

GET = Script(f"""{_COMMON}{_RECORD}
if not live then return {{replid}} end
return {{replid, redis.call('HGET', KEYS[1], 'v'), redis.call('HGET', KEYS[1], 'n')}}
""")

# value, milliseconds to live
PUT = Script(f"""{_COMMON}{_RECORD}
return {{replid, write(ARGV[3], tonumber(ARGV[4]))}}
""")

# value, milliseconds to live, records of the group at most (-1: any number)
ADD = Script(f"""{_COMMON}{_RECORD}
if live then return {{replid, ''}} end
local limit = tonumber(ARGV[5])
local ended = string.format('%.0f', now)
if limit >= 0 and redis.call('ZCOUNT', KEYS[2], '(' .. ended, '+inf') >= limit then return {{replid, 'full'}} end
local version = write(ARGV[3], tonumber(ARGV[4]))
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ended)
return {{replid, version}}
""")

# value, milliseconds to live, the version that it must have
SWAP = Script(f"""{_COMMON}{_RECORD}
if not live or redis.call('HGET', KEYS[1], 'n') ~= ARGV[5] then return {{replid, ''}} end
return {{replid, write(ARGV[3], tonumber(ARGV[4]))}}
""")

# the version that it must have, or nothing
DELETE = Script(f"""{_COMMON}{_RECORD}
if not live or (ARGV[3] ~= '' and redis.call('HGET', KEYS[1], 'n') ~= ARGV[3]) then return {{replid, 0}} end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[2])
return {{replid, 1}}
""")

# KEYS of a log: its state (last number, expiry), its entries.

_LOG = """
local ends = redis.call('HGET', KEYS[1], 'x')
local live = ends and tonumber(ends) > now
"""

# milliseconds to live, entries kept, the entries
APPEND = Script(f"""{_COMMON}{_LOG}
local ttl = tonumber(ARGV[2])
redis.call('HSET', KEYS[1], 'x', string.format('%.0f', now + ttl))
if not live then
  redis.call('DEL', KEYS[2])
  redis.call('HDEL', KEYS[1], 'last')
end
for i = 4, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[i]) end
redis.call('LTRIM', KEYS[2], -tonumber(ARGV[3]), -1)
local number = redis.call('HINCRBY', KEYS[1], 'last', #ARGV - 3)
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('PEXPIRE', KEYS[2], ttl)
return {{replid, number}}
""")

# the number after which
ENTRIES = Script(f"""{_COMMON}{_LOG}
if not live then return {{replid, 0}} end
local last = tonumber(redis.call('HGET', KEYS[1], 'last'))
local first = last - redis.call('LLEN', KEYS[2]) + 1
local from = math.max(tonumber(ARGV[2]) + 1, first)
local found = {{replid, from}}
-- Not by `unpack`: Lua refuses to unpack 8,000 entries, and a log may have more.
for _, entry in ipairs(redis.call('LRANGE', KEYS[2], from - first, -1)) do
  found[#found + 1] = entry
end
return found
""")

# KEYS of the hints: one stream for all channels. A subscriber reads on in it, so that a hint which the server's
# pub/sub has lost (a reconnect, a failover) comes half a second later. ARGV: the channel that wakes subscribers, the
# hint's channel, the hint, hints kept, milliseconds to live.
HINT = Script(f"""{_COMMON}
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], '*', 'c', ARGV[3], 'h', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('PUBLISH', ARGV[2], '')
return {{replid}}
""")

# the id after which; '$': nothing, and what the last id is
HINTS = Script(f"""{_COMMON}
if ARGV[2] == '$' then
  local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
  return {{replid, last[1] and last[1][1] or '0-0'}}
end
local found = {{replid, ARGV[2]}}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '(' .. ARGV[2], '+')) do
  found[2] = entry[1]
  found[#found + 1] = entry[2][2]
  found[#found + 1] = entry[2][4]
end
return found
""")

# KEYS: the standing of the store. ARGV: milliseconds to add, whether it cannot have lost anything while it was as it is
# now ('1': it has no replicas and writes everything to its disk), whether this process has seen an epoch before, and
# the replication ids of all primaries.
#
# Answers the epoch, when it began (0: nothing was ever lost), the time now, and whether this call began it.
EPOCH = Script(f"""{_COMMON}
local epoch = redis.call('HGET', KEYS[1], 'epoch')
local began = epoch and redis.call('HGET', KEYS[1], 'since') or '0'
local new = 0
local unknown = false
for i = 4, #ARGV do
  if redis.call('HEXISTS', KEYS[1], 'r:' .. ARGV[i]) == 0 then unknown = true end
end
if not epoch then
  epoch, new = time[1] .. '.' .. time[2], 1
  if ARGV[3] == '1' then began = string.format('%.0f', now) end
elseif unknown and redis.call('HGET', KEYS[1], 'safe') ~= '1' then
  epoch, new = time[1] .. '.' .. time[2], 1
  began = string.format('%.0f', now)
end
-- Only what has changed: a server whose memory is full refuses a write, and this is asked every few seconds.
if new == 1 or redis.call('HGET', KEYS[1], 'safe') ~= ARGV[2] then
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'since', began, 'safe', ARGV[2])
end
if unknown then
  for i = 4, #ARGV do redis.call('HSET', KEYS[1], 'r:' .. ARGV[i], '1') end
end
return {{epoch, began, string.format('%.0f', now), new}}
""")

ALL = (GET, PUT, ADD, SWAP, DELETE, APPEND, ENTRIES, HINT, HINTS, EPOCH)
