-- POSTs carts, each with an address of its own. Arguments: the path, the body with USER where the number goes,
-- and a word that no other load of this run has.
dofile("report.lua")
local before, after, sent

function init(arguments)
  local headers = { ["content-type"] = "application/json" }
  for name, value in pairs(wrk.headers) do headers[name] = value end
  -- As many characters in each address, so that the rest of the request is the same.
  local body = arguments[2]:gsub("USER", ("user-%s-%d-COUNTED.."):format(arguments[3], number))
  before, after = split(wrk.format("POST", arguments[1], headers, body), "COUNTED..")
  sent = 0
end

function request()
  sent = sent + 1
  return before .. ("%09d"):format(sent) .. after
end
