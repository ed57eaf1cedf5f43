/* Replies with the SHA-256 of its input, from behind a hardware wall. */
#include "dunlin.h"

#include "sha256.h"

DUNLIN_HANDLE handle(void) {
  size_t length;
  char *body = dunlin_input(&length);
  if (body == NULL) return 1;
  uint8_t digest[32];
  sha256((const uint8_t *)body, length, digest);
  char text[65];
  for (int i = 0; i < 32; i++) {
    text[2 * i] = "0123456789abcdef"[digest[i] >> 4];
    text[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
  }
  text[64] = '\n';
  return dunlin_output_write(text, sizeof text);
}
