// Compares words: the body is one pair a line, "kitten sitting"; the reply gives each pair's edit
// distance. Error codes: 1 a line is not a pair, 2 the reply is over the output limit.
import { Level, inputText, log, outputText } from "../../sdk/assemblyscript/dunlin";

const NOT_A_PAIR: i32 = 1;
const REPLY_TOO_LARGE: i32 = 2;

/** Edits that turn one word into the other, after Wagner and Fischer, with two rows of the table. */
function distance(from: string, to: string): i32 {
  let above = new StaticArray<i32>(to.length + 1);
  let row = new StaticArray<i32>(to.length + 1);
  for (let j = 0; j <= to.length; j++) above[j] = j;
  for (let i = 1; i <= from.length; i++) {
    row[0] = i;
    for (let j = 1; j <= to.length; j++) {
      const same = from.charCodeAt(i - 1) == to.charCodeAt(j - 1);
      const replace = above[j - 1] + (same ? 0 : 1);
      row[j] = min(replace, min(above[j], row[j - 1]) + 1);
    }
    const spent = above;
    above = row;
    row = spent;
  }
  return above[to.length];
}

export function handle(): i32 {
  const lines = inputText().split("\n");
  let reply = "";
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i].trim();
    if (line.length == 0) continue;
    const words = line.split(" ");
    if (words.length != 2) {
      log(Level.Error, "line " + (i + 1).toString() + " is not a pair of words");
      return NOT_A_PAIR;
    }
    reply += line + " " + distance(words[0], words[1]).toString() + "\n";
  }
  return outputText(reply) ? 0 : REPLY_TOO_LARGE;
}
