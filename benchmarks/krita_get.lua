-- GET /v1/kv/NAME, linearizable (the default).
local here = debug.getinfo(1, "S").source:match("^@(.*/)")
local bench = dofile(here .. "common.lua")

local draw_key

function init()
  bench.seed_thread()
  draw_key = bench.drawing_keys(function(key) return key end)
end

function request()
  return "GET /v1/kv/" .. draw_key() .. " HTTP/1.1\r\nHost: localhost\r\n\r\n"
end
