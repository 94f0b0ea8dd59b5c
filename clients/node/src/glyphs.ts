// Which characters of a text from somebody else are shown to people, on a terminal or in a log: those that one sees.

/** What nobody sees: control characters, line feeds, those that turn, join or vary others, and those without ink. */
const unseen = /[^\p{L}\p{M}\p{N}\p{P}\p{S} ]|[\u2800\p{Variation_Selector}\p{Default_Ignorable_Code_Point}]/gu;

const mostShown = 2_048;

/** A text as people may see it: bounded, on one line, with a replacement character for each that nobody sees. */
export function printable(text: string): string {
  const short = text.length > mostShown ? `${text.slice(0, mostShown)}…` : text;
  return short.replace(unseen, (c) => (c === "\t" ? " " : "\ufffd"));
}
