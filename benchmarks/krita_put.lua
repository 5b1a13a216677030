-- PUT /v1/kv/NAME with the value as the raw body.
local here = debug.getinfo(1, "S").source:match("^@(.*/)")
local bench = dofile(here .. "common.lua")

local paths, values

function init()
  bench.seed_thread()
  paths = bench.all_keys(function(key) return "PUT /v1/kv/" .. key .. " HTTP/1.1\r\n" end)
  values = bench.all_values(function(value)
    return "Host: localhost\r\nContent-Length: " .. #value .. "\r\n\r\n" .. value
  end)
end

function request()
  return bench.choose(paths) .. bench.choose(values)
end
