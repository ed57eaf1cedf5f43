/* Replies with the request's body in upper case, and how many letters it has. */
#include <ctype.h>
#include <stdio.h>

#include "dunlin.h"

static char alphabet[256];

/* Runs once, at deploy: every call starts from what it leaves in memory. */
DUNLIN_INIT init(void) {
  for (int byte = 0; byte < 256; byte++) alphabet[byte] = (char)toupper(byte);
  return 0;
}

/* Runs for every call, in a fresh copy of that memory. */
DUNLIN_HANDLE handle(void) {
  size_t length;
  char *text = dunlin_input(&length);
  if (text == NULL) return 1;
  size_t letters = 0;
  for (size_t at = 0; at < length; at++) {
    letters += isalpha((unsigned char)text[at]) != 0;
    text[at] = alphabet[(unsigned char)text[at]];
  }
  if (dunlin_output_write(text, (int32_t)length) != 0) return 2;
  char line[64];
  int count = snprintf(line, sizeof line, "%zu letters\n", letters);
  dunlin_log_write(DUNLIN_INFO, line, count);
  return 0;
}
