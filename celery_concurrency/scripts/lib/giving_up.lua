-- Giving up: a message that may not wait, or no longer, is put back with a header that says why. Its
-- next run asks for nothing and fails with that, which tells its canvas.

-- include bounds
-- include counting
-- include limits
-- include taking_out
-- constants GIVEN_UP

-- Put back messages, each with its `refusal` (see bounds.lua).
local function give_up(messages)
  for _, message in ipairs(messages) do
    put_in_header(message, GIVEN_UP, cjson.encode(message.refusal))
    local shared = {}
    for _, limit in ipairs((limits_in(message.facts.group))) do
      if is_shared(limit) then
        shared[#shared + 1] = limit
      end
    end
    count(message.refusal[1] .. ':', shared)
  end
  put_in_front(messages)
end
