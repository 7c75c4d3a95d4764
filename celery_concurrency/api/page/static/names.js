// Names from outside: of limits and dimensions, and ids and workers that may be any text.

/** Return what a map has under a name; not what every object has, as under "constructor". */
export const entry = (map, name) => (map && Object.hasOwn(map, name) ? map[name] : undefined);

/** Return a text in which what can't be seen is escaped, as the command line does (text.py). */
export const visible = (text) => text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, escaped);

// Joiners stay: words of some scripts, and emoji, are written with them.
const SHORT = new Map([["\n", "\\n"], ["\r", "\\r"], ["\t", "\\t"], ["\u200c", "\u200c"], ["\u200d", "\u200d"]]);

function escaped(char) {
  const code = char.codePointAt(0);
  const [letter, length] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
  return SHORT.get(char) ?? `\\${letter}${code.toString(16).padStart(length, "0")}`;
}
