-- GET /v1/kv/NAME, linearizable (the default).
local here = debug.getinfo(1, "S").source:match("^@(.*/)")
local bench = dofile(here .. "common.lua")

local requests

function init()
  bench.seed_thread()
  requests = bench.all_keys(function(key)
    return "GET /v1/kv/" .. key .. " HTTP/1.1\r\nHost: localhost\r\n\r\n"
  end)
end

function request()
  return bench.choose(requests)
end
