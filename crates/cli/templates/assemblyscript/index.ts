// Replies with the lines of the body in order, without those that come twice.
import { Level, inputText, log, outputText } from "./dunlin";

const REPLY_TOO_LARGE: i32 = 1;

export function handle(): i32 {
  const lines = inputText().split("\n");
  lines.sort();
  let reply = "";
  let kept = 0;
  for (let at = 0; at < lines.length; at++) {
    if (lines[at].length == 0 || (at > 0 && lines[at] == lines[at - 1])) continue;
    reply += lines[at] + "\n";
    kept++;
  }
  log(Level.Info, kept.toString() + " lines");
  return outputText(reply) ? 0 : REPLY_TOO_LARGE;
}
