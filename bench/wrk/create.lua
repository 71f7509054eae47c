-- POSTs carts, each with an address of its own. Arguments: the path, the body with USER where the number goes,
-- and a word that no other load of this run has.
dofile("report.lua")
local path, before, after, sent
local headers = { ["content-type"] = "application/json" }

function init(arguments)
  path = arguments[1]
  local from, to = arguments[2]:find("USER", 1, true)
  before = arguments[2]:sub(1, from - 1) .. "user-" .. arguments[3] .. "-" .. number .. "-"
  after = arguments[2]:sub(to + 1)
  sent = 0
  for name, value in pairs(wrk.headers) do headers[name] = value end
end

function request()
  sent = sent + 1
  return wrk.format("POST", path, headers, before .. sent .. after)
end
